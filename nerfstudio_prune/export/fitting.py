"""The most bits that a file of a bounded size has room for."""

from collections.abc import Callable

from nerfstudio_prune.export.rounding import MAX_BITS, MIN_BITS

STEPS_OF_A_BIT = 32
"""Means of bits that are tried between two whole ones."""


class SizeError(ValueError):
    """A network that does not fit into a file of the size that was asked for. The message says what it takes."""


def fit_mean(size: Callable[[float], int], largest: int) -> float:
    """Halves the range of means of bits until only the largest that fits is left, each time by the file itself.

    Compressed sizes may fall where bits rise; what is found fits then all the same, but a larger mean might, too.

    Args:
        size: Bytes of a file with at most a mean of bits, in [2, 8].
        largest: Bytes that it may have.

    Returns:
        A whole number of `STEPS_OF_A_BIT`.

    Raises:
        SizeError: If it has more with the fewest bits.
    """
    if size(float(MAX_BITS)) <= largest:
        return float(MAX_BITS)
    least = size(float(MIN_BITS))
    if least > largest:
        raise SizeError(f"expected a file of at most {largest:,} bytes, got {least:,} at {MIN_BITS} bits a weight")
    low, high = MIN_BITS * STEPS_OF_A_BIT, MAX_BITS * STEPS_OF_A_BIT
    while high - low > 1:
        middle = (low + high) // 2
        if size(middle / STEPS_OF_A_BIT) <= largest:
            low = middle
        else:
            high = middle
    return low / STEPS_OF_A_BIT
