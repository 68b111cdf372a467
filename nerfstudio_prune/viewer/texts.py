"""What the panel says, as Markdown. viser compiles it as MDX: braces and angle brackets must be escaped."""

import re
from collections.abc import Mapping, Sequence
from typing import Optional

from nerfstudio_prune.viewer.preview import Preview
from nerfstudio_prune.viewer.session import Status


def plain(text: str) -> str:
    """Escapes what Markdown and MDX would take for markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$-])", r"\\\1", text).replace("\n", " ")


def state_text(status: Status) -> str:
    """Phase, step, next event, sizes, speed and quality.

    Args:
        status: State of the run.
    """
    texts = {"training": "", "paused": ", paused", "completed": ", training has ended", "none": ", not in training"}
    batch = status.words.batch
    lines = [f"**{status.stage or status.phase}**, step {status.step:,}{texts[status.training]}", _next_text(status)]
    if status.rays_per_sec:
        lines.append(f"{status.rays_per_sec:,.0f} training {batch}/s")
    if status.remark:
        lines.append(plain(status.remark))
    if status.words.part or status.initial != status.sizes:
        summary = table(("", "at first", "now"), status.summary)
    else:  # what grows was never of another size that counts
        summary = table(("", "now"), [(label, now) for label, _, now in status.summary])
    parts = ["  \n".join(lines), summary]
    event = status.last_event
    if event is not None:
        rule, score = status.rule or event.strategy, event.options.get("score")
        how = f"{rule} by {score}" if score and rule == event.strategy else rule
        parts.append(f"last event: step {event.step:,}, {plain(how)}")
        name, label = next(iter(status.labels.items()))
        rows = [(label, f"{event.before.costs[name]:,}", f"{event.after.costs[name]:,}")]
        if not status.words.part:  # few parts: those that the event changed
            rows = [(p, f"{n:,}", f"{event.after.parts[p]:,}") for p, n in event.before.parts.items()]
            rows = [(plain(status.places[p][0]), b, a) for p, b, a in rows if b != a]
        if event.metrics_after:  # which are measured a while after the rest
            before, after = (
                f"{m['psnr']:.2f}" if "psnr" in m else "" for m in (event.metrics_before, event.metrics_after)
            )
            rows.append(("PSNR, dB", before, after))
        if event.rays_per_sec_before:
            now = f"{status.rays_per_sec:,.0f}" if status.rays_per_sec else ""
            rows.append((f"train {batch}/s", f"{event.rays_per_sec_before:,.0f}", now))
        parts.append(table(("", "before it", "after it"), rows))
    return "\n\n".join(parts)


def layers_text(status: Status) -> str:
    """Table of the sizes of all parts, now and at first.

    Args:
        status: State of the run.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, size in status.sizes.parts.items():
        row, column = status.places[name]
        first = status.initial.parts[name]
        rows.setdefault(row, {})[column] = f"{size:,} of {first:,}" if size != first else f"{size:,}"
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    return table((status.words.part, *columns), [(plain(row), *map(cells.get, columns)) for row, cells in rows.items()])


def request_text(status: Status) -> str:
    """What waits, what is being done, and what came of the last request.

    Args:
        status: State of the run.
    """
    lines = []
    if status.busy:
        lines.append(f"⏳ {plain(status.busy)} …")
    elif status.waiting and status.training == "completed":
        lines.append(f"⚠️ {', '.join(status.waiting)}: not carried out, the training has ended")
    elif status.waiting:
        when = "at the next step (the training is paused)" if status.training == "paused" else "at the end of this step"
        lines.append(f"⏳ {', '.join(status.waiting)}: {plain(when)}")
    if status.message.text:
        lines.append(("⚠️ " if status.message.error else "") + plain(status.message.text))
    return "  \n".join(lines)


def obstacle_text(obstacles: Mapping[str, str]) -> str:
    """Why buttons cannot be pressed.

    Args:
        obstacles: Label of the button -> reason; empty if it can.
    """
    labels: dict[str, list[str]] = {}
    for label, reason in obstacles.items():
        if reason:
            labels.setdefault(reason, []).append(label)
    return "  \n".join(f"*{', '.join(found)}: {plain(reason)}*" for reason, found in labels.items())


def preview_text(preview: Preview, quality: Optional[tuple[float, float]]) -> str:
    """What a cut would leave.

    Args:
        preview: The preview.
        quality: PSNR without and with the cut, in dB.
    """
    if preview.after == preview.before:
        return f"At step {preview.step:,} nothing is left to remove for this target"
    rows = list(preview.summary)
    if quality is not None:
        rows.append(("PSNR, dB", f"{quality[0]:.2f}", f"{quality[1]:.2f}"))
    return table((f"step {preview.step:,}", "without", "with the cut"), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[Optional[str]]]) -> str:
    """Markdown table whose first column stands on the left."""
    lines = [header, [":--", *("--:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(cell or "" for cell in line) + " |" for line in lines)


def _next_text(status: Status) -> str:
    if status.next_event is None:
        return "no event is planned"
    text = f"next event: step {status.next_event.step:,}, to {plain(status.target)}"
    if status.next_event.progress < 1:
        text += f", {status.next_event.progress:.0%} of the way"
    return text + (" (schedule paused)" if status.paused else "")
