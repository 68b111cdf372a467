"""What a person sees of pruning on the console."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from nerfstudio_prune.core.events import PruneEvent, PruneState
from nerfstudio_prune.nerf.allocation import Budget
from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.neurons.budget import cost_of
from nerfstudio_prune.neurons.groups import NeuronGroup


def plan_text(state: PruneState, config: FilledPruneConfig) -> str:
    """Preset, strategy, recovery and what is planned, in one line."""
    rule = config.strategy + (f" by {config.score_name}" if config.score_name else "")
    if config.strategy not in ("edge", "none"):
        rule = f"preset {config.preset}, {rule}" + (f", refit {config.refit}" if config.refit != "none" else "")
    if not state.pending:
        return f"{rule}, no event to come (phase {state.phase})"
    lines = []
    for event in state.pending:
        widths = sorted(set(event.targets.values()), reverse=True)
        aim = f"to widths {', '.join(map(str, widths))}"
        if config.strategy == "edge":
            aim = f"{event.progress:.0%} of the edges to prune"
        elif config.has_budget:
            name, value = config.budget_option
            aim = f"{event.progress:.0%} of the way to {name} {value:g}"
        lines.append(f"step {event.step}: {aim}")
    rate = "" if config.recovery_lr_factor == 1 else f" at {config.recovery_lr_factor:g} times the learning rate"
    return f"{rule}, recovery {config.recovery}{rate}, {'; '.join(lines)} (phase {state.phase})"


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
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    rows: dict[str, dict[str, str]] = {}
    for group in groups:
        field, _, layer = group.name.partition(".")
        rows.setdefault(layer, {})[field] = _change(group.width, widths.get(group.name, group.width))
    fields = list(dict.fromkeys(field for row in rows.values() for field in row))
    for field in fields:
        table.add_column(field, justify="right")
    for layer, row in rows.items():
        table.add_row(layer, *(row.get(field, "") for field in fields))
    return table


def event_table(
    event: PruneEvent, costs_before: Mapping[str, tuple[int, int]], costs_after: Mapping[str, tuple[int, int]]
) -> Table:
    """Table of one event: a row a group, then the sums.

    Args:
        event: What happened.
        costs_before: Module path of each layer -> (parameters, multiply-accumulates per ray) before.
        costs_after: The same afterwards.
    """
    edges = event.strategy == "edge"
    table = Table(title=f"Pruning at step {event.step} ({event.strategy}, {event.recovery})", title_justify="left")
    table.add_column("group")
    for column in ("edges" if edges else "width", "parameters", "MACs per ray"):
        table.add_column(column, justify="right")
    for name, size in event.sizes_after.items():
        table.add_row(
            name,
            _change(event.sizes_before[name], size),
            _change(costs_before[name][0], costs_after[name][0]),
            _change(costs_before[name][1], costs_after[name][1]),
        )
    table.add_section()
    table.add_row(
        "both fields" + (" (edges that live)" if edges else ""),
        "",
        _change(event.parameters_before, event.parameters_after),
        _change(event.macs_per_ray_before, event.macs_per_ray_after),
        style="bold",
    )
    return table


def event_text(event: PruneEvent, measured_on: str) -> str:
    """What an event gained, cost and took.

    Args:
        event: What happened.
        measured_on: What the quality was measured on.
    """
    ratio = event.parameters_before / max(1, event.parameters_after)
    parts = [f"{ratio:.2f}x fewer {'living edges' if event.strategy == 'edge' else 'parameters'}"]
    for name, before in event.metrics_before.items():
        unit = " dB" if "psnr" in name else ""
        parts.append(f"{name.upper()} {before:.2f} → {event.metrics_after[name]:.2f}{unit}")
    text = ", ".join([*parts, f"{event.seconds:.2f} s"])
    return f"{text} ({measured_on})" if event.metrics_before else text


def _change(before: int, after: int) -> str:
    return f"{before:,} → {after:,}" if before != after else f"{before:,}"
