"""Tables of runs of all kinds beside each other."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Optional

from nerfstudio_prune.report.file_study import FileStudy
from nerfstudio_prune.report.frontier_study import UNITS, FilePoint, FrontierRow, FrontierStudy
from nerfstudio_prune.report.markup import Column, counted, escape, item_table, missing, stat_column
from nerfstudio_prune.report.stats import NOTHING, TIMES, Stat, number

ALLOWED_LOSS = 0.1
"""Of the smallest file that is told of a run, in dB below the checkpoints of the seeds that were stored."""


def frontier_tables(studies: Sequence[FrontierStudy], files: Sequence[FileStudy]) -> dict[str, Callable[[], str]]:
    """Tables that a file may hold: name -> what makes it."""
    return {"frontier-all": partial(_of_all, studies, files)}


def _of_all(studies: Sequence[FrontierStudy], files: Sequence[FileStudy]) -> str:
    parts = [f"{frontier_all_table(study, files)}\n\n{_caption(study)}" for study in studies]
    return "\n\n".join(parts) or missing("frontier-all")


def _caption(study: FrontierStudy) -> str:
    seeds = ", ".join(str(record.seed) for record in study.records)
    views = {len(arm.quality.views) for record in study.records for arm in record.arms if arm.quality is not None}
    measured = f", {min(views)} test views" if len(views) == 1 else ""
    height, width = study.records[0].image_size
    return f"{escape(study.title)}{measured} of {width} {TIMES} {height} pixels, seeds {seeds}."


def frontier_all_table(study: FrontierStudy, files: Sequence[FileStudy]) -> str:
    """A row a run: size, the smallest file that shows the same, quality, time of a picture and of the training.

    Args:
        study: What may be compared, with a record at least.
        files: Files of all kinds.
    """
    points = list(study.files(files))
    rows = study.rows()
    stock = next((row for row in rows if row.family == "stock"), None)
    columns = [
        Column("run", lambda row: escape(row.title)),
        Column("holds", _units),
        Column("fp32 kB", lambda row: _kilobytes(row.stat(lambda arm: arm.plain_bytes))),
        Column("smallest file kB", lambda row: _smallest(row, points)),
        stat_column("PSNR dB", lambda row: row.psnr, 2),
        Column("picture ms", lambda row: _milliseconds(row.frame)),
        Column("faster than stock", lambda row: _factor(row, stock)),
        Column("training s", lambda row: number(row.train.mean)),
        Column("n", lambda row: str(len(row.arms))),
    ]
    return item_table(columns, [rows])


def smallest_file(row: FrontierRow, points: Sequence[FilePoint]) -> Optional[FilePoint]:
    """The smallest file that shows a run nearly as it is; None if none of it was stored.

    Args:
        row: The run.
        points: Files of all runs.
    """
    own = [point for point in points if point.row.label == row.label]
    # What was stored of fewer seeds than a run has may be told, but not beside forms that were stored of more.
    most = max((point.loss.n for point in own), default=0)
    good = [p for p in own if p.loss.n == most and p.loss.mean is not None and p.loss.mean >= -ALLOWED_LOSS]
    return min(good, key=lambda point: point.bytes.mean or 0.0, default=None)


def _smallest(row: FrontierRow, points: Sequence[FilePoint]) -> str:
    point = smallest_file(row, points)
    if point is None:
        return NOTHING
    seeds = "" if point.loss.n == len(row.arms) else f", {counted(point.loss.n, 'seed')}"
    return f"{_kilobytes(point.bytes)} ({escape(point.label)}{seeds})"


def _units(row: FrontierRow) -> str:
    count = row.stat(lambda arm: arm.units).mean
    return f"{number(count)} {UNITS[row.family]}"


def _kilobytes(size: Stat) -> str:
    return NOTHING if size.mean is None else number(size.mean / 1e3, 0 if size.mean >= 1e5 else 1)


def _milliseconds(seconds: Stat) -> str:
    return NOTHING if seconds.mean is None else number(1e3 * seconds.mean, 0 if seconds.mean >= 0.1 else 1)


def _factor(row: FrontierRow, stock: Optional[FrontierRow]) -> str:
    if stock is None or row is stock or not row.frame.mean or not stock.frame.mean:
        return NOTHING
    factor = stock.frame.mean / row.frame.mean
    return f"{number(factor, 0 if factor >= 10 else 1)}{TIMES}"
