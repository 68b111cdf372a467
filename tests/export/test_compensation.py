"""Rounding by which the weights that are left make up for those before them."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from nerfstudio_prune.export.compensation import DAMPING, compensate, round_layer
from nerfstudio_prune.export.rounding import dequantize, largest_level, quantize, row_scales
from nerfstudio_prune.neurons.statistics import LayerMoments


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(rows: int, columns: int, fixed: int = 1, seed: int = 0, lost: float = 0.0) -> LayerMoments:
    """A layer whose inputs depend on each other, as behind a ReLU, with the constant of the bias at `fixed - 1`.

    Args:
        rows: Outputs.
        columns: Inputs with the constant.
        fixed: Inputs that always stay, the constant at last.
        seed: Seed of all numbers.
        lost: Size of what was lost before the layer, all of which its weights could make up for.
    """
    inputs = (rand(200, columns, seed=seed) @ rand(columns, columns, seed=seed + 1)).relu()
    inputs[:, fixed - 1] = 1
    gram = inputs.T @ inputs / len(inputs)
    residual = gram @ rand(columns, rows, seed=seed + 2) * lost
    return LayerMoments(rand(rows, columns, seed=seed + 3), gram, residual, torch.ones(rows), fixed, True)


def error_of(layer: LayerMoments, weights: Tensor) -> Tensor:
    """How much the mean squared error of each output grew, written out."""
    change = weights - layer.weight
    return torch.stack([row @ layer.gram @ row - 2 * row @ layer.residual[:, i] for i, row in enumerate(change)])


def by_hand(layer: LayerMoments, bits: int, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """Optimal brain surgeon for rounding with plain loops: weights as they are stored, and what the bias becomes.

    The inverse is taken anew after each column, over the inputs that are left, where GPTQ uses one factorisation.
    """
    gram, top = layer.gram.numpy(), largest_level(bits)
    moments = gram + damping * gram.diagonal().mean() * np.eye(len(gram))
    weights = layer.weight.numpy() + (np.linalg.inv(moments) @ layer.residual.numpy()).T
    constant = layer.fixed - 1
    columns = [i for i in range(len(gram)) if i != constant]
    scales = row_scales(torch.from_numpy(weights[:, columns]), bits).double().numpy()
    left = [*sorted(columns, key=lambda i: -gram[i, i]), constant]
    while len(left) > 1:
        inverse = np.linalg.inv(moments[np.ix_(left, left)])
        for row in range(len(weights)):
            value = weights[row, left[0]]
            rounded = scales[row] * min(max(np.round(value / scales[row]), -top), top)
            for k, column in enumerate(left):
                weights[row, column] -= (value - rounded) * inverse[0, k] / inverse[0, 0]
        left = left[1:]
    return weights[:, columns], weights[:, constant]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_equals_loops_by_hand(bits: int, lost: float) -> None:
    """One factorisation stands for an inverse after every column; were a row of it taken from the wrong place, errors
    would go to weights that cannot make up for them, and the result would only be a little worse."""
    layer = moments(5, 9, fixed=3, lost=lost)
    codes, scales, bias = compensate(layer, bits)
    expected, expected_bias = by_hand(layer, bits, DAMPING)
    np.testing.assert_allclose(dequantize(codes, scales, bits).double().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(bias.double().numpy(), expected_bias, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_row_between_the_best_of_all_roundings_and_nearest(seed: int) -> None:
    """A row of four weights can be rounded up or down in sixteen ways, each with the best bias for it. No way that
    hands errors on may lose more than rounding to nearest, which it is there to beat, nor less than the best."""
    layer, bits = moments(1, 5, seed=10 * seed), 3
    found = round_layer(layer, bits, True)
    nearest = round_layer(layer, bits, False)
    steps = row_scales(layer.weight[:, 1:], bits).double()
    best = np.inf
    for ways in itertools.product((torch.floor, torch.ceil), repeat=4):
        levels = torch.stack([way(value / steps[0]) for way, value in zip(ways, layer.weight[0, 1:], strict=True)])
        change = levels.clamp(-3, 3) * steps - layer.weight[0, 1:]
        bias = -(layer.gram[0, 1:] @ change) / layer.gram[0, 0]
        weights = layer.weight + torch.cat([bias[None], change])[None]
        best = min(best, float(error_of(layer, weights)))
    assert best - 1e-5 <= float(found.errors) <= float(nearest.errors)


def test_hands_errors_on_at_all() -> None:
    """Where inputs depend on each other, most of the loss can be made up for; a bound alone would hold for nearest."""
    layer = moments(20, 30, fixed=4)
    for bits in (3, 4, 6):
        found, nearest = (float(round_layer(layer, bits, way).errors.sum()) for way in (True, False))
        assert found < 0.7 * nearest


def test_makes_up_for_what_was_lost_before() -> None:
    """Layers before this one have been rounded as well; a layer that only minded its own codes would let it pass."""
    layer = moments(20, 30, fixed=4, lost=0.2)
    assert float(round_layer(layer, 8, True).errors.sum()) < 0 < float(round_layer(layer, 8, False).errors.sum())


def test_errors_are_those_of_what_is_stored() -> None:
    """The better of two ways is chosen by them, and bits by their sums: all that is stored counts."""
    layer = moments(6, 9, fixed=3, lost=0.1)
    for compensated in (False, True):
        found = round_layer(layer, 4, compensated)
        weights = torch.cat([dequantize(found.codes, found.scales, 4).double(), found.bias.double()[:, None]], dim=1)
        stored = weights[:, [0, 1, -1, *range(2, 8)]]
        torch.testing.assert_close(found.errors, error_of(layer, stored), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("bits", range(2, 9))
def test_inputs_that_know_nothing_of_each_other(bits: int) -> None:
    """Nothing can make up for anything then: the result is that of rounding to nearest, bit for bit."""
    weight = rand(6, 10)
    layer = LayerMoments(weight, torch.eye(10, dtype=torch.float64), rand(10, 6) * 0, torch.ones(6), 3, True)
    expected, scales = quantize(weight[:, [0, 1, *range(3, 10)]], bits)
    for found in (compensate(layer, bits)[:2], (round_layer(layer, bits, True).codes, scales)):
        assert torch.equal(found[0], expected) and torch.equal(found[1], scales)
    assert torch.equal(round_layer(layer, bits, True).bias, weight[:, 2].half())


def test_dead_inputs_and_inputs_that_are_alike() -> None:
    """Trained networks have neurons that are never on, and some twice; moments are singular then."""
    layer = moments(4, 8, fixed=2)
    layer.gram[3] = layer.gram[:, 3] = 0
    layer.gram[5], layer.gram[:, 5] = layer.gram[4].clone(), layer.gram[:, 4].clone()
    layer.gram[5, 5] = layer.gram[4, 4]
    found = round_layer(layer, 4, True)
    assert bool(torch.isfinite(found.errors).all()) and float(found.errors.max()) < 1
