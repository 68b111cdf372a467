"""How a budget is shared out: the widths of all hidden layers that give the least error at a bounded cost.

The error is a sum over the groups. The cost is not: a layer has as many weights as the product of the widths on its two
sides. Within a chain of layers the best widths at a given price of cost are found exactly, by dynamic programming; the
price that meets the budget by a search. Prices reach only the convex hull of what is possible, so a local search
follows.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from nerfstudio_prune.neurons.groups import NeuronGroup, linears


@dataclass(frozen=True, eq=False)
class CostTerms:
    """Cost of all layers at widths w: `fixed + sum(per_neuron * w) + sum(per_weight[1:] * w[:-1] * w[1:])`."""

    fixed: float
    """Cost of what has no neurons on either side."""
    per_neuron: Float[np.ndarray, " groups"]
    """Cost of a neuron's bias and of its weights from fixed inputs and to fixed outputs."""
    per_weight: Float[np.ndarray, " groups"]
    """Cost of one weight between each group and the group before it; 0 where a network begins."""

    def total(self, widths: Float[np.ndarray, "*batch groups"]) -> Float[np.ndarray, "*batch"]:
        """Cost of one or many allocations."""
        between = widths[..., :-1] * widths[..., 1:]
        return np.asarray(self.fixed + widths @ self.per_neuron + between @ self.per_weight[1:])


def cost_terms(groups: Sequence[NeuronGroup], units: Mapping[str, int | float], count_bias: bool) -> CostTerms:
    """Reads the cost off the layers that the groups touch.

    Args:
        groups: All groups of all networks, each network in forward order.
        units: Module path of each layer -> cost of one weight, > 0.
        count_bias: Whether an entry of a bias costs as much as a weight, or nothing.

    Raises:
        ValueError: If a cost is not positive, or a group's layer reads another group than the one before it.
    """
    position = {group.name: i for i, group in enumerate(groups)}
    fixed, per_neuron, per_weight = 0.0, np.zeros(len(groups)), np.zeros(len(groups))
    for name, layer in linears(groups).items():
        unit = units[name]
        if not 0 < unit < math.inf:
            raise ValueError(f"{name}: the cost of a weight must be positive, got {unit}")
        read = [i for i, group in enumerate(groups) for consumer in group.consumers if consumer.name == name]
        rows, columns = layer.weight.shape
        columns -= sum(groups[i].width for i in read)
        if count_bias and layer.bias is not None:
            columns += 1
        row_group = position.get(name)
        if row_group is None:
            fixed += unit * rows * columns
            for i in read:
                per_neuron[i] += unit * rows
        elif read in ([], [row_group - 1]):
            per_neuron[row_group] += unit * columns
            per_weight[row_group] = unit * len(read)
        else:
            raise ValueError(
                f"{name} must read no group but the one before it, for groups in forward order; it reads "
                f"{', '.join(groups[i].name for i in read)}"
            )
    return CostTerms(fixed, per_neuron, per_weight)


def cost_of(
    groups: Sequence[NeuronGroup], widths: Mapping[str, int], units: Mapping[str, int | float], count_bias: bool
) -> float:
    """Cost if the groups had other widths; the sum over `expected_shapes`, in the unit of `units`.

    Args:
        groups: All groups of all networks, each network in forward order.
        widths: Name of the group -> width; groups that are not named keep theirs.
        units: Module path of each layer -> cost of one weight, > 0.
        count_bias: Whether an entry of a bias costs as much as a weight, or nothing.

    Raises:
        ValueError: As `cost_terms`.
    """
    found = np.array([widths.get(group.name, group.width) for group in groups], dtype=float)
    return float(cost_terms(groups, units, count_bias).total(found))


