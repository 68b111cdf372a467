"""The smallest size that keeps a promise: bisection over budgets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from nerfstudio_prune.apply.quality import Drop
from nerfstudio_prune.core.events import Sizes

SMALLEST, BUDGETS = 0.02, 24
"""Smallest share of the size that is searched, and how many there are."""
SHARES = [SMALLEST ** (1 - i / BUDGETS) for i in range(BUDGETS)]
"""Shares of the present size, spaced evenly on a logarithmic scale, without 1: each is 1.18 times the one before."""


@dataclass(frozen=True)
class Probe:
    """A size that was tried."""

    share: float
    """Share of the present size that was asked for."""
    options: Any
    """Options of the cut."""
    sizes: Sizes
    """What it left."""
    drop: Drop
    """What it cost."""


def smallest(
    shares: Sequence[float], probe: Callable[[float], Probe], allowed: float
) -> tuple[Optional[Probe], list[Probe]]:
    """Searches the smallest size whose loss is small enough.

    Bisection takes for granted that a smaller size loses more. Where that does not hold it may miss a smaller one, but
    what it gives was tried itself.

    Args:
        shares: Shares of the present size, rising.
        probe: Tries one.
        allowed: Largest loss, in dB, standard errors included.

    Returns:
        What was found, None where even the largest of them loses more; and all that was tried, in that order.
    """
    low, high = -1, len(shares)
    best: Optional[Probe] = None
    tried: list[Probe] = []
    while high - low > 1:
        middle = (low + high) // 2
        tried.append(probe(shares[middle]))
        if tried[-1].drop.bound <= allowed:
            high, best = middle, tried[-1]
        else:
            low = middle
    return best, tried
