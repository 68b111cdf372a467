"""Narrowing tiny networks: what leaves costs what was predicted, and what is not needed is taken without loss."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support.single_networks import member, some_classes, some_networks, some_shape
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.distillation import distillation_loss
from nerfstudio_prune.kilonerf.elimination import Elimination, Moments
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.narrow import narrowed, width_errors
from nerfstudio_prune.kilonerf.width_budget import allocate

STEP = 0.5


def drawn(networks: int, points: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = 2 * torch.rand(networks, points, 3, generator=generator) - 1
    return positions, normalize(torch.randn(networks, points, 3, generator=generator), dim=-1)


def with_idle_neurons(count: int, needed: Sequence[int]) -> NetworkClasses:
    """Networks of width 8 of which some neurons are dead, twins of others, or never read; `needed` others work."""
    stack = some_networks(count, some_shape(8), seed=4)
    with torch.no_grad():
        for i, width in enumerate(needed):
            for producer, bias in (("w1", "b1"), ("w2", "b2"), ("w_feature", "b_feature")):
                weight, offset = stack.get_parameter(producer)[i], stack.get_parameter(bias)[i]
                for k in range(width, 8):
                    if k % 2:
                        weight[:, k], offset[:, k] = 0.0, -1.0
                    else:
                        weight[:, k], offset[:, k] = 2 * weight[:, 0], 2 * offset[:, 0]
                if producer == "w_feature":
                    seen = stack.get_parameter("w_direction")[i]
                    for k in range(width, 8):
                        seen[:, k] = 0.0 if k % 2 else 2 * seen[:, 0]
    return NetworkClasses([stack])


def losses(networks: NetworkClasses, dense: NetworkClasses, positions: Tensor, directions: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = dense.batched(positions, directions)
        return distillation_loss(*networks.batched(positions, directions), *wanted, STEP).of_networks


def test_neurons_that_nothing_needs_leave_without_loss() -> None:
    """Dead ones, and those that are a multiple of another: least squares hands their part over. The network gives the
    same on points that it was not narrowed on."""
    networks = with_idle_neurons(3, (4, 4, 4))
    points = drawn(3)
    errors = width_errors(networks, *points, (4, 8), STEP, ridge=1e-9)
    assert errors.shape == (3, 2) and float(errors[:, 0].max()) < 1e-6 and not bool(errors[:, 1].any())
    fewer = narrowed(networks, torch.full((3,), 4), *points, STEP, ridge=1e-9)
    assert fewer.widths.tolist() == [4, 4, 4]
    assert float(losses(fewer, networks, *drawn(3, seed=9)).max()) < 1e-6


def test_networks_get_the_width_that_they_need() -> None:
    """The same budget for all would cut the one that needs its neurons and leave the other what it does not use."""
    networks = with_idle_neurons(4, (2, 8, 4, 8))
    points = drawn(4)
    widths = (2, 4, 8)
    errors = width_errors(networks, *points, widths, STEP)
    costs = [some_shape(width).parameters for width in widths]
    budget = costs[0] + costs[1] + 2 * costs[2]
    chosen = np.asarray(widths)[allocate(errors.numpy(), costs, budget)]
    assert chosen.tolist() == [2, 8, 4, 8]
    fewer = narrowed(networks, torch.from_numpy(chosen), *points, STEP, classes=widths, ridge=1e-9)
    assert fewer.counts == [1, 1, 2] and fewer.num_parameters == budget
    assert float(losses(fewer, networks, *points).max()) < 1e-6
    equal = narrowed(networks, torch.full((4,), 4), *points, STEP)
    assert float(losses(equal, networks, *points).max()) > 1e-5  # the control: one width for all


def test_the_predicted_error_tells_networks_and_widths_apart() -> None:
    """It decides who is cut. Cut for real, networks stand in about the order that was predicted, and a narrower one is
    never predicted to be better."""
    networks = NetworkClasses([some_networks(12, some_shape(8), seed=2)])
    points = drawn(12)
    errors = width_errors(networks, *points, (2, 4, 6), STEP)
    assert bool((errors[:, 0] >= errors[:, 1]).all()) and bool((errors[:, 1] >= errors[:, 2]).all())
    real = torch.stack(
        [losses(narrowed(networks, torch.full((12,), w), *points, STEP), networks, *points) for w in (2, 4, 6)], dim=1
    )
    predicted, found = errors.flatten().numpy(), real.flatten().numpy()
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (predicted, found)])
    assert np.corrcoef(ranks)[0, 1] > 0.8


def test_scores_choose_better_than_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of all pruning: the same width with neurons at random, refitted alike, has to be worse."""
    networks = NetworkClasses([some_networks(6, some_shape(8), seed=3)])
    points, widths = drawn(6), torch.full((6,), 4)
    chosen = losses(narrowed(networks, widths, *points, STEP), networks, *points)
    generator = torch.Generator().manual_seed(0)

    def at_random(layers: Sequence[Moments], n_keep: int, ridge: float) -> Elimination:
        order = torch.stack([torch.randperm(8, generator=generator)[: 8 - n_keep] for _ in range(6)])
        return Elimination(order, torch.zeros(6, 9 - n_keep, dtype=torch.float64))

    monkeypatch.setattr("nerfstudio_prune.kilonerf.narrow.eliminate", at_random)
    random = torch.stack([losses(narrowed(networks, widths, *points, STEP), networks, *points) for _ in range(4)])
    assert bool((chosen < random.mean(dim=0)).all()) and float(chosen.sum()) < 0.7 * float(random.sum(dim=1).min())


