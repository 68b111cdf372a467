"""Plots of the panel. plotly is imported with this module only, when the first plot is asked for."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent, Sizes
from nerfstudio_prune.core.subject import OF_NEURONS, Words
from nerfstudio_prune.viewer.preview import Preview

BLUE, ORANGE, GREEN, GREY = "#56b4e9", "#e69f00", "#009e73", "#8a8f98"
"""Told apart by colour-blind people too (Okabe and Ito)."""
_REVISIONS = itertools.count()
PAPER_THRESHOLD = 0.05
"""Weights of a smaller absolute value are what Ding et al. 2025 (arXiv 2504.00950, figure 2) count."""


MANY = 2000
"""Scores of more units are drawn thinned out, to be sent to a page, and on a logarithmic axis, for they span more."""


def weights_figure(weights: Mapping[str, Tensor], words: Words = OF_NEURONS) -> go.Figure:
    """Distribution of the weights of all networks (Ding et al. 2025, arXiv 2504.00950, figure 2).

    Args:
        weights: Name of the network -> weights.
        words: What they are called, and between what they lie if they have bounds.
    """
    if words.span is not None:
        return _histogram(weights, words.value, words.span)
    figure = _figure("weight", "share of the weights, %")
    values = {name: found.float().numpy() for name, found in weights.items()}
    largest = max(float(np.quantile(np.abs(found), 0.998)) for found in values.values())
    bins = np.linspace(-max(largest, 2 * PAPER_THRESHOLD), max(largest, 2 * PAPER_THRESHOLD), 81)
    for (network, found), colour in zip(values.items(), itertools.cycle((ORANGE, BLUE, GREEN)), strict=False):
        counts = np.histogram(found, bins)[0]
        below = 100 * float(np.mean(np.abs(found) < PAPER_THRESHOLD))
        name = f"{network}: {below:.0f} % within ±{PAPER_THRESHOLD:g}"
        middles = (bins[:-1] + bins[1:]) / 2
        figure.add_scatter(
            x=_list(middles), y=_list(100 * counts / len(found)), name=name, line={"color": colour, "shape": "hvh"}
        )
    for threshold in (-PAPER_THRESHOLD, PAPER_THRESHOLD):
        figure.add_vline(threshold, line={"color": GREY, "dash": "dot", "width": 1})
    return figure


def _histogram(values: Mapping[str, Tensor], name: str, span: tuple[float, float]) -> go.Figure:
    figure = _figure(name, "share, %")
    bins = np.linspace(*span, 51)
    for (column, found), colour in zip(values.items(), itertools.cycle((BLUE, ORANGE, GREEN)), strict=False):
        counts = np.histogram(found.float().numpy(), bins)[0]
        figure.add_bar(
            x=_list((bins[:-1] + bins[1:]) / 2),
            y=_list(100 * counts / max(len(found), 1)),
            name=f"{column}, {len(found):,} values",
            marker={"color": colour},
        )
    figure.update_layout(bargap=0)
    return figure


def scores_figure(preview: Preview, parts: Sequence[str], member: str = "neuron") -> go.Figure:
    """Sorted scores of the units, with the line up to which a cut would keep them.

    Args:
        preview: The cut.
        parts: Names of the parts; of several, each is shown relative to its largest score.
        member: What one unit of a part is called.
    """
    one = len(parts) == 1
    figure = _figure(
        f"{member}, by score" if one else f"layer's {member}s, by score, %",
        f"score {preview.score_name}" if one else f"score {preview.score_name} / largest",
    )
    if not preview.scores:
        return _note(figure, "this strategy uses no score")
    kept_x, kept_y = [], []
    for name in parts:
        scores = np.sort(preview.scores[name].double().numpy())[::-1]
        scores = scores if one else scores / max(float(scores[0]), 1e-30)
        kept, count = preview.after.parts[name], len(scores)
        x = np.arange(1, count + 1) if one else 100 * np.arange(1, count + 1) / count
        drawn = np.arange(count) if count <= MANY else np.linspace(0, count - 1, MANY).astype(int)
        if count > MANY:
            figure.update_yaxes(type="log", exponentformat="power")
        figure.add_scatter(
            x=_list(x[drawn]),
            y=_list(scores[drawn]),
            name=name,
            mode="lines",
            line={"color": BLUE, "width": 1.5},
            opacity=1.0 if one else 0.55,
            showlegend=False,
        )
        kept_x.append(float(x[kept - 1]))
        kept_y.append(float(scores[kept - 1]))
        if one:
            figure.add_vline(
                kept + 0.5, line={"color": ORANGE, "dash": "dash"}, annotation_text=f"{kept:,} of {count:,} stay"
            )
    if not one:
        figure.add_scatter(
            x=kept_x, y=kept_y, mode="markers", name="last that stays", marker={"color": ORANGE, "size": 8}
        )
    return figure


def sizes_figure(now: Sizes, first: Sizes, unit: str, names: Sequence[str]) -> go.Figure:
    """Sizes of all parts, now and at first.

    Args:
        now: Present sizes.
        first: Sizes before the first event.
        unit: What they are called.
        names: What the parts are called, in the order of the sizes.
    """
    figure = _figure(unit, "")
    for sizes, label, colour in ((first, "at first", GREY), (now, "now", BLUE)):
        figure.add_bar(
            x=list(sizes.parts.values()), y=list(names), orientation="h", name=label, marker={"color": colour}
        )
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_yaxes(autorange="reversed", dtick=1, tickfont={"size": 9})
    return figure


def counts_figure(counts: Sequence[tuple[int, int]], label: str) -> go.Figure:
    """How many units there were over the training.

    Args:
        counts: Training step, and how many there have been since then.
        label: What they are called.
    """
    figure = _figure("training step", label)
    if not counts:
        return _note(figure, "nothing was counted yet")
    figure.add_scatter(
        x=[step for step, _ in counts],
        y=[count for _, count in counts],
        name=f"{label} since the panel was opened",
        mode="lines",
        line={"color": BLUE, "shape": "hv"},
    )
    figure.update_yaxes(rangemode="tozero")
    return figure


def psnr_figure(
    course: Sequence[tuple[int, float]], history: Sequence[PruneEvent], measured: str = "fixed rays"
) -> go.Figure:
    """PSNR over the training, with the events.

    Args:
        course: Training step and smoothed PSNR of its batch, in dB.
        history: Events that happened.
        measured: What the PSNR right before and after an event is measured on.
    """
    figure = _figure("training step", "PSNR, dB")
    done = [event for event in history if not event.error]
    known = [event for event in done if "psnr" in event.metrics_before and "psnr" in event.metrics_after]
    if not course and not known:
        return _note(figure, "no PSNR has been measured in this process")
    if course:
        figure.add_scatter(
            x=[step for step, _ in course], y=[v for _, v in course], name="training batches", line={"color": BLUE}
        )
    for event in done:
        figure.add_vline(event.step, line={"color": ORANGE, "dash": "dash", "width": 1})
    if known:
        figure.add_scatter(
            x=[event.step for event in known for _ in range(2)],
            y=[psnr for e in known for psnr in (e.metrics_before["psnr"], e.metrics_after["psnr"])],
            mode="markers",
            name=f"right before and after, {measured}",
            marker={"color": ORANGE, "size": 8, "symbol": ["circle-open", "circle"] * len(known)},
        )
    return figure


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    # viser draws all plots into one element and keeps what that knows of its axes while their revision is the same.
    axis = {"automargin": True, "uirevision": next(_REVISIONS)}
    figure.update_layout(
        template="plotly_dark",
        autosize=True,  # viser draws at first with no width, for which plotly would take 700 pixels
        paper_bgcolor="rgba(0,0,0,0)",
        margin={"l": 10, "r": 10, "t": 24, "b": 10},
        font={"size": 11},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0.0},
        xaxis={"title": {"text": x}, **axis},
        yaxis={"title": {"text": y}, **axis},
        showlegend=True,
    )
    return figure


def _note(figure: go.Figure, text: str) -> go.Figure:
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def _list(values: np.ndarray) -> list[float]:
    """Plain numbers: arrays would be sent in a binary form that viser's page need not know."""
    return [float(value) for value in values]
