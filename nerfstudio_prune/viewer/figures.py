"""Plots of the panel. plotly is imported with this module only, when the first plot is asked for."""

from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.nerf.sizes import Sizes
from nerfstudio_prune.viewer.preview import Preview

BLUE, ORANGE, GREY = "#56b4e9", "#e69f00", "#8a8f98"
"""Told apart by colour-blind people too (Okabe and Ito)."""
PAPER_THRESHOLD = 0.05
"""Edge weights of a smaller absolute value are what Ding et al. 2025 (arXiv 2504.00950, figure 2) count."""


def weights_figure(weights: Mapping[str, Tensor]) -> go.Figure:
    """Distribution of the edge weights of both fields (Ding et al. 2025, arXiv 2504.00950, figure 2).

    Args:
        weights: Name of the layer -> weights.
    """
    figure = _figure("weight", "share of the weights, %")
    values = {
        field: np.concatenate([w.float().numpy().ravel() for name, w in weights.items() if name.startswith(field)])
        for field in ("field_coarse", "field_fine")
    }
    largest = max(float(np.quantile(np.abs(found), 0.998)) for found in values.values())
    edges = np.linspace(-max(largest, 2 * PAPER_THRESHOLD), max(largest, 2 * PAPER_THRESHOLD), 81)
    for (field, found), colour in zip(values.items(), (ORANGE, BLUE), strict=True):
        counts = np.histogram(found, edges)[0]
        below = 100 * float(np.mean(np.abs(found) < PAPER_THRESHOLD))
        name = f"{field.removeprefix('field_')}: {below:.0f} % within ±{PAPER_THRESHOLD:g}"
        middles = (edges[:-1] + edges[1:]) / 2
        figure.add_scatter(
            x=_list(middles), y=_list(100 * counts / len(found)), name=name, line={"color": colour, "shape": "hvh"}
        )
    for threshold in (-PAPER_THRESHOLD, PAPER_THRESHOLD):
        figure.add_vline(threshold, line={"color": GREY, "dash": "dot", "width": 1})
    return figure


def scores_figure(preview: Preview, layer: Optional[str]) -> go.Figure:
    """Sorted scores of the neurons, with the line up to which a cut would keep them.

    Args:
        preview: The cut.
        layer: Name of the group; None: all of the fine field, each relative to its largest score.
    """
    one = layer is not None
    figure = _figure(
        "neuron, by score" if one else "share of the layer's neurons, by score, %",
        f"score {preview.score_name}" if one else f"score {preview.score_name} / largest",
    )
    if not preview.scores:
        return _note(figure, "this strategy uses no score")
    names = [layer] if layer is not None else [name for name in preview.scores if name.startswith("field_fine.")]
    kept_x, kept_y = [], []
    for name in names:
        scores = np.sort(preview.scores[name].double().numpy())[::-1]
        scores = scores if one else scores / max(float(scores[0]), 1e-30)
        kept, count = preview.after.groups[name], len(scores)
        x = np.arange(1, count + 1) if one else 100 * np.arange(1, count + 1) / count
        figure.add_scatter(
            x=_list(x),
            y=_list(scores),
            name=name.partition(".")[2],
            mode="lines",
            line={"color": BLUE, "width": 1.5},
            opacity=1.0 if one else 0.55,
            showlegend=False,
        )
        kept_x.append(float(x[kept - 1]))
        kept_y.append(float(scores[kept - 1]))
        if one:
            figure.add_vline(
                kept + 0.5, line={"color": ORANGE, "dash": "dash"}, annotation_text=f"{kept} of {count} stay"
            )
    if not one:
        figure.add_scatter(
            x=kept_x, y=kept_y, mode="markers", name="last that stays", marker={"color": ORANGE, "size": 8}
        )
    return figure


def widths_figure(now: Sizes, first: Sizes) -> go.Figure:
    """Sizes of all layers, now and at first.

    Args:
        now: Present sizes.
        first: Sizes before the first event.
    """
    figure = _figure("neurons (or edges) of the layer", "")
    names = [name.replace("field_", "").replace("mlp_", "").replace("layers.", "") for name in now.groups]
    figure.add_bar(x=list(first.groups.values()), y=names, orientation="h", name="at first", marker={"color": GREY})
    figure.add_bar(x=list(now.groups.values()), y=names, orientation="h", name="now", marker={"color": BLUE})
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_yaxes(autorange="reversed", dtick=1, tickfont={"size": 9})
    return figure


def psnr_figure(course: Sequence[tuple[int, float]], history: Sequence[PruneEvent]) -> go.Figure:
    """PSNR over the training, with the events.

    Args:
        course: Training step and smoothed PSNR of its batch, in dB.
        history: Events that happened.
    """
    figure = _figure("training step", "PSNR, dB")
    done = [event for event in history if not event.error]
    measured = [event for event in done if "psnr" in event.metrics_after]
    if not course and not measured:
        return _note(figure, "no PSNR has been measured in this process")
    if course:
        figure.add_scatter(
            x=[step for step, _ in course], y=[v for _, v in course], name="training batches", line={"color": BLUE}
        )
    for event in done:
        figure.add_vline(event.step, line={"color": ORANGE, "dash": "dash", "width": 1})
    if measured:
        figure.add_scatter(
            x=[event.step for event in measured for _ in range(2)],
            y=[psnr for e in measured for psnr in (e.metrics_before["psnr"], e.metrics_after["psnr"])],
            mode="markers",
            name="right before and after, fixed rays",
            marker={"color": ORANGE, "size": 8, "symbol": ["circle-open", "circle"] * len(measured)},
        )
    return figure


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="plotly_dark",
        autosize=True,  # viser draws at first with no width, for which plotly would take 700 pixels
        paper_bgcolor="rgba(0,0,0,0)",
        margin={"l": 10, "r": 10, "t": 24, "b": 10},
        font={"size": 11},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0.0},
        xaxis={"title": {"text": x}, "automargin": True},
        yaxis={"title": {"text": y}, "automargin": True},
        showlegend=True,
    )
    return figure


def _note(figure: go.Figure, text: str) -> go.Figure:
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def _list(values: np.ndarray) -> list[float]:
    """Plain numbers: arrays would be sent in a binary form that viser's page need not know."""
    return [float(value) for value in values]
