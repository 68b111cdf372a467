"""Plots of what networks cost."""

from collections.abc import Sequence
from typing import Optional

from matplotlib.figure import Figure

from nerfstudio_prune.records.cost_schema import Axis, CostRecord, ScalingRecord
from nerfstudio_prune.report.cost_study import ABSCISSAE, Line, along
from nerfstudio_prune.report.markup import escape
from nerfstudio_prune.report.plots import NEUTRAL, WIDTH, Plot, colour, style, to_svg


def cost_charts(records: Sequence[CostRecord]) -> list[Plot]:
    """Plots that the records allow.

    Args:
        records: All records of costs.
    """
    scalings = [record for record in records if isinstance(record, ScalingRecord)]
    plots = [_scaling(f"scaling-{i}", record) for i, record in enumerate(scalings, 1)]
    return [plot for plot in plots if plot is not None]


def _scaling(name: str, record: ScalingRecord) -> Optional[Plot]:
    """Times and their straight lines, a panel for what was varied."""
    drawn: list[tuple[str, Axis, list[float], list[float], Optional[Line]]] = [
        (label, axis, *along(points, axis))
        for label, points in (("step", record.steps), ("frame", record.frames))
        for axis in ABSCISSAE
        if any(point.axis == axis for point in points)
    ]
    if not drawn:
        return None
    with style(name):
        count = -(-len(drawn) // 2)
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        panels = figure.subplots(2, count, squeeze=False).flatten()
        for panel, (label, axis, places, seconds, line) in zip(panels, drawn, strict=False):
            panel.plot(places, [1e3 * value for value in seconds], "o", color=colour(0 if label == "step" else 1))
            if line is not None:
                ends = [0.0, max(places)]
                panel.plot(ends, [1e3 * (line.constant + line.slope * x) for x in ends], color=NEUTRAL, linewidth=1)
            unit = ABSCISSAE[axis].unit if axis == "width" else ABSCISSAE[axis].title
            panel.set(title=f"{label}, by {axis}", xlabel=unit, ylabel="ms")
        for panel in panels[len(drawn) :]:
            panel.set_visible(False)
        caption = (
            "Medians of blocks, and straight lines of least squares, drawn from 0. "
            f"{escape(record.scene)}, scale {escape(record.scale)}, {escape(record.machine.key)}."
        )
        return Plot(name, "Time of a step and of a frame by width, samples, rays and pixels", caption, to_svg(figure))
