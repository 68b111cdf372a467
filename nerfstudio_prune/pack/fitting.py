"""The coarsest rounding that a bound allows: of what pictures lose, or of the bytes of a file."""

from collections.abc import Callable

STEPS_OF_AN_OCTAVE = 4
"""Budgets that are tried between one and twice of it."""
FINEST, COARSEST = -60, -16
"""Exponents of the smallest and the largest budget that is tried, to the base of 2."""


class SizeError(ValueError):
    """Gaussians that do not fit into a file of the size that was asked for. The message says what they take."""


def largest_budget(fits: Callable[[float], bool]) -> float:
    """Halves the range of budgets until only the largest that fits is left; the smallest one where none does.

    Args:
        fits: Whether the loss of a budget is within its bound.
    """
    low, high = FINEST * STEPS_OF_AN_OCTAVE, COARSEST * STEPS_OF_AN_OCTAVE
    while high - low > 1:
        middle = (low + high) // 2
        if fits(_budget(middle)):
            low = middle
        else:
            high = middle
    return _budget(low)


def smallest_budget(size: Callable[[float], int], largest: int) -> float:
    """Halves the range of budgets until only the smallest whose file fits is left, each time by the file itself.

    Args:
        size: Bytes of the file of a budget.
        largest: Bytes that it may have.

    Raises:
        SizeError: If it has more at the coarsest.
    """
    least = size(_budget(COARSEST * STEPS_OF_AN_OCTAVE))
    if least > largest:
        raise SizeError(f"expected a file of at most {largest:,} bytes, got {least:,} where all is rounded the most")
    low, high = FINEST * STEPS_OF_AN_OCTAVE, COARSEST * STEPS_OF_AN_OCTAVE
    while high - low > 1:
        middle = (low + high) // 2
        if size(_budget(middle)) <= largest:
            high = middle
        else:
            low = middle
    return _budget(high)


def _budget(index: int) -> float:
    return 2.0 ** (index / STEPS_OF_AN_OCTAVE)
