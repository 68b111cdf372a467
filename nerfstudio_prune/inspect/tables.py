"""How `ns-prune inspect` shows what it found of a network: tables of at most 100 columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.inspect.event_tables import change_text, empty_table, history, pending
from nerfstudio_prune.inspect.inspection import THRESHOLDS, Inspection, LayerWeights
from nerfstudio_prune.nerf.subject import NeuronSubject


def all_tables(found: Inspection) -> Iterator[Any]:
    """Everything to print, in order."""
    yield overview(found)
    not_finite = sum(part.not_finite for part in found.field_weights.values())
    if not_finite:
        yield Text(f"{not_finite:,} weights are not finite: the run has diverged", style="red")
    yield cost_table(found)
    yield sparsity_table(found)
    yield Text("dead rows: outputs whose weights are all zero; dead cols: inputs that nothing reads")
    for name in found.scores:
        yield score_table(found, name)
    if found.scores:
        yield Text("top half: what the better half of a layer's neurons holds of the sum; 50.0%: all are equal")
    places = _places(found)
    changes = [[] if e.error else sizes_lines(e, found.units[e.strategy], places) for e in found.history]
    yield from history(found.history, [event.strategy for event in found.history], changes)
    now = {name: cost.now.width or 0 for name, cost in found.costs.items()}
    to_come = zip(found.pending, found.aims, strict=True)
    yield from pending(found.pending, [_lines(now, event.targets, places) or [aim] for event, aim in to_come])


def overview(found: Inspection) -> Table:
    """Where the network comes from, and its size."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    now, initial = found.total.now, found.total.initial
    plan = f"strategy {found.strategy}" if found.strategy else "no plan of pruning"
    table.add_row("run", escape(f"{found.method}, {plan}, phase {found.phase}"))
    table.add_row("checkpoint", escape(f"{found.checkpoint} (step {found.step:,})"))
    table.add_row("parameters", change_text(initial.parameters, now.parameters, ratio=True))
    if found.masked:
        living = now.parameters - found.masked
        table.add_row(
            "  that live", change_text(initial.parameters, living, ratio=True) + "; masks save no memory or time"
        )
    table.add_row("MACs per ray", change_text(initial.macs_per_ray, now.macs_per_ray, ratio=True))
    table.add_row("fields", f"{found.fields_mb:.2f} MB in fp32")
    table.add_row("on disk", f"{found.checkpoint_mb:.2f} MB, with the optimizer's moments")
    return table


def cost_table(found: Inspection) -> Table:
    """Width, parameters and operations of every layer."""
    table = empty_table("Layers", ["layer"], "width", "parameters", "MACs per ray")
    for network in dict.fromkeys(cost.network for cost in found.costs.values()):
        layers = _of_network(found, found.costs, network)
        sums = [
            change_text(
                sum(getattr(cost.initial, name) for cost in layers.values()),
                sum(getattr(cost.now, name) for cost in layers.values()),
            )
            for name in ("parameters", "macs_per_ray")
        ]
        table.add_row(network, "", *sums, style="bold")
        for name, cost in layers.items():
            table.add_row(
                f"  {name}",
                change_text(cost.initial.width, cost.now.width),
                change_text(cost.initial.parameters, cost.now.parameters),
                change_text(cost.initial.macs_per_ray, cost.now.macs_per_ray),
            )
        table.add_section()
    return table


def sparsity_table(found: Inspection) -> Table:
    """Shares of small weights of every layer."""
    columns = ["weights", *(f"< {threshold:g}" for threshold in THRESHOLDS), "= 0"]
    columns += ["live", "dead rows", "dead cols"] if found.masked else ["dead rows", "dead cols"]
    table = empty_table("Sparsity: share of |weight|, without biases", ["layer"], *columns)

    def cells(part: LayerWeights) -> list[str]:
        shares = [_share(part.below[f"{threshold:g}"], part.weights) for threshold in THRESHOLDS]
        living = [_share(part.living, part.weights)] if found.masked else []
        counts = [f"{part.dead_rows:,}", f"{part.dead_columns:,}"]
        return [f"{part.weights:,}", *shares, _share(part.zeros, part.weights), *living, *counts]

    for field, sums in found.field_weights.items():
        table.add_row(field, *cells(sums), style="bold")
        for name, part in _of_network(found, found.weights, field).items():
            table.add_row(f"  {name}", *cells(part))
        table.add_section()
    return table


def score_table(found: Inspection, score: str) -> Table:
    """Spread of a score in every layer of neurons."""
    table = empty_table(f"Score {score} of the neurons", ["layer"], "neurons", "min", "median", "max", "top half")
    for field in found.field_weights:
        table.add_row(field, style="bold")
        for name, part in _of_network(found, found.scores[score], field).items():
            width = found.costs[f"{field}.{name}"].now.width
            share = "—" if part.top_half_share is None else f"{part.top_half_share:.1%}"
            numbers = (f"{value:#.3g}" for value in (part.minimum, part.median, part.maximum))
            table.add_row(f"  {name}", f"{width:,}", *numbers, share)
        table.add_section()
    return table


def _places(found: Inspection) -> dict[str, tuple[str, str]]:
    """Name of a layer of neurons -> its network, and what it is there."""
    return {name: (cost.network, cost.role) for name, cost in found.costs.items() if cost.role}


def sizes_lines(event: PruneEvent, unit: str, places: Mapping[str, tuple[str, str]]) -> list[str]:
    """What an event did to the trunk and head of each field, one line each; fields that are alike share theirs.

    Args:
        event: What happened.
        unit: What the sizes of its parts count; those of neurons are widths.
        places: Name of the part -> its network, and what it is there.
    """
    return _lines(event.before.parts, event.after.parts, places, "" if unit == NeuronSubject.unit else unit)


def _lines(
    before: Mapping[str, int], after: Mapping[str, int], places: Mapping[str, tuple[str, str]], summed: str = ""
) -> list[str]:
    """One line per trunk and head.

    Args:
        before: Name of the part -> size before.
        after: The same afterwards.
        places: Name of the part -> its network, and what it is there.
        summed: What to give the sum of, over the layers; empty: the range of widths.
    """
    texts: dict[str, list[str]] = {network: [] for network, _ in places.values()}
    for place in dict.fromkeys(places.values()):
        names = [name for name in after if places.get(name) == place]
        if names:
            network, role = place
            sizes = [[values[name] for name in names] for values in (before, after)]
            ends = [f"{sum(column):,}" if summed else _range(column) for column in sizes]
            change = " → ".join(ends) if sizes[0] != sizes[1] else ends[0]
            texts[network].append(" ".join(filter(None, (role, change, summed))))
    first, *others = texts.values()
    if all(lines == first for lines in others):
        return first
    return [f"{network.removeprefix('field_')} {line}" for network, lines in texts.items() for line in lines]


def _range(widths: list[int]) -> str:
    low, high = min(widths), max(widths)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _of_network(found: Inspection, values: Mapping[str, Any], network: str) -> dict[str, Any]:
    """Entries of the layers of a network, by their names in it."""
    return {
        name.removeprefix(f"{network}."): part for name, part in values.items() if found.costs[name].network == network
    }


def _share(part: int, whole: int) -> str:
    """Percentage that is 0 or 100 only if it is exactly so."""
    if part in (0, whole):
        return f"{part / whole:.0%}"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.1f}%"
