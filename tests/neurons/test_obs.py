"""Costs of removals and the order that follows from them, against least squares from scratch."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from support.reader_layers import CASES, Reader, error, reader, relu_neurons, statistics
from torch import Tensor

from nerfstudio_prune.neurons.obs import eliminate, pivot_order, regularised, removal_costs
from nerfstudio_prune.neurons.statistics import GroupStatistics, LayerMoments, second_moments

every_case = pytest.mark.parametrize("case", CASES)
RIDGES = (1e-4, 1e-2, 1.0)


@every_case
@pytest.mark.parametrize("ridge", RIDGES)
def test_cost_of_one_removal_is_what_least_squares_from_scratch_says(case: str, ridge: float) -> None:
    """The formula W²/[H⁻¹] replaces one fit per neuron. It must give the leave-one-out error, less the error with all
    neurons, of the very problem that the refit solves: samples and rows weighted, drawn to the present weights, with
    inputs that always stay."""
    readers = CASES[case](3)
    neurons = range(readers[0].neurons.shape[1])
    whole = error(readers, neurons, ridge)
    expected = [error(readers, [k for k in neurons if k != j], ridge) - whole for j in neurons]
    assert removal_costs(statistics(readers, ridge)).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-10)


@every_case
@pytest.mark.parametrize("ridge", RIDGES)
def test_errors_along_the_way_are_those_of_fits_from_scratch(case: str, ridge: float) -> None:
    """Each removal updates inverse and weights in place. After any number of them the error must be that of a fit with
    the neurons that are left, down to none; and it starts at zero and never falls."""
    readers = CASES[case](5)
    count = readers[0].neurons.shape[1]
    found = eliminate(statistics(readers, ridge), 0)
    assert sorted(found.order.tolist()) == list(range(count)) and found.errors[0] == 0
    assert bool((found.errors[1:] >= found.errors[:-1]).all())
    whole = error(readers, range(count), ridge)
    for gone in range(count + 1):
        keep = sorted(set(range(count)) - set(found.order[:gone].tolist()))
        assert float(found.errors[gone]) == pytest.approx(error(readers, keep, ridge) - whole, rel=1e-6, abs=1e-9)


def greedy(readers: Sequence[Reader], n_keep: int, ridge: float) -> list[int]:
    """Backward elimination with a fit from scratch for every candidate."""
    keep, order = list(range(readers[0].neurons.shape[1])), []
    while len(keep) > n_keep:
        order.append(min(keep, key=lambda j: error(readers, [k for k in keep if k != j], ridge)))
        keep.remove(order[-1])
    return order


@pytest.mark.parametrize("case", ["plain", "two consumers", "bias only", "nothing fixed", "few samples"])
@pytest.mark.parametrize("seed", range(3))
def test_order_is_the_greedy_one(case: str, seed: int) -> None:
    """At each step the neuron leaves whose removal costs least then, not at the beginning; all fits by brute force."""
    readers = CASES[case](10 + seed)
    assert eliminate(statistics(readers, 1e-3), 1).order.tolist() == greedy(readers, 1, 1e-3)


def test_costs_change_as_neurons_leave() -> None:
    """Of two equal neurons each can be spared, but not both: ranking by the costs of single removals would drop both,
    and this is what the strategy is for."""
    a = relu_neurons(50, 3, seed=1)
    readers = [reader(torch.stack([a[:, 0], a[:, 0], a[:, 1], a[:, 2]], dim=1), 1, noise=0.0)]
    readers[0].weight[:, 2:] = torch.tensor([[1.0] * 4, [0.5] * 4, [-2.0] * 4], dtype=torch.float64)
    readers[0].weight[:, 4:] *= 0.1
    readers[0].wanted = readers[0].inputs @ readers[0].weight.T
    costs = removal_costs(statistics(readers, 1e-4))
    assert set(costs.argsort()[:2].tolist()) == {0, 1}
    order = eliminate(statistics(readers, 1e-4), 1).order.tolist()
    assert order[0] in (0, 1) and {*order[1:]} == {2, 3}


def test_against_exhaustive_search() -> None:
    """Greedy cannot beat the best subset, and is only worth its price if it comes close: over 20 layers its error is on
    average within a quarter of the optimum's, and far below that of a random choice."""
    ratios, chance = [], []
    for seed in range(20):
        readers = [reader(relu_neurons(40, 7, seed), seed)]
        found = eliminate(statistics(readers, 1e-4), 3)
        whole = error(readers, range(7), 1e-4)
        all_errors = [error(readers, keep, 1e-4) - whole for keep in itertools.combinations(range(7), 3)]
        best = min(all_errors)
        assert float(found.errors[-1]) >= best * (1 - 1e-9)
        ratios.append(float(found.errors[-1]) / best)
        chance.append(sum(all_errors) / len(all_errors) / best)
    mean, mean_chance = sum(ratios) / 20, sum(chance) / 20
    assert mean < 1.25 and sum(ratio < 1 + 1e-9 for ratio in ratios) >= 8
    assert mean_chance > 2 * mean


