"""The plot of everything: quality against the size of a file, the time of a picture and that of the training."""

from collections.abc import Callable, Iterable, Sequence
from math import inf

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nerfstudio_prune.report.file_study import FileStudy
from nerfstudio_prune.report.frontier_study import FilePoint, FrontierRow, FrontierStudy
from nerfstudio_prune.report.markup import escape
from nerfstudio_prune.report.plots import WIDTH, Plot, colour, marker, short, style, to_svg
from nerfstudio_prune.report.stats import Stat


def frontier_charts(studies: Sequence[FrontierStudy], files: Sequence[FileStudy]) -> list[Plot]:
    """A plot for each study.

    Args:
        studies: All runs beside each other.
        files: Files of all kinds.
    """
    return [_everything(f"frontier-all-{i}", study, files) for i, study in enumerate(studies, 1)]


def _everything(name: str, study: FrontierStudy, files: Sequence[FileStudy]) -> Plot:
    with style(name):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        sizes, frames, trainings = figure.subplots(1, 3, sharey=True)
        rows = [row for row in study.rows() if row.psnr.mean is not None]
        points = list(study.files(files))
        for i, row in enumerate(rows):
            own = sent(point for point in points if point.row.label == row.label)
            if own:
                sizes.plot(*zip(*own, strict=True), color=colour(i), linestyle=":", marker=marker(i), markersize=4)
            else:
                _point(sizes, row.stat(lambda arm: arm.plain_bytes), row, i, filled=False)
            _point(frames, row.frame, row, i)
            _point(trainings, row.train, row, i)
        _axis(sizes, "bytes of the file", lambda value: f"{short(value)}B".replace("kB", " kB").replace("MB", " MB"))
        _axis(frames, "time of a picture", lambda value: f"{value:g} s" if value >= 1 else f"{1e3 * value:g} ms")
        _axis(trainings, "time of the training", lambda value: f"{value:,.0f} s")
        sizes.set_ylabel("PSNR, dB")
        handles, labels = frames.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        caption = (
            "PSNR on test views against the bytes of a file as it is sent (dotted: the largest one of a run, as it was "
            "trained, and those that no smaller one shows as well; hollow: all numbers as float32, where a run was not "
            "stored), the time of a picture and that of the whole training, with a teacher's; mean ± standard "
            f"deviation over seeds. {escape(study.title)}."
        )
        alt = "PSNR against size, time of a picture and time of the training, for networks, tiny networks and Gaussians"
        return Plot(name, alt, caption, to_svg(figure))


def sent(points: Iterable[FilePoint]) -> list[tuple[float, float]]:
    """Bytes and PSNR of the files worth sending, by size: each shows more than all smaller ones; and the largest.

    Args:
        points: Files of one run.
    """
    known = sorted((p.bytes.mean, p.psnr.mean) for p in points if p.bytes.mean is not None and p.psnr.mean is not None)
    best, found = -inf, []
    for size, psnr in known:
        if psnr > best or (size, psnr) == known[-1]:
            found.append((size, psnr))
        best = max(best, psnr)
    return found


def _point(axes: Axes, place: Stat, row: FrontierRow, index: int, filled: bool = True) -> None:
    if place.mean is None:
        return
    axes.errorbar(
        [place.mean],
        [row.psnr.mean or 0.0],
        yerr=None if row.psnr.std is None else [row.psnr.std],
        color=colour(index),
        marker=marker(index),
        markerfacecolor=colour(index) if filled else "none",
        linestyle="none",
        capsize=2,
        label=row.title,
    )


def _axis(axes: Axes, title: str, text: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(title)
    axes.xaxis.set_major_formatter(lambda value, _: text(value))
