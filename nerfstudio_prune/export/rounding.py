"""Weights as small whole numbers: one scale for each row, symmetric around zero, over the row's full range.

Source: per-channel symmetric uniform quantisation as in Nagel et al. 2021 (arXiv 2106.08295, section 2), rounded to
nearest. The scale is never clipped: inputs that are rarely on matter where they are on.
"""

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

MIN_BITS, MAX_BITS = 2, 8
"""Bits of a code."""
DIGITS, SHORT_DIGITS = 10, 4
"""Binary digits behind the first one, in half precision and where it is to be short."""
SMALLEST_STEP = 2.0**-24
"""The smallest number in half precision above 0."""


def largest_level(bits: int) -> int:
    """Levels on each side of zero, 2^(bits - 1) - 1; as many below as above, so that zero is exact.

    Args:
        bits: Bits of a code, in [2, 8].
    """
    return 2 ** (bits - 1) - 1


def quantize(
    weight: Float[Tensor, "rows columns"], bits: int
) -> tuple[UInt8[Tensor, "rows columns"], Float16[Tensor, " rows"]]:
    """Rounds the weights of a layer to the nearest of evenly spaced levels.

    No weight moves by more than half a level of its row.

    Args:
        weight: Finite weights.
        bits: Bits of a code, in [2, 8].

    Returns:
        Codes in [0, 2 · largest level], where the largest level stands for zero; and what one level is worth in each
        row, not negative.

    Raises:
        ValueError: If a row is too large for a scale in half precision.
    """
    scales = row_scales(weight, bits)
    return to_codes(weight, scales, bits), scales


def row_scales(weight: Float[Tensor, "rows columns"], bits: int) -> Float16[Tensor, " rows"]:
    """What one level is worth in each row, so that its largest weight is within reach.

    Args:
        weight: Finite weights.
        bits: Bits of a code, in [2, 8].

    Returns:
        Scales, not negative; zero where a row is all zero.

    Raises:
        ValueError: If a row is too large for a scale in half precision.
    """
    top = largest_level(bits)
    largest = weight.abs().amax(dim=1).double()
    scales = (largest / top).half()
    # Half precision may round a scale down so far, among its smallest numbers, that the largest weight is out of reach.
    short = scales.double() * (top + 0.5) < largest
    scales = torch.where(short, (scales.view(torch.int16) + 1).view(torch.float16), scales)
    if not torch.isfinite(scales).all():
        raise ValueError(f"a weight of {float(largest.max()):.3g} is too large for a scale in half precision")
    return scales


def short_scales(scales: Float16[Tensor, " rows"]) -> Float16[Tensor, " rows"]:
    """The next larger scales of few digits, by a sixteenth at most, which compress to less.

    Args:
        scales: What one level is worth in each row.
    """
    spare = 1 << (DIGITS - SHORT_DIGITS)
    raised = (scales.view(torch.int16).int() + spare - 1) // spare * spare
    found = raised.short().view(torch.float16)
    return torch.where(torch.isfinite(found), found, scales)


def short_bias(bias: Float[Tensor, " rows"], scales: Float16[Tensor, " rows"]) -> Float16[Tensor, " rows"]:
    """Biases as multiples of the largest power of two that is no larger than a level: of few digits, and no more wrong
    than a single weight.

    Args:
        bias: The biases.
        scales: What one level is worth in each row.
    """
    step = torch.exp2(torch.floor(torch.log2(scales.double().clamp(min=SMALLEST_STEP))))
    return ((bias.double() / step).round() * step).half()


def to_codes(
    weight: Float[Tensor, "rows columns"], scales: Float16[Tensor, " rows"], bits: int
) -> UInt8[Tensor, "rows columns"]:
    """The nearest levels; the last one for weights that are beyond it.

    Args:
        weight: Finite weights.
        scales: What one level is worth in each row.
        bits: Bits of a code, in [2, 8].
    """
    top = largest_level(bits)
    steps = torch.where(scales > 0, scales, torch.ones_like(scales)).to(weight.dtype)
    return ((weight / steps[:, None]).round().clamp(-top, top) + top).to(torch.uint8)


def dequantize(
    codes: UInt8[Tensor, "rows columns"], scales: Float16[Tensor, " rows"], bits: int
) -> Float[Tensor, "rows columns"]:
    """The weights, in single precision, that codes stand for.

    Args:
        codes: See `quantize`.
        scales: What one level is worth in each row.
        bits: Bits of a code, in [2, 8].
    """
    return codes.float().sub_(largest_level(bits)).mul_(scales.float()[:, None])
