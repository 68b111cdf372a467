"""The plots of a report: the one it opens with, quality against size and time, recovery, speed."""

import math
from collections.abc import Callable, Iterator
from statistics import fmean, median, stdev
from typing import Any, Optional

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nerfstudio_prune.records.schema import CurvePoint
from nerfstudio_prune.report.anatomy_charts import scores, weights
from nerfstudio_prune.report.headline import Headline, share_left
from nerfstudio_prune.report.markup import escape
from nerfstudio_prune.report.plots import NEUTRAL, WIDTH, Plot, colour, horizontal_grid, marker, short, style, to_svg
from nerfstudio_prune.report.stats import TIMES, number
from nerfstudio_prune.report.study import SIZED_ROLES, Arm, Study, psnr
from nerfstudio_prune.report.tables import mac_factor, sizes_of, speed_factors

FRONT_SIZE = (6.6, 4.6)
"""Inches; narrower than the others, and with larger letters: it can be read on a phone without scrolling."""
FRONT_FONT = 10.5
DODGE = 1.055
"""Factor between two points of one size on the logarithmic axis, so that they do not hide each other."""


Drawn = tuple[Figure, str, str]
"""A figure, what it shows for those who cannot see it, and its caption."""


def charts(study: Study) -> dict[str, Plot]:
    """All plots that the records of a study allow, by kind."""
    makers: dict[str, Callable[[Study], Optional[Drawn]]] = {
        "frontier": _frontier,
        "recovery": _recovery,
        "time": _time_to_quality,
        "weights": weights,
        "scores": scores,
        "speed": _speed,
    }
    made = {kind: _plot(f"{kind}-{study.slug}", maker, study) for kind, maker in makers.items()}
    return {kind: plot for kind, plot in made.items() if plot is not None}


def front_chart(headline: Headline) -> Optional[Plot]:
    """The figure that a report opens with: quality over training time; None where times cannot be compared."""
    return _plot("front", _front, headline)


def _plot(name: str, maker: Callable[[Any], Optional[Drawn]], subject: Any) -> Optional[Plot]:
    with style(name):
        made = maker(subject)
        if made is None:
            return None
        figure, alt, caption = made
        return Plot(name, alt, caption, to_svg(figure))


def _front(headline: Headline) -> Optional[Drawn]:
    study, dense = headline.study, headline.dense
    arms = [arm for arm in headline.arms if len(arm.first.curve) > 1 and study.time_share(arm).n == arm.n]
    if dense not in arms or headline.arm not in arms:
        return None
    figure = Figure(figsize=FRONT_SIZE)
    axes = figure.subplots()
    for i, arm in enumerate(arms):
        # The network of the sentences in the first colour.
        shade = NEUTRAL if arm is dense else colour(0 if arm is headline.arm else i + 1)
        _curve(axes, arm, shade, "-", label=f"{arm.short_name}: {share_left(headline, arm)} of parameters")
        end = [fmean(values) for values in zip(*[(p.train_seconds, p.psnr) for p in _ends(arm)], strict=True)]
        axes.plot(*[[value] for value in end], color=shade, marker="*" if arm is dense else "o", linestyle="none")
        if arm is headline.arm and (gain := study.delta_at_equal_time(arm)).mean is not None:
            seconds, top = end
            arrow = {"arrowstyle": "-", "color": NEUTRAL, "linestyle": (0, (2, 2)), "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (seconds, top - gain.mean), (seconds, top), arrowprops=arrow)
            words = f"{number(gain.mean, 2, signed=True)} dB"
            axes.annotate(words, (seconds, top), (8, 0), textcoords="offset points", va="center", fontsize=FRONT_FONT)
    axes.set_ylim(bottom=_floor(arms))
    axes.set_xlabel("training time, s", fontsize=FRONT_FONT)
    axes.set_ylabel("PSNR, dB", fontsize=FRONT_FONT)
    axes.tick_params(labelsize=FRONT_FONT)
    axes.legend(loc="lower right", fontsize=FRONT_FONT)
    caption = (
        f"PSNR on {number(dense.first.curve_rays)} held-out rays over seconds of training without evaluation, mean "
        f"over seeds at equal steps ({_n(arms)}), band: ± standard deviation; dashed: the distance to "
        f"the dense network at equal time. {escape(study.title)}."
    )
    return figure, "PSNR over training seconds of the dense, the small and the pruned networks", caption


def _ends(arm: Arm) -> list[CurvePoint]:
    return [run.curve[-1] for run in arm.runs]


def _n(arms: list[Arm]) -> str:
    counts = sorted({arm.n for arm in arms})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _looks(arms: list[Arm]) -> dict[str, int]:
    """Index of colour and marker for every label, the same in all plots of a study."""
    return {label: i for i, label in enumerate(dict.fromkeys(arm.label for arm in arms if arm.first.role != "dense"))}


def _shown(study: Study) -> list[Arm]:
    return [arm for arm in study.arms if arm.first.role in SIZED_ROLES]


def _frontier(study: Study) -> Optional[Drawn]:
    arms = _shown(study)
    if not any(arm.inherits for arm in arms):
        return None
    looks = _looks(arms)
    figure = Figure(figsize=(WIDTH, 5.0))
    panels = figure.subplots(1, 2, sharey=True)
    sizes: list[tuple[str, Callable[[Arm], int]]] = [
        ("parameters, both fields", lambda arm: sizes_of(arm).parameters),
        ("multiply-accumulates per ray", lambda arm: sizes_of(arm).macs_per_ray),
    ]
    for axes, (title, size) in zip(panels, sizes, strict=True):
        for arm, x in _dodged(arms, size):
            mean, std = arm.psnr.mean, arm.psnr.std
            dense = arm.first.role == "dense"
            index = looks.get(arm.label, 0)
            axes.errorbar(
                [x],
                [mean],
                yerr=None if std is None else [std],
                color=NEUTRAL if dense else colour(index),
                marker="*" if dense else marker(index),
                markersize=11 if dense else 6,
                linestyle="none",
                elinewidth=1.2,
                capsize=2,
                label=arm.label,
            )
            if dense:
                axes.axhline(mean, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 4)), alpha=0.6)
        _size_axis(axes, sorted({size(arm) for arm in arms}), title)
    panels[0].set_ylabel("PSNR at the end, dB")
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.subplots_adjust(bottom=0.27, wspace=0.06)
    figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.17), ncols=4)
    caption = (
        f"PSNR at the end against size, mean ± standard deviation over seeds ({_n(arms)}); dashed: dense. Points of "
        "equal size are set side by side. Masked networks have the size of their tensors. Edges are left out: their "
        "tensors keep their size."
    )
    return figure, "PSNR against parameters and multiply-accumulates", caption


