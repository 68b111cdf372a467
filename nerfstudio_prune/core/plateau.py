"""When a training has become slow enough to prune."""

from collections import deque
from collections.abc import Sequence


def slope(values: Sequence[float]) -> float:
    """Slope of the least-squares line through equally spaced values, per step; 0 for fewer than two."""
    count = len(values)
    if count < 2:
        return 0.0
    middle = (count - 1) / 2
    products = sum((i - middle) * value for i, value in enumerate(values))
    return products / (count * (count * count - 1) / 12)


class Plateau:
    """Watches a quality that rises ever more slowly.

    Args:
        window: Steps that the slope is taken over, >= 2; nothing is said before so many were seen.
        least_slope: Slope per step, below which the plateau is reached.
    """

    def __init__(self, window: int, least_slope: float) -> None:
        self.least_slope = least_slope
        self._values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> bool:
        """Takes up the value of a step; whether the plateau is reached."""
        self._values.append(value)
        return len(self._values) == self._values.maxlen and slope(self._values) < self.least_slope
