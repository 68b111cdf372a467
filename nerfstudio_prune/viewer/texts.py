"""What the panel says, as Markdown. viser compiles it as MDX: braces and angle brackets must be escaped."""

import re
from collections.abc import Mapping
from typing import Optional

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.method.steering import RequestName
from nerfstudio_prune.viewer.preview import Preview
from nerfstudio_prune.viewer.session import Status

BYTES = 4
"""Of a weight in fp32."""


def plain(text: str) -> str:
    """Escapes what Markdown and MDX would take for markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$-])", r"\\\1", text).replace("\n", " ")


def state_text(status: Status) -> str:
    """Phase, step, next event, sizes, speed and quality.

    Args:
        status: State of the run.
    """
    now, first = status.sizes, status.initial
    lines = [f"**{status.phase}**, step {status.step:,}" + _training_text(status), _next_text(status)]
    edges = " living" if status.strategy == "edge" else ""
    lines.append(f"{now.parameters:,} of {first.parameters:,}{edges} parameters ({_share(now, first, 'parameters')})")
    lines.append(f"{now.macs_per_ray:,} MACs per ray ({_share(now, first, 'macs_per_ray')})")
    lines.append(f"{BYTES * now.parameters / 1e6:.2f} of {BYTES * first.parameters / 1e6:.2f} MB in fp32")
    event = status.last_event
    if status.rays_per_sec:
        speed = f"{status.rays_per_sec:,.0f} training rays/s"
        if event is not None and event.rays_per_sec_before:
            speed += f" ({event.rays_per_sec_before:,.0f} before the last event)"
        lines.append(speed)
    if event is not None:
        lines.append(event_line(event))
    return "  \n".join(lines)


def event_line(event: PruneEvent) -> str:
    """The last event and what it did to the quality."""
    how = f" by {event.options['score']}" if event.options.get("score") else ""
    text = f"last event: step {event.step:,}, {plain(event.strategy + how)}"
    if "psnr" in event.metrics_before:
        text += f", PSNR {event.metrics_before['psnr']:.2f} → {event.metrics_after['psnr']:.2f} dB"
    return text


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
    lines = [
        "| layer | " + " | ".join(field.removeprefix("field_") for field in fields) + " |",
        "| :-- |" + " --: |" * len(fields),
    ]
    lines += [f"| {plain(name)} | " + " | ".join(row.get(f, "") for f in fields) + " |" for name, row in rows.items()]
    return "\n".join(lines)


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
    before, after = preview.before, preview.after
    lines = [
        f"At step {preview.step:,} this cut would leave",
        f"{after.parameters:,} of {before.parameters:,} parameters ({_share(after, before, 'parameters')})",
        f"{after.macs_per_ray:,} MACs per ray ({_share(after, before, 'macs_per_ray')})",
    ]
    if after == before:
        lines = [f"At step {preview.step:,} nothing is left to remove for this target"]
    elif quality is not None:
        lines.append(f"PSNR {quality[0]:.2f} → {quality[1]:.2f} dB right after it")
    return "  \n".join(lines)


def _share(now: object, first: object, name: str) -> str:
    return f"{100 * getattr(now, name) / max(1, getattr(first, name)):.0f} %"


def _training_text(status: Status) -> str:
    texts = {"training": "", "paused": ", paused", "completed": ", training has ended", "none": ", not in training"}
    return texts[status.training]


def _next_text(status: Status) -> str:
    if status.next_event is None:
        return "no event is planned"
    text = f"next event: after step {status.next_event.step:,}"
    widths = sorted(set(status.next_event.targets.values()), reverse=True)
    if widths:
        text += f", to widths {', '.join(map(str, widths[:4]))}" + (", …" if len(widths) > 4 else "")
    else:
        text += f", {status.next_event.progress:.0%} of the way to the target"
    return text + (" (schedule paused)" if status.paused else "")
