"""Rounding in which the weights that are left make up for those that were rounded before them.

Columns are rounded one after the other, and the error of each goes to the columns that are left and to the bias, by the
inverse second moments of what the layer reads: optimal brain surgeon (Hassibi and Stork 1993) for rounding, all rows in
one order (GPTQ, Frantar et al. 2022, arXiv 2210.17323, equations 2 and 3 and section 3.3).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from nerfstudio_prune.export.rounding import largest_level, row_scales, to_codes
from nerfstudio_prune.neurons.obs import regularised
from nerfstudio_prune.neurons.statistics import LayerMoments

DAMPING = 1e-2
"""Share of the mean squared input that is added to all, as in GPTQ: calibration samples are not all there is."""


@dataclass(frozen=True, eq=False)
class RoundedMoments:
    """A rounded layer, its columns in the order of the moments without the constant."""

    codes: UInt8[Tensor, "outputs columns"]
    """See `rounding.quantize`."""
    scales: Float16[Tensor, " outputs"]
    """What one level is worth in each row."""
    bias: Float16[Tensor, " outputs"]
    """Stays a number, and takes up what is left at last."""
    errors: Float[Tensor, " outputs"]
    """How much the weighted mean squared error of each output grew; less than zero where what was lost before this
    layer was made up for."""


def round_layer(layer: LayerMoments, bits: int, compensated: bool) -> RoundedMoments:
    """Rounds a layer, row by row by that of the two ways which is better on the samples.

    Args:
        layer: Moments of a layer with a bias.
        bits: Bits of a weight, in [2, 8].
        compensated: Whether errors are handed on at all; else every weight goes to the nearest level.

    Raises:
        ValueError: If a row is too large for a scale in half precision.
    """
    columns = _columns(layer)
    constant = layer.fixed - 1
    present = layer.weight[:, columns]
    scales = row_scales(present, bits)
    nearest = _with_errors(layer, to_codes(present, scales, bits), scales, layer.weight[:, constant].half(), bits)
    if not compensated:
        return nearest
    other = _with_errors(layer, *compensate(layer, bits), bits)
    # Rows do not depend on each other. A sum that is not finite, as of a bias beyond half precision, is never better.
    better = other.errors < nearest.errors
    return RoundedMoments(
        torch.where(better[:, None], other.codes, nearest.codes),
        torch.where(better, other.scales, nearest.scales),
        torch.where(better, other.bias, nearest.bias),
        torch.where(better, other.errors, nearest.errors),
    )


@torch.no_grad()
def compensate(
    layer: LayerMoments, bits: int, damping: float = DAMPING
) -> tuple[UInt8[Tensor, "outputs columns"], Float16[Tensor, " outputs"], Float16[Tensor, " outputs"]]:
    """Rounds the columns of a layer, the one with the largest mean squared input first, and hands their errors on.

    What it starts from are the weights that come nearest to the wanted pre-activations, as those of a refit: where
    layers before this one were rounded, it makes up for them first. Scales are those of these weights, over the full
    range of each row; O(columns² (outputs + columns)).

    Args:
        layer: Moments of a layer with a bias.
        bits: Bits of a weight, in [2, 8].
        damping: Share of the mean squared input, > 0.

    Returns:
        Codes with the columns in the order of the moments without the constant, scales, and biases.

    Raises:
        ValueError: If a row is too large for a scale in half precision.
    """
    moments = regularised(layer, damping)
    columns = _columns(layer)
    order = columns[moments.diagonal()[columns].argsort(descending=True, stable=True)]
    # The constant comes last: the bias is no code, and whatever is left can go there.
    order = torch.cat([order, torch.tensor([layer.fixed - 1])])
    ordered = moments[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
    weights = layer.weight[:, order] + (inverse @ layer.residual[order]).T
    scales = row_scales(weights[:, :-1], bits)
    # Row i of this factor is what column i hands on when all columns before it are fixed (GPTQ, section 3.3, step 3).
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty(len(weights), len(order) - 1, dtype=torch.uint8)
    for i in range(len(order) - 1):
        column = weights[:, i].clone()
        codes[:, i] = to_codes(column[:, None], scales, bits)[:, 0]
        rounded = (codes[:, i].double() - largest_level(bits)) * scales.double()
        weights[:, i:] -= torch.outer((column - rounded) / factor[i, i], factor[i, i:])
    back = torch.empty(len(layer.weight[0]), dtype=torch.int64)
    back[order] = torch.arange(len(order))
    return codes[:, back[columns]], scales, weights[:, -1].half()


def _columns(layer: LayerMoments) -> Tensor:
    """All inputs but the constant of the bias."""
    assert layer.has_bias
    inputs = torch.arange(layer.weight.shape[1])
    return inputs[inputs != layer.fixed - 1]


def _with_errors(layer: LayerMoments, codes: Tensor, scales: Tensor, bias: Tensor, bits: int) -> RoundedMoments:
    change = -layer.weight
    change[:, _columns(layer)] += (codes.double() - largest_level(bits)) * scales.double()[:, None]
    change[:, layer.fixed - 1] += bias.double()
    errors = ((change @ layer.gram) * change).sum(dim=1) - 2 * (change * layer.residual.T).sum(dim=1)
    return RoundedMoments(codes, scales, bias, errors)
