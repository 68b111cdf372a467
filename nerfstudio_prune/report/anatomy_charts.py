"""Plots of what is inside a network: its weights and the scores of its neurons."""

import math
from typing import Optional

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from nerfstudio_prune.records.schema import RunRecord
from nerfstudio_prune.report.markup import code
from nerfstudio_prune.report.plots import NEUTRAL, WIDTH, colour, horizontal_grid
from nerfstudio_prune.report.stats import number
from nerfstudio_prune.report.study import Study


def _described(study: Study) -> Optional[RunRecord]:
    """The dense network whose weights are shown: that at the cut, else any that has them."""
    arms = [*study.find("start"), *study.arms]
    return next((run for arm in arms for run in arm.runs if run.anatomy is not None), None)


def weights(study: Study) -> Optional[tuple[Figure, str, str]]:
    run = _described(study)
    if run is None or run.anatomy is None or sum(run.anatomy.histogram_counts) == 0:
        return None
    bounds, counts = run.anatomy.histogram_edges, run.anatomy.histogram_counts
    total = sum(counts)
    figure = Figure(figsize=(WIDTH, 3.0))
    axes = figure.subplots()
    axes.stairs([100 * count / total for count in counts], bounds, fill=True, color=colour(0), alpha=0.75)
    limit = next(bound for i, bound in enumerate(bounds[1:], 1) if sum(counts[:i]) >= 0.998 * total)
    axes.set_xlim(0, max(limit, 0.11))
    shares = []
    for threshold, line in ((0.05, (0, (4, 3))), (0.1, (0, (1, 2)))):
        share = 100 * share_below(bounds, counts, threshold)
        axes.axvline(
            threshold, color=NEUTRAL, linewidth=1.2, linestyle=line, label=f"{threshold:g}: {share:.0f} % below"
        )
        shares.append(f"{share:.0f} % are below {threshold:g}")
    axes.set_xlabel("absolute value of a weight")
    axes.set_ylabel("% of the weights")
    axes.legend(loc="upper right")
    horizontal_grid(axes)
    caption = (
        f"Weights of the hidden layers of the fine field, {code(run.name)} ({number(total)} weights, one seed); "
        f"{' and '.join(shares)}. The paper's network: 60 % below 0.05."
    )
    return figure, "Histogram of the absolute values of the weights", caption


def share_below(bounds: list[float], counts: list[int], threshold: float) -> float:
    """Share of the values below a threshold; values are taken as spread evenly within their bin."""
    below = 0.0
    for low, high, count in zip(bounds, bounds[1:], counts, strict=False):
        below += (
            count * min(max((threshold - low) / (high - low), 0.0), 1.0) if high > low else count * (low < threshold)
        )
    return below / max(sum(counts), 1)


def scores(study: Study) -> Optional[tuple[Figure, str, str]]:
    run = _described(study)
    if run is None or run.anatomy is None or not run.anatomy.score_quantiles:
        return None
    quantiles = run.anatomy.score_quantiles
    columns = min(2, len(quantiles))
    rows = math.ceil(len(quantiles) / columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.3 * rows))
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (score, layers) in zip(panels, quantiles.items(), strict=False):
        fine = {name: values for name, values in layers.items() if name.startswith("field_fine.")} or layers
        positive = [value for values in fine.values() for value in values if value > 0]
        for x, values in enumerate(fine.values()):
            low, q1, middle, q3, high = (max(v, min(positive, default=1.0)) for v in _five(values))
            axes.plot([x, x], [low, high], color=colour(0), linewidth=1)
            axes.plot([x, x], [q1, q3], color=colour(0), linewidth=7, alpha=0.55, solid_capstyle="butt")
            axes.plot([x], [middle], color=NEUTRAL, marker="_", markersize=8, markeredgewidth=1.6)
        axes.set_yscale("log" if positive else "linear")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(range(len(fine)), [_short_layer(name) for name in fine], rotation=40, ha="right", fontsize=7)
        axes.set_title(score, loc="left")
        horizontal_grid(axes)
    for axes in panels[len(quantiles) :]:
        axes.set_visible(False)
    figure.subplots_adjust(hspace=0.5, wspace=0.2)
    caption = (
        f"Scores of the neurons of each layer of the fine field, {code(run.name)} (one seed): median, quartiles (box) "
        "and range (line), on a logarithmic axis; no unit."
    )
    return figure, "Scores of the neurons by layer", caption


def _five(values: list[float]) -> list[float]:
    last = len(values) - 1
    return [values[round(last * level)] for level in (0, 0.25, 0.5, 0.75, 1)]


def _short_layer(name: str) -> str:
    short_name = (
        name.removeprefix("field_fine.").replace("mlp_base.layers.", "trunk ").replace("mlp_head.layers.", "head ")
    )
    return short_name