def _dodged(arms: list[Arm], size: Callable[[Arm], int]) -> Iterator[tuple[Arm, float]]:
    for value in sorted({size(arm) for arm in arms}):
        same = [arm for arm in arms if size(arm) == value]
        for i, arm in enumerate(same):
            yield arm, value * DODGE ** (i - (len(same) - 1) / 2)


def _size_axis(axes: Axes, values: list[int], title: str) -> None:
    ticks: list[int] = []
    for value in values:
        if not ticks or value > 1.35 * ticks[-1]:
            ticks.append(value)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [short(value) for value in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(values[0] / 1.5, values[-1] * 1.5)
    axes.set_xlabel(title)


def _recovery(study: Study) -> Optional[Drawn]:
    arms = [arm for arm in study.arms if arm.at("right after", psnr).mean is not None]
    if not arms:
        return None
    # Arms of different ratios stand apart.
    positions, y = [], 0.0
    for i, arm in enumerate(arms):
        y += 0.5 if i and arm.first.pruning_ratio != arms[i - 1].first.pruning_ratio else 0.0
        positions.append(y)
        y += 1.0
    figure = Figure(figsize=(WIDTH, 0.9 + 0.44 * y))
    axes = figure.subplots()
    stages = [("before", NEUTRAL, 0.35), ("right after", colour(1), 1.0), ("end", colour(0), 1.0)]
    for k, (stage, shade, alpha) in enumerate(stages):
        stats = [arm.at(stage, psnr) for arm in arms]
        heights = [stat.mean if stat.mean is not None else math.nan for stat in stats]
        errors = [stat.std or 0.0 for stat in stats]
        label = {"before": "before the cut", "end": "end of training"}.get(stage, stage)
        at = [position + (k - 1) * 0.27 for position in positions]
        axes.barh(at, heights, height=0.25, color=shade, alpha=alpha, label=label)
        axes.errorbar(heights, at, xerr=errors, fmt="none", ecolor=NEUTRAL, elinewidth=0.8)
        for height, error, place in zip(heights, errors, at, strict=True):
            if not math.isnan(height):
                axes.annotate(
                    number(height, 2),
                    (max(height, 0) + error, place),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=6.5,
                )
    axes.set_yticks(positions, [arm.name for arm in arms])
    axes.set_ylim(y - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("PSNR, dB")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    caption = f"PSNR before the cut, right after it and at the end, mean ± standard deviation over seeds ({_n(arms)})."
    return figure, "PSNR before, right after and at the end, by arm", caption


def _time_to_quality(study: Study) -> Optional[Drawn]:
    dense = study.dense
    arms = [arm for arm in _shown(study) if arm.first.role != "dense" and len(arm.first.curve) > 1]
    if dense is None or len(dense.first.curve) < 2 or not arms:
        return None
    looks = _looks(_shown(study))
    labels = list(dict.fromkeys(arm.label for arm in arms))
    columns = min(3, len(labels))
    rows = math.ceil(len(labels) / columns)
    figure = Figure(figsize=(WIDTH, 0.7 + 1.9 * rows))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    ratios = study.ratios
    styles = ["-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5))]
    for axes, label in zip(panels, labels, strict=False):
        _curve(axes, dense, NEUTRAL, "-")
        for arm in arms:
            if arm.label == label and arm.first.pruning_ratio in ratios:
                ratio = arm.first.pruning_ratio
                line = styles[ratios.index(ratio) % len(styles)]
                _curve(axes, arm, colour(looks[label]), line)
        axes.set_title(label, loc="left")
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    for i, axes in enumerate(panels[: len(labels)]):
        if i + columns >= len(labels):
            axes.set_xlabel("training time, s")
            axes.tick_params(labelbottom=True)
        if i % columns == 0:
            axes.set_ylabel("PSNR, dB")
    # Not before all curves are there: the axes are shared, and a limit ends their adjustment.
    panels[0].set_ylim(bottom=_floor([dense, *arms]))
    figure.subplots_adjust(hspace=0.32, wspace=0.08)
    # The colour of a panel is named by its title: the legend tells the lines apart.
    handles = [Line2D([], [], color=NEUTRAL, linestyle="-", label="dense")]
    for ratio in sorted({arm.first.pruning_ratio for arm in arms if arm.first.pruning_ratio is not None}):
        line = styles[ratios.index(ratio) % len(styles)]
        handles.append(
            Line2D([], [], color=colour(0), linestyle=line, label=f"pruning ratio {ratio:g} (panel's colour)")
        )
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.88 + 0.24 / figure.get_figheight()),
        ncols=4,
        handlelength=3,
    )
    caption = (
        f"Time to quality: PSNR on {number(dense.first.curve_rays)} held-out rays over training seconds without "
        f"evaluation, on {escape(study.device)}; mean over seeds at equal steps ({_n([dense, *arms])}), band: ± "
        "standard deviation. The drop is the cut."
    )
    return figure, "PSNR over training seconds, dense and pruned", caption


def _floor(arms: list[Arm]) -> float:
    """Lower end of the axis: the very first points of a training would press all others together."""
    values = [point.psnr for arm in arms for run in arm.runs for point in run.curve[len(run.curve) // 20 + 1 :]]
    return math.floor(min(values, default=0.0))


def _curve(axes: Axes, arm: Arm, shade: str, line: Any, label: Optional[str] = None) -> None:
    by_step: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for run in arm.runs:
        seen: dict[int, int] = {}
        for point in run.curve:
            # A step may be there twice: before and after the cut.
            seen[point.step] = seen.get(point.step, 0) + 1
            by_step.setdefault((point.step, seen[point.step]), []).append((point.train_seconds, point.psnr))
    points = [values for _, values in sorted(by_step.items()) if len(values) == arm.n]
    seconds = [fmean(s for s, _ in values) for values in points]
    means = [fmean(p for _, p in values) for values in points]
    spreads = [stdev(p for _, p in values) if len(values) > 1 else 0.0 for values in points]
    axes.plot(seconds, means, color=shade, linestyle=line, linewidth=1.4, label=label)
    if arm.n > 1:
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(seconds, low, high, color=shade, alpha=0.18, linewidth=0)


def _speed(study: Study) -> Optional[Drawn]:
    if not study.speeds:
        return None
    names = ["fewer MACs", *speed_factors(study.speeds[0])]
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = figure.subplots()
    for k, name in enumerate(names):
        values = [[mac_factor(record)] if k == 0 else speed_factors(record)[name] for record in study.speeds]
        at = [x + (k - (len(names) - 1) / 2) * 0.2 for x in range(len(values))]
        medians = [median(v) if v else math.nan for v in values]
        axes.bar(
            at, medians, width=0.18, color=NEUTRAL if k == 0 else colour(k - 1), alpha=0.4 if k == 0 else 1, label=name
        )
        for x, block, middle in zip(at, values, medians, strict=True):
            if not block:
                continue
            if len(block) > 1:
                axes.plot([x, x], [min(block), max(block)], color=NEUTRAL, linewidth=1)
            axes.annotate(
                f"{middle:.2f}{TIMES}", (x, max(block)), (0, 3), textcoords="offset points", ha="center", fontsize=7
            )
    axes.axhline(1, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xticks(range(len(study.speeds)), [f"pruning ratio {record.pruning_ratio:g}" for record in study.speeds])
    axes.set_ylabel("times better than dense")
    axes.margins(y=0.12)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    horizontal_grid(axes)
    blocks = sorted({len(record.pruned.train_step_seconds) for record in study.speeds})
    caption = (
        f"Dense against pruned, measured in turns on {escape(study.device)}: median and range of the ratios of "
        f"neighbouring blocks (n = {', '.join(map(str, blocks))} blocks)."
    )
    return figure, "Speed-up beside the ratio of multiply-accumulates", caption
