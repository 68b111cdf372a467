"""Plots of small files: quality against size."""

from collections.abc import Sequence
from typing import Optional

from matplotlib.figure import Figure

from nerfstudio_prune.report.file_study import FileArm, FileStudy
from nerfstudio_prune.report.markup import escape
from nerfstudio_prune.report.plots import NEUTRAL, WIDTH, Plot, colour, marker, short, style, to_svg


def file_charts(studies: Sequence[FileStudy]) -> list[Plot]:
    """A plot for each study.

    Args:
        studies: All of small files.
    """
    plots = [_sizes(f"files-{i}", study) for i, study in enumerate(studies, 1)]
    return [plot for plot in plots if plot is not None]


def _sizes(name: str, study: FileStudy) -> Optional[Plot]:
    with style(name):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        axes = figure.subplots()
        for i, (arm, rows) in enumerate(zip(study.arms.values(), study.rows(), strict=True)):
            points = [(row.bytes.mean, row.psnr.mean, row.psnr.std, row.label) for row in rows]
            known = sorted((x, y, s or 0.0, label) for x, y, s, label in points if x is not None and y is not None)
            if not known:
                continue
            sizes, values, spreads, _ = zip(*known, strict=True)
            axes.errorbar(
                sizes, values, yerr=spreads, color=colour(i), marker=marker(i), linestyle=":", capsize=2, label=arm.name
            )
            axes.axhline(_checkpoint(arm), color=colour(i), linewidth=0.8, linestyle=(0, (4, 4)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{short(value)}B")
        axes.set(xlabel="bytes of the file", ylabel="PSNR, dB")
        axes.legend(loc="lower right")
        axes.tick_params(colors=NEUTRAL)
        caption = (
            "PSNR of what was read back against the size of the file, mean ± standard deviation over seeds; dashed: "
            f"the checkpoint. {escape(study.title)}."
        )
        return Plot(name, "PSNR against the size of the file, for each run", caption, to_svg(figure))


def _checkpoint(arm: FileArm) -> float:
    return sum(run.checkpoint.psnr for run in arm.runs) / len(arm.runs)
