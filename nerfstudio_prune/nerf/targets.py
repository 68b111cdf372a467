"""How far a cut of neurons goes: widths from ratios, explicit widths, or a budget for all fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from rich.table import Table

from nerfstudio_prune.engine.display import change
from nerfstudio_prune.nerf.layouts import HEAD, TRUNK
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.recipes import FieldTarget, NeuronRecipe
from nerfstudio_prune.neurons.budget import allocate_widths, allowed_widths, cost_of
from nerfstudio_prune.neurons.groups import NeuronGroup, linears, match_groups
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.survey import error_curves

BYTES = 4
"""Of a weight in the fields as they are trained."""


def initial_widths(model: PruneModel) -> dict[str, int]:
    """Name of the group -> width before the first event; the present one where the state does not know better."""
    return model.prune_state.initial_sizes or {group.name: group.width for group in model.neuron_groups()}


def resolve_targets(recipe: NeuronRecipe, groups: Sequence[NeuronGroup], initial: Mapping[str, int]) -> dict[str, int]:
    """Widths after the last event.

    Args:
        recipe: Resolved options without a budget.
        groups: All groups of the model, with their current widths.
        initial: Name of the group -> initial width, what ratios and proportions refer to.

    Returns:
        Name of the group -> width, for the groups that are to be pruned.

    Raises:
        ValueError: If a pattern matches nothing, or an explicit width lies above a group's current one.
    """
    chosen = match_groups(groups, recipe.groups, "prune.groups")
    targets: dict[str, int] = {}
    if recipe.group_widths is not None:
        for pattern, width in recipe.group_widths.items():
            for group in match_groups(groups, [pattern], "prune.group_widths"):
                if targets.setdefault(group.name, width) != width:
                    raise ValueError(
                        f"prune.group_widths gives {group.name} two widths, {targets[group.name]} and {width}"
                    )
                _check_not_above(f"group_widths[{pattern!r}]", width, group)
        return targets
    for group in chosen:
        target = recipe.own.get(group.network, recipe.common)
        trunks = [initial[g.name] for g in groups if (g.network, g.role) == (group.network, TRUNK)]
        trunk = max(trunks, default=initial[group.name])
        width = _target_width(recipe, target, group, initial[group.name], trunk)
        if width is not None:
            targets[group.name] = width
    return targets


def _target_width(
    recipe: NeuronRecipe, target: FieldTarget, group: NeuronGroup, initial: int, trunk: int
) -> Optional[int]:
    """Width of one group; None if the target says nothing about it."""

    def rounded(width: float) -> int:
        if width >= initial:
            return initial
        multiple = max(1, int(width / recipe.round_to + 0.5)) * recipe.round_to
        return min(initial, max(recipe.min_width, multiple))

    if target.pruning_ratio is not None:
        return rounded(initial * (1 - target.pruning_ratio))
    is_head = group.role == HEAD
    name, width = ("head_width", target.head_width) if is_head else ("width", target.width)
    if width is not None:
        _check_not_above(target.prefix + name, width, group)
        return width
    if is_head and target.width is not None:
        return rounded(initial * target.width / trunk)
    return None


def _check_not_above(option: str, width: int, group: NeuronGroup) -> None:
    if width > group.width:
        raise ValueError(f"prune.{option} {width} is above the current width {group.width} of {group.name}")


@dataclass(frozen=True)
class Budget:
    """What the fields may cost."""

    option: str
    """The option that says so, with its value."""
    unit: str
    """What is counted."""
    initial: float
    """Cost before the first event."""
    target: float
    """Largest cost after the last event."""
    units: Mapping[str, int]
    """Module path of each layer -> cost of one weight."""
    count_bias: bool
    """Whether biases cost anything."""

    def at(self, progress: float) -> float:
        """Largest cost when a share of the whole cut is done."""
        return self.initial - (self.initial - self.target) * progress


def layer_units(model: PruneModel, option: str) -> tuple[str, Mapping[str, int], bool]:
    """What a budget counts: its unit, the cost of one weight of each layer, and whether biases cost anything.

    Args:
        model: The model.
        option: Name of the budget's option.
    """
    layers = list(linears(model.neuron_groups()))
    if option == "target_macs":
        return "MACs per ray", macs_per_weight(model), False
    if option == "target_mb":
        return "bytes", dict.fromkeys(layers, BYTES), True
    return "parameters", dict.fromkeys(layers, 1), True


def macs_per_weight(model: PruneModel) -> dict[str, int]:
    """Module path of each layer that neurons touch -> multiply-accumulates per ray of one of its weights."""
    found: dict[str, int] = {}
    for group in model.neuron_groups():
        per_ray = model.samples_per_ray(group.network)
        found.update(dict.fromkeys([group.name, *(consumer.name for consumer in group.consumers)], per_ray))
    return found


def budget_of(recipe: NeuronRecipe, model: PruneModel) -> Budget:
    """Reads the budget off the options.

    Raises:
        ValueError: If even the smallest widths cost more.
    """
    assert recipe.budget is not None
    groups = model.neuron_groups()
    name, value = recipe.budget
    unit, units, count_bias = layer_units(model, name)
    initial = cost_of(groups, initial_widths(model), units, count_bias)
    target = value * 1e6 if name == "target_mb" else value * initial
    budget = Budget(f"prune.{name} {value:g}", unit, initial, target, units, count_bias)
    least = cost_of(groups, {n: widths[0] for n, widths in _choices(recipe, groups).items()}, units, count_bias)
    if least > target:
        raise ValueError(
            f"{budget.option}: allows {target:,.0f} {unit}, and the smallest widths already take {least:,.0f}; raise "
            "it, lower min_width or round_to, or let more groups be pruned"
        )
    return budget


def allocate(
    recipe: NeuronRecipe, model: PruneModel, samples: Mapping[str, Samples], progress: float
) -> dict[str, int]:
    """Shares the budget out over the layers of all fields, by what their errors would be.

    Args:
        recipe: Resolved options with a budget.
        model: The model as it is.
        samples: Name of the field -> calibration samples.
        progress: Share of the whole cut that is to be done, in (0, 1].

    Returns:
        Name of the group -> width, for the groups that may be pruned.
    """
    groups = model.neuron_groups()
    budget = budget_of(recipe, model)
    network = {group.name: group.network for group in groups}
    errors = {}
    for name, curve in error_curves(groups, samples, recipe.refit.ridge).items():
        factor = recipe.coarse_error_weight if network[name] == "field_coarse" else 1.0
        errors[name] = (curve * factor).tolist()
    choices = _choices(recipe, groups)
    return allocate_widths(groups, errors, choices, budget.units, budget.at(progress), budget.count_bias, budget.option)


def _choices(recipe: NeuronRecipe, groups: Sequence[NeuronGroup]) -> dict[str, list[int]]:
    chosen = match_groups(groups, recipe.groups, "prune.groups")
    return {group.name: allowed_widths(group.width, recipe.min_width, recipe.round_to) for group in chosen}


def allocation_table(
    budget: Budget, progress: float, groups: Sequence[NeuronGroup], widths: Mapping[str, int]
) -> Table:
    """Table of the widths that a budget was shared out to: a row a layer, a column a field.

    Args:
        budget: The budget.
        progress: Share of the whole cut that is to be done, in (0, 1].
        groups: All groups with their current widths.
        widths: Name of the group -> width to come.
    """
    cost = cost_of(groups, widths, budget.units, budget.count_bias)
    title = f"{budget.option}: {cost:,.0f} of {budget.at(progress):,.0f} {budget.unit}, {budget.initial:,.0f} at first"
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column("layer")
    rows: dict[str, dict[str, str]] = {}
    for group in groups:
        width = change(group.width, widths.get(group.name, group.width))
        rows.setdefault(group.layer, {})[group.network] = width
    networks = list(dict.fromkeys(network for row in rows.values() for network in row))
    for network in networks:
        table.add_column(network, justify="right")
    for layer, row in rows.items():
        table.add_row(layer, *(row.get(network, "") for network in networks))
    return table
