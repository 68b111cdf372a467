"""Which network gets which width, so that the summed error is small at a bounded number of parameters."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int64


def allocate(
    errors: Float[np.ndarray, "networks widths"], costs: Sequence[int], budget: int | float
) -> Int64[np.ndarray, " networks"]:
    """Shares a budget out: one width for each network.

    Costs do not depend on each other, unlike those of layers that follow one another. On the convex hull of each
    network's errors, steps to the next width are taken in the order of what they gain per parameter, as far as they
    fit. The error is above the least possible one by less than the gain of a single step.

    Args:
        errors: Error of each network at each width, >= 0; infinite where it cannot have the width. A wider network that
            is worse counts as good as a narrower one.
        costs: Parameters of a network of each width, ascending.
        budget: Most parameters of all.

    Returns:
        Number of each network's width.

    Raises:
        ValueError: If costs do not ascend, an error or the budget is no number, a network has no width, or the
            narrowest ones exceed the budget.
    """
    if len(costs) != errors.shape[1] or list(costs) != sorted(set(costs)):
        raise ValueError(f"costs must ascend, one for each of {errors.shape[1]} widths, got {list(costs)}")
    if np.isnan(errors).any() or not np.isfinite(errors).any(axis=1).all():
        raise ValueError("errors must be numbers, and each network must have a width with a finite one")
    if math.isnan(budget):
        raise ValueError(f"grid.narrow_to: the budget must be a number, got {budget}")
    narrowest = np.isfinite(errors).argmax(axis=1)
    total = sum(costs[k] for k in narrowest)
    if total > budget:
        raise ValueError(
            f"grid.narrow_to: the narrowest widths take {total:,} parameters, which is above the budget of "
            f"{budget:,.0f}; raise the budget or allow narrower networks"
        )
    steps = []
    for network, curve in enumerate(errors):
        least = math.inf
        for order, (a, b) in enumerate(pairwise(_hull(costs, curve))):
            # On a hull gains fall; rounding must not put a later step of a network before an earlier one.
            least = min(least, (curve[a] - curve[b]) / (costs[b] - costs[a]))
            steps.append((-least, network, order, b, costs[b] - costs[a]))
    chosen, stopped = narrowest.astype(np.int64), np.zeros(len(errors), dtype=bool)
    for _, network, _, wider, cost in sorted(steps):
        if stopped[network] or total + cost > budget:
            stopped[network] = True
            continue
        chosen[network], total = wider, total + cost
    return chosen


def _hull(costs: Sequence[int], curve: Float[np.ndarray, " widths"]) -> list[int]:
    """Widths on the lower convex hull of a falling curve, ascending; widths that gain nothing are left out."""
    hull: list[int] = []
    for k, error in enumerate(curve):
        if not math.isfinite(error) or (hull and error >= curve[hull[-1]]):
            continue
        while len(hull) > 1:
            a, b = hull[-2:]
            if (curve[b] - error) * (costs[b] - costs[a]) < (curve[a] - curve[b]) * (costs[k] - costs[b]):
                break
            hull.pop()
        hull.append(k)
    return hull
