"""Eliminating neurons in many networks at once, against the room of neurons, network by network."""

import pytest
import torch
from torch import Tensor

from nerfstudio_prune.kilonerf.elimination import Moments, eliminate, refit
from nerfstudio_prune.neurons import obs
from nerfstudio_prune.neurons.refit import refit_layer
from nerfstudio_prune.neurons.statistics import GroupStatistics, LayerMoments

NETWORKS, POINTS, NEURONS = 4, 60, 7


def drawn(fixed: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs with a constant and neurons that are often zero, weights, wanted values, rows."""
    generator = torch.Generator().manual_seed(seed)
    others = torch.randn(NETWORKS, POINTS, fixed - 1, generator=generator)
    neurons = torch.randn(NETWORKS, POINTS, NEURONS, generator=generator).relu()
    inputs = torch.cat([others, torch.ones(NETWORKS, POINTS, 1), neurons], dim=2)
    weight = torch.randn(NETWORKS, fixed + NEURONS, outputs, generator=generator)
    wanted = inputs @ weight + 0.1 * torch.randn(NETWORKS, POINTS, outputs, generator=generator)
    return inputs, weight, wanted, torch.rand(NETWORKS, outputs, generator=generator)


def some_moments(fixed: int, outputs: int, seed: int = 0) -> Moments:
    inputs, weight, wanted, rows = drawn(fixed, outputs, seed)
    return Moments.of(inputs, weight, wanted, rows, fixed)


def of_one(moments: Moments, network: int) -> LayerMoments:
    """The same as the room of neurons describes it."""
    return LayerMoments(
        moments.weight[network].T,
        moments.gram[network],
        moments.residual[network],
        moments.rows[network],
        moments.fixed,
        True,
    )


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 0.1])
def test_each_network_is_eliminated_as_if_it_were_alone(ridge: float) -> None:
    """The batched form is new, what it computes is not: order and errors of every network are those of the room of
    neurons, with two layers that read the neurons and one of them other inputs as well."""
    layers = [some_moments(1, 1, seed=1), some_moments(4, 5, seed=2)]
    found = eliminate(layers, 2, ridge)
    for i in range(NETWORKS):
        statistics = GroupStatistics(
            tuple(of_one(layer, i) for layer in layers),
            ridge,
            torch.ones(NEURONS),
            torch.zeros(NEURONS, dtype=torch.bool),
            torch.zeros(NEURONS),
        )
        alone = obs.eliminate(statistics, 2)
        assert found.order[i].tolist() == alone.order.tolist()
        torch.testing.assert_close(found.errors[i], alone.errors, rtol=1e-8, atol=1e-10)
    kept = found.kept(NEURONS)
    assert all(sorted([*kept[i].tolist(), *found.order[i].tolist()]) == list(range(NEURONS)) for i in range(NETWORKS))
    assert bool((kept.diff(dim=1) > 0).all())


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_each_network_is_refitted_as_if_it_were_alone(ridge: float) -> None:
    """Other neurons stay in each; weights of the inputs that always stay are fitted along."""
    layer = some_moments(4, 5)
    keep = torch.stack([torch.randperm(NEURONS, generator=torch.Generator().manual_seed(i))[:3] for i in range(4)])
    keep = keep.sort(dim=1).values
    found = refit(layer, keep, ridge)
    for i in range(NETWORKS):
        alone = refit_layer(of_one(layer, i), keep[i], ridge).T
        expected = torch.cat([alone[:4], alone[4:][keep[i]]])
        torch.testing.assert_close(found[i], expected, rtol=1e-8, atol=1e-9)


def test_the_error_is_what_least_squares_leaves() -> None:
    """The curve is in the unit of the loss: with the neurons that stay, the refit leaves as much more error, weighted
    by rows, than a refit of all."""
    inputs, weight, wanted, rows = drawn(3, 4)
    layer = Moments.of(inputs, weight, wanted, rows, 3)
    found = eliminate([layer], 3, 0.0)

    def error(weights: Tensor, x: Tensor) -> Tensor:
        return ((wanted.double() - x.double() @ weights).square().mean(dim=1) * rows).sum(dim=1)

    keep = found.kept(NEURONS)
    stay = torch.cat([torch.arange(3).expand(NETWORKS, -1), 3 + keep], dim=1)
    x = inputs.gather(2, stay[:, None].expand(-1, POINTS, -1))
    everything = torch.arange(NEURONS).expand(NETWORKS, -1)
    increase = error(refit(layer, keep, 0.0), x) - error(refit(layer, everything, 0.0), inputs)
    torch.testing.assert_close(found.errors[:, -1], increase, rtol=1e-6, atol=1e-9)


def test_dead_and_double_neurons_leave_first_and_cost_nothing() -> None:
    """Their moments are singular, in some networks and not in others; no inverse may become infinite."""
    inputs, weight, _, rows = drawn(2, 3)
    inputs[0, :, 4] = 0.0
    inputs[2, :, 5] = 2 * inputs[2, :, 3]
    layer = Moments.of(inputs, weight, inputs @ weight, rows, 2)
    found = eliminate([layer], 5, 0.0)
    assert bool(found.errors.isfinite().all())
    assert int(found.order[0, 0]) == 4 - 2 and int(found.order[2, 0]) in (5 - 2, 3 - 2)
    assert float(found.errors[0, 1]) < 1e-6 and float(found.errors[2, 1]) < 1e-6 < float(found.errors[1, 1])


def test_keeping_all_that_fit_changes_nothing() -> None:
    """Weights that are the best already come back to the bit's neighbourhood."""
    inputs, weight, _, rows = drawn(3, 4)
    layer = Moments.of(inputs, weight, inputs.double() @ weight.double(), rows, 3)
    everything = torch.arange(NEURONS).expand(NETWORKS, -1)
    torch.testing.assert_close(refit(layer, everything, 1e-4), weight.double(), rtol=1e-9, atol=1e-9)
