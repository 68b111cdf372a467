"""A file of a bounded size or mean of bits, whatever kind of network it is of."""

from collections.abc import Callable

from nerfstudio_prune.export.command import Rounding
from nerfstudio_prune.export.fitting import SizeError, fit_mean
from nerfstudio_prune.export.numbers import MEGABYTE, Numbers

EncodeFn = Callable[[float, Rounding], bytes]
"""Largest mean of bits, way of rounding -> content of the file."""


def encode_mixed(at: EncodeFn, numbers: Numbers, rounding: Rounding) -> bytes:
    """The content of a file with mixed bits.

    Args:
        at: Gives it at any mean of bits.
        numbers: What was asked for.
        rounding: How weights are rounded.

    Raises:
        SizeError: If it does not fit into the largest size.
    """
    largest = numbers.largest
    if largest is None:
        return at(numbers.bits, rounding)
    # Codes that are not compressed take as many bytes however they were rounded, and nearest is done at once.
    trial = rounding if numbers.storage == "lzma" else "nearest"
    try:
        mean = fit_mean(lambda mean: len(at(mean, trial)), largest)
    except SizeError as error:
        raise SizeError(f"--target-mb {largest / MEGABYTE:g}: {error}") from error
    return at(mean, rounding)
