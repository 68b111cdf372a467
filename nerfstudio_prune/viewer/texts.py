"""What the panel says, as Markdown. viser compiles it as MDX: braces and angle brackets must be escaped."""

import re
from collections.abc import Mapping, Sequence
from typing import Optional

from nerfstudio_prune.method.allocation import BYTES
from nerfstudio_prune.method.sizes import Sizes
from nerfstudio_prune.method.steering import RequestName
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
    now, first, event = status.sizes, status.initial, status.last_event
    rows = _size_rows(first, now, "living edges" if status.strategy == "edge" else "parameters")
    if status.rays_per_sec:
        before = "" if event is None or not event.rays_per_sec_before else f"{event.rays_per_sec_before:,.0f}"
        rows.append(("train rays/s", before, f"{status.rays_per_sec:,.0f}"))
    if event is not None and "psnr" in event.metrics_before:
        rows.append(("PSNR at the cut", f"{event.metrics_before['psnr']:.2f}", f"{event.metrics_after['psnr']:.2f}"))
    texts = {"training": "", "paused": ", paused", "completed": ", training has ended", "none": ", not in training"}
    lines = [f"**{status.phase}**, step {status.step:,}{texts[status.training]}", _next_text(status)]
    text = "  \n".join(lines) + "\n\n" + _table(("", "before", "now"), rows)
    if event is None:
        return text
    how = f" by {event.options['score']}" if event.options.get("score") else ""
    last = f"last event: step {event.step:,}, {event.strategy}{how}. Before: sizes at first, others at it"
    return f"{text}\n\n*{plain(last)}*"


def layers_text(status: Status) -> str:
    """Table of the widths, or living edges, of both fields, now and at first.

    Args:
        status: State of the run.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, size in status.sizes.groups.items():
        field, _, layer = name.partition(".")
        first = status.initial.groups[name]
        rows.setdefault(layer, {})[field] = f"{size:,} of {first:,}" if size != first else f"{size:,}"
    fields = list(dict.fromkeys(field for row in rows.values() for field in row))
    header = ("layer", *(field.removeprefix("field_") for field in fields))
    return _table(header, [(plain(name.replace(".layers.", " ")), *map(row.get, fields)) for name, row in rows.items()])


def request_text(status: Status, obstacles: Mapping[RequestName, str]) -> str:
    """What happens with requests: what waits, what is being done, what came of the last one, what cannot be asked.

    Args:
        status: State of the run.
        obstacles: Request -> why it cannot be made; empty if it can.
    """
    lines = []
    if status.busy:
        lines.append(f"⏳ {plain(status.busy)} …")
    elif status.waiting:
        when = "at the next step (the training is paused)" if status.training == "paused" else "at the end of this step"
        lines.append(f"⏳ {', '.join(status.waiting)}: {plain(when)}")
    if status.message.text:
        lines.append(("⚠️ " if status.message.error else "") + plain(status.message.text))
    reasons: dict[str, list[str]] = {}
    for name, reason in obstacles.items():
        if reason:
            reasons.setdefault(reason, []).append(name)
    lines += [f"*{', '.join(names)}: {plain(reason)}*" for reason, names in reasons.items()]
    return "  \n".join(lines)


def preview_text(preview: Preview, quality: Optional[tuple[float, float]]) -> str:
    """What a cut would leave.

    Args:
        preview: The preview.
        quality: PSNR without and with the cut, in dB.
    """
    if preview.after == preview.before:
        return f"At step {preview.step:,} nothing is left to remove for this target"
    rows = _size_rows(preview.before, preview.after, "parameters")
    if quality is not None:
        rows.append(("PSNR, dB", f"{quality[0]:.2f}", f"{quality[1]:.2f}"))
    return _table((f"step {preview.step:,}", "without", "with the cut"), rows)


def _size_rows(first: Sizes, now: Sizes, counted: str) -> list[tuple[str, str, str]]:
    return [
        (counted, f"{first.parameters:,}", f"{now.parameters:,}"),
        ("MACs per ray", f"{first.macs_per_ray / 1e6:,.2f} M", f"{now.macs_per_ray / 1e6:,.2f} M"),
        ("MB in fp32", f"{BYTES * first.parameters / 1e6:.2f}", f"{BYTES * now.parameters / 1e6:.2f}"),
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[Optional[str]]]) -> str:
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