def allowed_widths(current: int, floor: int, round_to: int) -> list[int]:
    """Widths that a group may get: multiples of `round_to` from `floor` on, and the current one.

    Args:
        current: Neurons that the group has, at least 1.
        floor: Fewest neurons that may stay. A narrower group stays as it is.
        round_to: Grid of the widths, at least 1.

    Returns:
        Ascending widths; the last one is `current`.
    """
    first = -(-max(floor, 1) // round_to) * round_to
    return [*range(first, current, round_to), current]


@dataclass(frozen=True, eq=False)
class Problem:
    """What there is to choose from. A choice is an index into each group's allowed widths."""

    costs: CostTerms
    """Cost of the widths."""
    widths: list[Float[np.ndarray, "_"]]
    """Allowed widths of each group, ascending; a single one where there is no choice."""
    errors: list[Float[np.ndarray, "_"]]
    """Error of each group at its allowed widths."""

    def widths_of(self, choice: Int64[np.ndarray, " groups"]) -> Float[np.ndarray, " groups"]:
        """Widths that were chosen."""
        return np.array([widths[k] for widths, k in zip(self.widths, choice, strict=True)])

    def rank(self, choice: Int64[np.ndarray, " groups"]) -> tuple[float, float]:
        """Error and cost of a choice: of two, the one that compares less is better."""
        # An exact sum makes the comparison a strict order, without which the local search might go in circles.
        error = math.fsum(errors[k] for errors, k in zip(self.errors, choice, strict=True))
        return error, float(self.costs.total(self.widths_of(choice)))


def pose_problem(
    groups: Sequence[NeuronGroup],
    errors: Mapping[str, Sequence[float]],
    choices: Mapping[str, Sequence[int]],
    units: Mapping[str, int | float],
    count_bias: bool,
) -> Problem:
    """Checks what there is to choose from and brings it into arrays; arguments as for `allocate_widths`.

    Raises:
        ValueError: If an error curve has a value that is not finite or another length than `width + 1`, the allowed
            widths are none or out of range, or as `cost_terms`.
    """
    unknown = set(choices) - {group.name for group in groups}
    if unknown:
        raise ValueError(f"choices: there is no group of neurons called {', '.join(sorted(unknown))}")
    costs = cost_terms(groups, units, count_bias)
    widths, at_widths = [], []
    for group in groups:
        allowed = sorted(set(choices.get(group.name, [group.width])))
        if not allowed or allowed[0] < 1 or allowed[-1] > group.width:
            raise ValueError(f"{group.name}: allowed widths must lie in [1, {group.width}], got {allowed}")
        curve = np.zeros(group.width + 1)
        if group.name in choices:
            curve = np.asarray(errors.get(group.name, ()), dtype=float)
        if len(curve) != group.width + 1:
            raise ValueError(
                f"{group.name}: the error curve must have {group.width + 1} values, for 0 to {group.width} neurons, "
                f"got {len(curve)}"
            )
        if not np.isfinite(curve).all():
            raise ValueError(f"{group.name}: errors must be finite, got {(~np.isfinite(curve)).sum()} that are not")
        widths.append(np.array(allowed, dtype=float))
        at_widths.append(curve[allowed])
    return Problem(costs, widths, at_widths)


def choose_at_price(problem: Problem, price: float) -> Int64[np.ndarray, " groups"]:
    """The choice with the least `error + price * cost`, exactly, by dynamic programming. Ties go to narrower groups.

    Args:
        problem: What there is to choose from.
        price: Error that one unit of cost is worth, >= 0.

    Returns:
        Index into the allowed widths of each group.
    """
    costs, came_from = problem.costs, []
    best = np.zeros(1)
    before = np.zeros(1)
    for i, (widths, errors) in enumerate(zip(problem.widths, problem.errors, strict=True)):
        # [width of this group, width of the group before]
        paths = best + (price * costs.per_weight[i]) * np.outer(widths, before)
        came_from.append(paths.argmin(axis=1))
        best = paths.min(axis=1) + errors + (price * costs.per_neuron[i]) * widths
        before = widths
    choice = [int(best.argmin())]
    for previous in came_from[:0:-1]:
        choice.append(int(previous[choice[-1]]))
    return np.array(choice[::-1], dtype=np.int64)


def _choose_on_hull(problem: Problem, budget: float) -> Int64[np.ndarray, " groups"]:
    """The best choice within the budget among those that some price makes the best one.

    The narrowest widths must fit. Each step tries the price at which the two choices around the budget are equally
    good; what is best there is another corner of the convex hull between them, or shows that there is none. Unlike
    bisection this ends exactly, and needs no range of prices.
    """
    below = np.zeros(len(problem.widths), dtype=np.int64)
    above = np.array([errors.argmin() for errors in problem.errors], dtype=np.int64)
    (low_error, low_cost), (high_error, high_cost) = problem.rank(below), problem.rank(above)
    if high_cost <= budget:
        return above
    while True:
        between = choose_at_price(problem, (low_error - high_error) / (high_cost - low_cost))
        error, cost = problem.rank(between)
        if not low_cost < cost < high_cost:
            return below
        if cost <= budget:
            below, low_error, low_cost = between, error, cost
        else:
            high_error, high_cost = error, cost


def _choose_uniformly(problem: Problem, budget: float) -> Int64[np.ndarray, " groups"]:
    """The best choice within the budget among those that keep the same share of every group, rounded down.

    The narrowest widths must fit. If only one group has a choice, this is the best of all.
    """
    ratios = np.unique(np.concatenate([widths / widths[-1] for widths in problem.widths]))
    choices = np.stack(
        [
            np.maximum(np.searchsorted(widths, ratios * widths[-1] * (1 + 1e-12), side="right") - 1, 0)
            for widths in problem.widths
        ],
        axis=1,
    )
    ranked = [(problem.rank(choice), i) for i, choice in enumerate(choices)]
    return choices[min((rank, i) for rank, i in ranked if rank[1] <= budget)[1]]


def _best_pair(
    problem: Problem, choice: Int64[np.ndarray, " groups"], first: int, second: int, budget: float
) -> tuple[int, int]:
    """Chooses two groups anew, exactly, while the others stay."""
    x, y = problem.widths[first], problem.widths[second]
    # With the other groups fixed the cost is rest + per_x * x + per_y * y + per_pair * x * y; four points tell it all.
    corners = np.tile(problem.widths_of(choice), (4, 1))
    corners[:, [first, second]] = [[0, 0], [1, 0], [0, 1], [1, 1]]
    rest, with_x, with_y, with_both = problem.costs.total(corners)
    per_x, per_y, per_pair = with_x - rest, with_y - rest, with_both - with_x - with_y + rest
    affordable = np.searchsorted(y, (budget - rest - per_x * x) / (per_y + per_pair * x), side="right") - 1
    # Best affordable index for the second group at each width of the first; the lowest of equal ones.
    errors = problem.errors[second]
    is_record = np.append(True, errors[1:] < np.minimum.accumulate(errors)[:-1])
    least = np.maximum.accumulate(np.where(is_record, np.arange(len(errors)), 0))[affordable]
    error = np.where(affordable < 0, np.inf, problem.errors[first] + errors[least])
    cost = per_x * x + (per_y + per_pair * x) * y[least]
    chosen = int(np.lexsort((cost, error))[0])
    return chosen, int(least[chosen])


def _improve_pairs(
    problem: Problem, choice: Int64[np.ndarray, " groups"], budget: float
) -> Int64[np.ndarray, " groups"]:
    """Chooses two groups at a time anew until no pair gets better; growth, shrinkage and swaps of any size in one."""
    free = [i for i, widths in enumerate(problem.widths) if len(widths) > 1]
    rank, improved = problem.rank(choice), True
    while improved:
        improved = False
        for first, second in itertools.combinations(free, 2):
            other = choice.copy()
            other[[first, second]] = _best_pair(problem, choice, first, second, budget)
            if (other == choice).all():
                continue
            other_rank = problem.rank(other)  # also the word on the budget: the pair's own sum may be rounded
            if other_rank < rank and other_rank[1] <= budget:
                choice, rank, improved = other, other_rank, True
    return choice


def allocate_widths(
    groups: Sequence[NeuronGroup],
    errors: Mapping[str, Sequence[float]],
    choices: Mapping[str, Sequence[int]],
    units: Mapping[str, int | float],
    budget: float,
    count_bias: bool,
    option: str = "budget",
) -> dict[str, int]:
    """Shares a budget out: widths whose summed error is small at a cost of at most the budget.

    The result is never above the budget, never worse than the best allocation that keeps one share of every group
    (rounded down to allowed widths), and changing one or two groups cannot make it better. Of equal errors the lower
    cost counts.

    Args:
        groups: All groups of all networks, each network in forward order.
        errors: Name of the group -> error with 0, 1, ..., width neurons kept. Added up over the groups; any unit, and
            the curves may rise in places.
        choices: Name of the group -> allowed widths. Groups that are not named keep their width; what they cost
            counts.
        units: Module path of each layer -> cost of one weight, > 0: 1 for parameters, samples per ray for
            multiply-accumulates per ray. Whole numbers (4 bytes, not 4e-6 MB) keep the cost exact.
        budget: Largest cost, in the unit of `units`, > 0.
        count_bias: Whether an entry of a bias costs as much as a weight, or nothing.
        option: Option that gave the budget, with its value, for the error message.

    Returns:
        Name of the group -> width, for the groups in `choices`, in forward order. The largest allowed widths if they
        fit into the budget.

    Raises:
        ValueError: If the smallest allowed widths exceed the budget, or as `pose_problem`.
    """
    problem = pose_problem(groups, errors, choices, units, count_bias)
    narrowest = np.zeros(len(problem.widths), dtype=np.int64)
    lowest = problem.rank(narrowest)[1]
    if not lowest <= budget:
        raise ValueError(
            f"{option}: the smallest widths allowed cost {lowest:.10g}, which is above the budget of {budget:.10g}; "
            "raise the budget, lower min_width or round_to, or let more groups be pruned"
        )
    choice = np.array([len(widths) - 1 for widths in problem.widths], dtype=np.int64)
    if problem.rank(choice)[1] > budget:
        starts = (_choose_on_hull(problem, budget), _choose_uniformly(problem, budget))
        choice = min((_improve_pairs(problem, start, budget) for start in starts), key=problem.rank)
    widths = problem.widths_of(choice)
    return {group.name: int(widths[i]) for i, group in enumerate(groups) if group.name in choices}