def test_networks_that_keep_their_width_keep_their_weights() -> None:
    """Bit for bit, in a grid of several widths, whatever happens to the others; order and numbers stay."""
    networks = some_classes({8: 3, 5: 2})
    points = drawn(5, 50)
    widths = networks.widths.clone()
    cut = int((widths == 8).nonzero()[0])
    widths[cut] = 3
    fewer = narrowed(networks, widths, *points, STEP)
    assert fewer.widths.tolist() == widths.tolist() and [s.hidden_width for s in fewer.shapes] == [3, 5, 8]
    for number in range(5):
        if number != cut:
            (old, i), (new, j) = member(networks, number), member(fewer, number)
            for name, parameter in new.named_parameters():
                assert torch.equal(parameter[j], old.get_parameter(name)[i])
    ray = torch.zeros(5, dtype=torch.int32)
    density, rgb = evaluate(fewer, points[0][:, 0], torch.arange(5, dtype=torch.int32), ray, points[1][0, :1])
    batched = fewer.batched(points[0][:, :1], points[1][0, :1].expand(5, 1, 3))
    torch.testing.assert_close(density, batched[0][:, 0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rgb, batched[1][:, 0], atol=1e-6, rtol=1e-5)


def test_a_second_narrowing_goes_on_from_the_first() -> None:
    """Widths that a network is above cannot be given back: their error is infinite."""
    networks = some_classes({8: 2, 4: 2})
    points = drawn(4, 50)
    errors = width_errors(networks, *points, (2, 4, 8), STEP)
    narrow = networks.widths == 4
    assert bool(errors[narrow, 2].isinf().all()) and not bool(errors[narrow, 1].any())
    assert bool((errors[~narrow, :2] > 0).all()) and not bool(errors[~narrow, 2].any())
    with pytest.raises(ValueError, match="only become narrower; 2 of 4 would become wider"):
        narrowed(networks, torch.full((4,), 8), *points, STEP)


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations of thousands of networks do not fit the memory at once."""
    networks = some_classes({8: 5})
    points, widths = drawn(5, 50), torch.tensor([4, 8, 4, 2, 4])
    whole = narrowed(networks, widths, *points, STEP)
    errors = width_errors(networks, *points, (4, 8), STEP)
    monkeypatch.setattr("nerfstudio_prune.kilonerf.narrow.NETWORKS_AT_ONCE", 2)
    parts = narrowed(networks, widths, *points, STEP)
    torch.testing.assert_close(width_errors(networks, *points, (4, 8), STEP), errors, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(parts.batched(*points), whole.batched(*points), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_narrowed_is_refused() -> None:
    """Without examples there is nothing to go by; a width of 0 is no network."""
    networks = some_classes({8: 2})
    with pytest.raises(ValueError, match="at least one example for each network"):
        width_errors(networks, *drawn(2, 0), (4,), STEP)
    for widths in ((), (0, 4)):
        with pytest.raises(ValueError, match=r"grid\.narrow_widths must be at least 1 each"):
            width_errors(networks, *drawn(2), widths, STEP)
    with pytest.raises(ValueError, match=r"at least 1 each"):
        narrowed(networks, torch.tensor([0, 8]), *drawn(2), STEP)
