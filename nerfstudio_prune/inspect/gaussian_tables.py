"""How `ns-prune inspect` shows what it found of Gaussians: tables of at most 100 columns."""

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nerfstudio_prune.inspect.event_tables import change_text, empty_table, history, pending
from nerfstudio_prune.inspect.gaussian_inspection import GaussianInspection


def all_gaussian_tables(found: GaussianInspection) -> Iterator[Any]:
    """Everything to print, in order."""
    yield overview(found)
    for name, count in found.not_finite.items():
        yield Text(f"{name}: {count:,} values are not finite: the run has diverged", style="red")
    yield spread_table(found)
    yield Text("axes: standard deviations, in units of the trained scene; harmonics: root mean square, degree 0 apart")
    yield from history(found.history, found.rules, found.changes)
    yield from pending(found.pending, [[aim] for aim in found.aims])


def overview(found: GaussianInspection) -> Table:
    """Where the Gaussians come from, how many there are, and what they take."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    now, initial = found.now, found.initial
    plan = f"strategy {found.strategy}" if found.strategy else "no plan of pruning"
    megabytes = [f"{sizes.costs['bytes'] / 1e6:,.2f}" for sizes in (initial, now)]
    table.add_row("run", escape(f"{found.method}, {plan}, phase {found.phase}"))
    table.add_row("checkpoint", escape(f"{found.checkpoint} (step {found.step:,})"))
    table.add_row("Gaussians", change_text(initial.parts["gaussians"], now.parts["gaussians"], ratio=True))
    table.add_row("  unseen", f"{found.unseen:,} of an opacity below 1/255")
    table.add_row("SH degree", change_text(initial.parts["sh_degree"], now.parts["sh_degree"]))
    table.add_row("parameters", change_text(initial.costs["parameters"], now.costs["parameters"], ratio=True))
    table.add_row("MB in fp32", " → ".join(dict.fromkeys(megabytes)))
    table.add_row("on disk", f"{found.checkpoint_mb:.2f} MB, with the optimizer's moments")
    return table


def spread_table(found: GaussianInspection) -> Table:
    """Quantiles of what needs no view."""
    table = empty_table("Gaussians", ["value"], "min", "5 %", "25 %", "median", "75 %", "95 %", "max")
    for name, spread in found.spreads.items():
        table.add_row(name, *(f"{value:#.3g}" for value in astuple(spread)))
    return table