def test_optimal_where_neurons_are_copies() -> None:
    """With three different neurons in two copies each, keeping three loses nothing: one of each must stay."""
    for seed in range(5):
        readers = [reader(relu_neurons(40, 3, seed).repeat(1, 2), seed, noise=0.0)]
        found = eliminate(statistics(readers, 0.0), 3)
        assert sorted(j % 3 for j in found.order.tolist()) == [0, 1, 2]
        assert float(found.errors[-1]) < 1e-8 * eliminate(statistics(readers, 0.0), 2).errors[-1]


def test_rows_steer_the_choice() -> None:
    """Two neurons, one for each output: the one that serves the output that counts stays. A wrong axis of the row
    weights would pass every test with equal ones."""
    neurons = relu_neurons(60, 2, seed=4)
    for important in (0, 1):
        rows = torch.full((2,), 1e-3, dtype=torch.float64)
        rows[important] = 1.0
        readers = [reader(neurons, 2, outputs=2, rows=rows, noise=0.0)]
        readers[0].weight[:, 2:] = torch.eye(2)
        readers[0].wanted = readers[0].inputs @ readers[0].weight.T
        assert eliminate(statistics(readers, 1e-6), 1).order.tolist() == [1 - important]


def test_samples_steer_the_choice() -> None:
    """Two neurons, each active on its own half of the samples: the one on the half that counts stays."""
    signal = torch.rand(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    neurons = torch.zeros(60, 2, dtype=torch.float64)
    neurons[:30, 0], neurons[30:, 1] = signal, signal
    for important in (0, 1):
        layer = reader(neurons, 2, noise=0.0)
        layer.weight[:, 2:] = 1.0
        layer.wanted = layer.inputs @ layer.weight.T
        layer.weights = torch.full((60,), 0.1, dtype=torch.float64)
        layer.weights[30 * important : 30 * important + 30] = 1.9
        assert eliminate(statistics([layer], 1e-6), 1).order.tolist() == [1 - important]


def test_every_consumer_counts() -> None:
    """The last trunk layer is read by the density and by the head; a neuron that one of them needs must stay."""
    neurons = relu_neurons(60, 2, seed=6)
    first, second = reader(neurons, 1, noise=0.0), reader(neurons, 2, noise=0.0)
    for layer, outgoing in ((first, [0.1, 0.0]), (second, [0.0, 3.0])):
        layer.weight[:, 2:] = torch.tensor(outgoing, dtype=torch.float64)
        layer.wanted = layer.inputs @ layer.weight.T
        layer.rows = torch.ones(3, dtype=torch.float64)
    assert eliminate(statistics([first], 1e-6), 1).order.tolist() == [1]
    assert eliminate(statistics([first, second], 1e-6), 1).order.tolist() == [0]


def test_keeping_all_or_none() -> None:
    """The ends of the range."""
    readers = CASES["plain"](0)
    whole = eliminate(statistics(readers, 1e-4), 6)
    assert whole.order.tolist() == [] and whole.errors.tolist() == [0.0]
    assert len(eliminate(statistics(readers, 1e-4), 0).order) == 6


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ridge", [0.0, 1e-9, 1e-6])
def test_no_ridge_and_single_precision(case: str, dtype: torch.dtype, ridge: float) -> None:
    """A ridge of 0 is allowed, samples are in single precision, and trained layers have copies, dead neurons and fewer
    directions than neurons: sums of products are then no longer positive definite. Nothing may break or become
    negative or infinite. (The factorisation used to fail here.)"""
    readers = CASES[case](1)
    for r in readers:
        r.neurons, r.fixed = r.neurons.to(dtype), r.fixed.to(dtype)
        r.weights, r.wanted = r.weights.to(dtype), r.wanted.to(dtype)
    moments = []
    for r in readers:
        gram, residual = second_moments(r.inputs, r.wanted - r.inputs @ r.weight.to(dtype).T, r.weights)
        moments.append(LayerMoments(r.weight, gram, residual, r.rows, r.fixed.shape[1], r.fixed.shape[1] > 0))
    count = readers[0].neurons.shape[1]
    nothing = torch.zeros(count, dtype=torch.float64)
    found = GroupStatistics(tuple(moments), ridge, nothing, nothing.bool(), nothing)
    costs, elimination = removal_costs(found), eliminate(found, 0)
    assert bool(torch.isfinite(costs).all() and (costs >= 0).all() and torch.isfinite(elimination.errors).all())
    assert sorted(elimination.order.tolist()) == list(range(count))
    assert sorted(pivot_order(found, count).tolist()) == list(range(count))


def test_ridge_is_raised_only_as_far_as_rounding_needs() -> None:
    """Raising it where it is not needed would change results in silence; raising it too little leaves an inverse of
    noise."""
    layer = reader(relu_neurons(300, 6), 0).moments()
    for ridge in (1e-12, 1e-4, 0.5):
        found = regularised(layer, ridge)
        assert torch.equal(found, layer.gram + ridge * layer.gram.diagonal().mean() * torch.eye(8, dtype=torch.float64))
    mean, identity = float(layer.gram.diagonal().mean()), torch.eye(8, dtype=torch.float64)
    for ridge, below in ((0.0, 1e-7), (1e-7, 0.9e-7)):  # negative, and positive by a hair once the ridge is added
        shifted = layer.gram - (torch.linalg.eigvalsh(layer.gram)[0] + below * mean) * identity
        smallest = float(torch.linalg.eigvalsh(regularised(replace(layer, gram=shifted), ridge))[0])
        assert 0.5e-7 * mean < smallest < 1e-5 * mean


def pivoted_gram_schmidt(columns: Tensor, n_keep: int) -> list[int]:
    """QR with column pivoting, written out: take the longest column, take its direction out of the others."""
    left, chosen = columns.clone(), []
    for _ in range(n_keep):
        lengths = left.square().sum(dim=0)
        lengths[chosen] = -1
        pivot = int(lengths.argmax())
        chosen.append(pivot)
        direction = left[:, pivot] / left[:, pivot].norm().clamp_min(1e-300)
        for _twice in range(2):
            left = left - torch.outer(direction, direction @ left)
    return chosen


def without_fixed(r: Reader) -> Tensor:
    """Weighted activations with what the other inputs explain taken out."""
    share = (r.weights / r.weights.sum()).sqrt()[:, None]
    fixed, neurons = share * r.fixed, share * r.neurons
    return neurons - fixed @ torch.linalg.lstsq(fixed, neurons, driver="gelsd").solution


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", ["plain", "two consumers", "bias only", "nothing fixed", "dead"])
def test_pivots_are_those_of_a_qr_decomposition(case: str, seed: int) -> None:
    """Working on second moments must give the pivots that the decomposition of the samples gives: weighted, after what
    position, direction and bias explain is taken out, and with the samples of several readers stacked."""
    readers = CASES[case](20 + seed)
    stacked = torch.cat([without_fixed(r) if r.fixed.shape[1] else r.neurons * _share(r) for r in readers])
    rank = int((stacked.norm(dim=0) > 1e-9).sum())
    assert pivot_order(statistics(readers, 1e-4), rank).tolist() == pivoted_gram_schmidt(stacked, rank)


def _share(r: Reader) -> Tensor:
    return (r.weights / r.weights.sum()).sqrt()[:, None]


def test_pivots_take_no_copy() -> None:
    """A second copy spans nothing new: as long as there are others, one of each kind is taken, also of neurons that are
    multiples or mixtures of others or of inputs that stay anyway."""
    neurons = relu_neurons(50, 3, seed=2)
    layer = reader(torch.cat([neurons, 2 * neurons, neurons[:, :1] + neurons[:, 1:2]], dim=1), 3, fixed=3)
    layer.neurons = torch.cat([layer.neurons, 10 * layer.fixed[:, :1], torch.full((50, 1), 9.0).double()], dim=1)
    layer.weight = torch.ones(3, 12, dtype=torch.float64)
    chosen = pivot_order(statistics([layer], 1e-4), 3).tolist()
    assert not {7, 8} & set(chosen)
    share = _share(layer)
    assert torch.linalg.matrix_rank(share * layer.neurons[:, chosen]) == 3
    rest = pivot_order(statistics([layer], 1e-4), 9).tolist()
    assert rest[:3] == chosen and sorted(rest) == list(range(9))


def test_pivots_do_not_look_at_the_weights() -> None:
    """Blind to what neurons are used for, as the literature's method is; rows and outgoing weights play no part."""
    readers = CASES["plain"](2)
    before = pivot_order(statistics(readers, 1e-4), 4).tolist()
    readers[0].weight, readers[0].rows = readers[0].weight * 100, readers[0].rows.flip(0)
    assert pivot_order(statistics(readers, 0.1), 4).tolist() == before
