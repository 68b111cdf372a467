"""What `ns-prune inspect` shows of the events of a run, whatever is pruned, and what all of its tables are made of."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent


def history(events: Sequence[PruneEvent], rules: Sequence[str], sizes: Sequence[Sequence[str]]) -> Iterator[Any]:
    """Table of the events that happened, and why others failed.

    Args:
        events: Oldest first.
        rules: By what each of them went.
        sizes: What each of them did to the sizes, in lines.
    """
    if not events:
        yield Text("Pruning history: nothing was pruned yet")
        return
    table = empty_table("Pruning history", ["step", "rule", "sizes"], "PSNR dB", "seconds")
    for event, by, changed in zip(events, rules, sizes, strict=True):
        score = event.options.get("score")
        lines = [f"{by} by {score}" if score and by == event.strategy else by, event.recovery]
        table.add_row(
            f"{event.step:,}",
            escape("\n".join(lines)),
            "failed" if event.error else "\n".join(changed),
            _psnr(event),
            f"{event.seconds:.2f}",
        )
        table.add_section()
    yield table
    for event in events:
        if event.error:
            yield Text(f"step {event.step:,} failed, the model stayed as it was: {event.error}", style="red")


def pending(events: Sequence[ScheduledEvent], aims: Sequence[Sequence[str]]) -> Iterator[Text]:
    """The events to come.

    Args:
        events: By increasing step.
        aims: How far each of them goes, in lines.
    """
    if not events:
        yield Text("Events to come: none")
    for event, lines in zip(events, aims, strict=True):
        text = " " + ", ".join(lines) if len(lines) <= 2 else "".join(f"\n  {line}" for line in lines)
        yield Text(f"Event to come at step {event.step:,}:{text}")


def _psnr(event: PruneEvent) -> str:
    before, after = event.metrics_before.get("psnr"), event.metrics_after.get("psnr")
    return "—" if before is None or after is None else f"{before:.2f} → {after:.2f}"


def empty_table(title: str, texts: list[str], *numbers: str) -> Table:
    """A table without rows; no cell is wrapped, since a number in two parts is misread.

    Args:
        title: What stands above it.
        texts: Columns of texts, which come first.
        numbers: Columns of numbers.
    """
    table = Table(title=f"\n{title}", title_justify="left")
    for column in texts:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        header = column.replace(" ", "\n") if column.startswith("dead") else column
        table.add_column(header, justify="right", no_wrap=True)
    return table


def change_text(before: Optional[int], after: Optional[int], ratio: bool = False) -> str:
    """A number before and after, or once if it stays; empty where there is none.

    Args:
        before: Before.
        after: After.
        ratio: Whether to say how many times fewer.
    """
    if before is None or after is None:
        return ""
    if before == after:
        return f"{after:,}"
    text = f"{before:,} → {after:,}"
    return f"{text} ({before / max(1, after):.2f}x fewer)" if ratio else text
