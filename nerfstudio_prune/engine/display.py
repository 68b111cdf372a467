"""What a person sees of pruning on the console and in TensorBoard."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Optional

from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from rich.table import Table

from nerfstudio_prune.core.events import Phase, PruneEvent
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun

PHASES: tuple[Phase, ...] = ("dense", "pruning", "recovery")
"""Number of a phase in TensorBoard -> its name."""


class Display(Listener):
    """Prints the plan and every event, and writes the scalars below `Prune/`.

    Args:
        run: The run.
        measured_on: What the quality is measured on.
    """

    def __init__(self, run: PruneRun, measured_on: Callable[[], str]) -> None:
        self.run = run
        self.measured_on = measured_on
        self._costs_before: Mapping[str, Mapping[str, int]] = {}

    def started(self) -> None:
        """Prints the plan."""
        CONSOLE.print(escape(f"Pruning plan{self.run.origin}: {plan_text(self.run)}"))
        if self.run.without_effect:
            named = ", ".join(f"prune.{name} (goes with {needs})" for name, needs in self.run.without_effect.items())
            CONSOLE.print(f"[yellow]These options have no effect on what is planned: {named}")
        late = [event.step for event in self.run.state.pending if event.step > self.run.last_step]
        if late:
            CONSOLE.print(f"[yellow]Pruning steps {late} lie past the end of this run; a resumed run does them")

    def before_cut(self, event: PruneEvent) -> None:
        """Looks at what the parts cost."""
        self._costs_before = self.run.subject.part_costs()

    def measured(self, event: PruneEvent) -> None:
        """Prints what happened and writes it."""
        CONSOLE.print(event_table(event, self.run.subject, self._costs_before))
        CONSOLE.print(event_text(event, self.run.subject, self.measured_on()))
        self._write(event.step, event)

    def after_undo(self, event: PruneEvent) -> None:
        """Writes the sizes that hold again."""
        self._write(self.run.step)

    def step_done(self, step: int) -> None:
        """Writes the sizes that a run begins with."""
        if step == self.run.first_step:
            self._write(step)

    def _write(self, step: int, event: Optional[PruneEvent] = None) -> None:
        subject, sizes = self.run.subject, self.run.subject.sizes()
        for name, value in sizes.costs.items():
            writer.put_scalar(f"Prune/{name}", value, step)
        writer.put_scalar("Prune/phase", PHASES.index(self.run.state.phase), step)
        for name, size in sizes.parts.items():
            writer.put_scalar(f"Prune/{subject.unit}/{name}", size, step)
        if event is not None:
            for label, metrics in (("before", event.metrics_before), ("after", event.metrics_after)):
                for name, value in metrics.items():
                    writer.put_scalar(f"Prune/{name}_{label}", value, step)


def plan_text(run: PruneRun) -> str:
    """Rule, recovery and what is planned, in one line."""
    recipe, state = run.recipe, run.state
    if not state.pending:
        return f"{recipe.rule}, no event to come (phase {state.phase})"
    overdue = {event.step for event in state.pending if event.step < run.first_step}
    lines = [
        f"step {event.step}{f', overdue, done at {run.first_step}' if event.step in overdue else ''}: "
        f"{run.subject.aim(recipe, event)}"
        for event in state.pending
    ]
    factor = recipe.recovery_lr_factor
    rate = "" if factor == 1 else f" at {factor:g} times the learning rate"
    return f"{recipe.rule}, recovery {recipe.recovery}{rate}, {'; '.join(lines)} (phase {state.phase})"


def event_table(event: PruneEvent, subject: Subject[Any], costs_before: Mapping[str, Mapping[str, int]]) -> Table:
    """Table of one event: a row a part, then the sums; or what the whole costs, where that tells of all parts.

    Args:
        event: What happened.
        subject: What it happened to, as it is afterwards.
        costs_before: Name of the part -> name of the cost -> what it cost before.
    """
    title = f"Pruning at step {event.step} ({subject.rule(event)}, {event.recovery})"
    table = Table(title=title, title_justify="left", min_width=len(title))
    if not subject.words.part:
        table.add_column("")
        table.add_column("before → after", justify="right")
        for (label, before), (_, after) in zip(
            subject.summary(event.before), subject.summary(event.after), strict=True
        ):
            table.add_row(label, f"{before} → {after}" if before != after else before)
        return table
    table.add_column("group")
    for column in (subject.unit, *subject.labels.values()):
        table.add_column(column, justify="right")
    costs_after = subject.part_costs()
    for name, size in event.after.parts.items():
        known = name in costs_before
        costs = (change(costs_before[name][cost], costs_after[name][cost]) for cost in subject.labels if known)
        table.add_row(name, change(event.before.parts[name], size), *costs)
    table.add_section()
    sums = (change(event.before.costs[cost], event.after.costs[cost]) for cost in subject.labels)
    table.add_row(subject.total, "", *sums, style="bold")
    return table


def event_text(event: PruneEvent, subject: Subject[Any], measured_on: str) -> str:
    """What an event gained, cost and took.

    Args:
        event: What happened.
        subject: What it happened to.
        measured_on: What the quality was measured on.
    """
    parts = [subject.gain(event)]
    for name in {**event.metrics_before, **event.metrics_after}:
        parts.append(f"{name.upper()} {metric_text(event, name)}")
    measured = len(parts) > 1
    text = ", ".join([*parts, f"{event.seconds:.2f} s"])
    return f"{text} ({measured_on})" if measured else text


def metric_text(event: PruneEvent, name: str) -> str:
    """A metric before and after an event, either of which may be missing.

    Args:
        event: What happened.
        name: Name of the metric.
    """
    unit = " dB" if "psnr" in name else ""
    before, after = (
        f"{metrics[name]:.2f}" if name in metrics else "not measured"
        for metrics in (event.metrics_before, event.metrics_after)
    )
    return f"{before} → {after}" + (unit if name in event.metrics_after else "")


def change(before: int, after: int) -> str:
    """A number before and after, or once if it stays."""
    return f"{before:,} → {after:,}" if before != after else f"{before:,}"


def failure_text(error: Exception) -> str:
    """What went wrong, never empty; the kind stands before what is no `ValueError` of this project."""
    return str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"


def tell_failure(what: str, error: Exception, colour: str = "red") -> None:
    """Prints what failed and why; with a traceback where that is no error of a person's.

    Args:
        what: What failed, and what that means for the run.
        error: Why.
        colour: Colour of the line.
    """
    CONSOLE.print(f"[{colour}]{escape(what)}: {escape(failure_text(error))}")
    if not isinstance(error, ValueError):
        CONSOLE.print(escape("".join(traceback.format_exception(error))))
