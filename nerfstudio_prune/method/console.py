"""What a person sees of pruning on the console."""

from collections.abc import Mapping

from rich.table import Table

from nerfstudio_prune.core.events import PruneEvent, PruneState
from nerfstudio_prune.method.config import FilledPruneConfig


def plan_text(state: PruneState, config: FilledPruneConfig) -> str:
    """Strategy, recovery and what is planned, in one line."""
    rule = config.strategy + (f" by {config.score_name}" if config.score_name else "")
    if not state.pending:
        return f"{rule}, no event to come (phase {state.phase})"
    lines = []
    for event in state.pending:
        widths = sorted(set(event.targets.values()), reverse=True)
        aim = f"to widths {', '.join(map(str, widths))}" if widths else f"{event.progress:.0%} of the edges to prune"
        lines.append(f"step {event.step}: {aim}")
    return f"{rule}, recovery {config.recovery}, {'; '.join(lines)} (phase {state.phase})"


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
