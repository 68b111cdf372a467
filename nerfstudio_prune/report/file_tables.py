"""Tables of small files: every form with its size and quality, and what was to be reached."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Optional

from nerfstudio_prune.records.file_schema import FileUnit
from nerfstudio_prune.report.file_study import PLY, FileArm, FileRow, FileStudy
from nerfstudio_prune.report.markup import Column, code, escape, item_table, missing, stat_column, table
from nerfstudio_prune.report.stats import NOTHING, Stat, number
from nerfstudio_prune.report.targets import Target, told

LEGO = "lego_100"
EQUAL = "equal"
"""Agreement of pictures without any difference."""


@dataclass(frozen=True)
class Told:
    """How sizes are told."""

    each: str
    """What bytes over units are called."""
    factor: int
    """What they are multiplied with."""
    share: str
    """What the share is one of."""


UNITS: Mapping[FileUnit, Told] = {
    "parameters": Told("bits a parameter", 8, "of dense fp32"),
    "Gaussians": Told("bytes a Gaussian", 1, f"of dense `{PLY}`"),
}


def file_tables(studies: Sequence[FileStudy]) -> dict[str, Callable[[], str]]:
    """Tables that a file may hold: name -> what makes it."""
    return {"files-targets": partial(targets_table, studies), "files": partial(_of_all, studies)}


def _of_all(studies: Sequence[FileStudy]) -> str:
    parts = [f"{forms_table(study)}\n\n{_caption(study)}" for study in studies]
    return "\n\n".join(parts) or missing("files")


def _caption(study: FileStudy) -> str:
    runs = [run for arm in study.arms.values() for run in arm.runs]
    seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
    views = sorted({len(run.checkpoint.views) for run in runs})
    measured = f", {views[0]} test views" if len(views) == 1 else ""
    return f"{escape(study.title)}{measured}, seeds {seeds}."


def forms_table(study: FileStudy) -> str:
    """Every form of every arm.

    Args:
        study: What may be compared, with an arm at least.
    """
    unit = UNITS[study.unit]
    columns = [
        Column("run", lambda row: code(row.arm.name) if row.label == row.arm.labels[0] else ""),
        Column("file", lambda row: escape(row.label)),
        Column("kB", lambda row: number(_kilobytes(row), 1)),
        Column(unit.share, lambda row: _percent(row.share)),
        Column(unit.each, lambda row: number(unit.factor * fmean(row.each.values), 2)),
        stat_column("PSNR dB", lambda row: row.psnr, 2),
        stat_column("Δ checkpoint dB", lambda row: row.loss, 2, signed=True),
        stat_column("Δ dense dB", lambda row: row.against_dense, 2, signed=True),
        Column("agreement dB", _agreement),
        Column("s", lambda row: number(row.stat(lambda _, form: form.seconds).mean, 1)),
        Column("n", lambda row: str(row.psnr.n)),
    ]
    text = item_table(columns, study.rows(), text_columns=2)
    return f"{text}\n\n{'; '.join(_checkpoint(arm) for arm in study.arms.values())}."


def _checkpoint(arm: FileArm) -> str:
    """What a checkpoint holds, in words."""
    run = arm.first
    return (
        f"{code(arm.name)}: {run.units:,} {run.unit}, {run.plain_bytes / 1e3:,.0f} kB as float32, a checkpoint of "
        f"{run.checkpoint_bytes / 1e3:,.0f} kB with the moments, "
        f"{Stat.of(other.checkpoint.psnr for other in arm.runs).text(2)} dB"
    )


def _agreement(row: FileRow) -> str:
    """Between pictures of file and checkpoint, over the seeds where there is a difference."""
    differing = [form for form in row.forms if form.agreement is not None]
    return number(Stat.of(form.agreement for form in differing).mean, 1) if differing else EQUAL


def _kilobytes(row: FileRow) -> Optional[float]:
    size = row.bytes.mean
    return None if size is None else size / 1e3


def _percent(share: Stat) -> str:
    return NOTHING if share.mean is None else f"{number(100 * share.mean, 1)} %"


def _of(arm: str, label: str, value: Callable[[FileRow], Stat]) -> Callable[[FileStudy], Stat]:
    def stat(study: FileStudy) -> Stat:
        found = study.arms.get(arm)
        return Stat(()) if found is None else value(FileRow(found, label, study.dense))

    return stat


def _size(arm: str, label: str, most: float, whole: str) -> Target[FileStudy]:
    """A bound of the share of what was not made smaller."""
    return Target(
        LEGO,
        f"`{arm}`, {label}: at most {100 * most:g} % of {whole}",
        _of(arm, label, lambda row: Stat(tuple(100 * share for share in row.share.values))),
        lambda share: share <= 100 * most,
        1,
        "%",
    )


def _loss(arm: str, label: str, least: float, to_dense: bool = False) -> Target[FileStudy]:
    """A bound of the quality."""
    beside, quality = ("the dense run", _to_dense) if to_dense else ("its own checkpoint", _to_checkpoint)
    words = f"… less {beside}, at least {least:g} dB"
    return Target(LEGO, words, _of(arm, label, quality), lambda loss: loss >= least, signed=True)


def _to_dense(row: FileRow) -> Stat:
    return row.against_dense


def _to_checkpoint(row: FileRow) -> Stat:
    return row.loss


def _each(arm: str, label: str, most: float) -> Target[FileStudy]:
    """A bound of the bytes of a Gaussian."""
    words = f"`{arm}`, {label}: at most {most:g} bytes a Gaussian"
    return Target(LEGO, words, _of(arm, label, lambda row: row.each), lambda size: size <= most, 1, "bytes")


NETWORK, DENSE_PLY = "the dense network in float32", f"the dense `{PLY}`"
TARGETS: Sequence[Target[FileStudy]] = (
    *(_size("best", "float16", 0.145, NETWORK), _loss("best", "float16", -0.05)),
    *(_size("best", "int8", 0.072, NETWORK), _loss("best", "int8", -0.05)),
    *(_size("best", "mixed 4", 0.037, NETWORK), _loss("best", "mixed 4", -0.2, to_dense=True)),
    *(_size("tiny", "mixed 5", 0.017, NETWORK), _loss("tiny", "mixed 5", -0.5, to_dense=True)),
    *(_size("tiny", "mixed 4", 0.014, NETWORK), _loss("tiny", "mixed 4", -0.6, to_dense=True)),
    _size("splat-best", "small", 1 / 20, DENSE_PLY),
    _each("splat-best", "small", 35),
    _loss("splat-best", "small", -0.05),
    _size("splat-best", "tiny", 1 / 40, DENSE_PLY),
    _each("splat-best", "tiny", 18),
    _loss("splat-best", "tiny", -0.3),
    _each("splat-best", "paper", 48),
)


def targets_table(studies: Sequence[FileStudy]) -> str:
    """Every target of a scene that there are records of, with what was reached."""
    rows = [[escape(study.scene), escape(study.device), *cells] for study, cells in told(TARGETS, studies)]
    headers = ["scene", "device", "target", "measured", "reached", "n"]
    return table(headers, rows, text_columns=3) if rows else missing("files")
