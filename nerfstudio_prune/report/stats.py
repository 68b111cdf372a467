"""Means, spreads and differences over repetitions."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Optional

NOTHING = "—"
"""Stands for a value that there is none of."""
TIMES, MINUS, TO = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class Stat:
    """Values of one quantity over seeds."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[Optional[float]]) -> "Stat":
        """All of the values, or none if one is missing: a mean over fewer runs than the row names would mislead."""
        values = list(values)
        return cls(tuple(value for value in values if value is not None) if None not in values else ())

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)

    @property
    def mean(self) -> Optional[float]:
        """Mean; None without values."""
        return fmean(self.values) if self.values else None

    @property
    def std(self) -> Optional[float]:
        """Standard deviation of a sample; None for less than two values."""
        return stdev(self.values) if self.n > 1 else None

    @property
    def direction(self) -> int:
        """Of differences: 1 or -1 if their mean is at least two standard errors away from zero, else 0."""
        if self.mean is None or self.std is None or self.mean == 0:
            return 0
        if abs(self.mean) < 2 * self.std / math.sqrt(self.n):
            return 0
        return 1 if self.mean > 0 else -1

    def text(self, digits: int, signed: bool = False) -> str:
        """Mean ± standard deviation; the mean alone of a single value."""
        mean, std = self.mean, self.std
        if mean is None:
            return NOTHING
        spread = "" if std is None else f" ± {number(std, digits)}"
        return number(mean, digits, signed) + spread


def number(value: Optional[float], digits: int = 0, signed: bool = False) -> str:
    """A number with thousands separators and a proper minus sign; never a negative zero."""
    if value is None:
        return NOTHING
    value = round(value, digits) + 0.0
    text = f"{value:{'+' if signed and value else ''},.{digits}f}"
    return text.replace("-", MINUS)
