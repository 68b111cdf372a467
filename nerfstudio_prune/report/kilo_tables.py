"""Tables of tiny networks: beside their controls, their pictures' time, and what was to be reached."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median
from typing import Optional

from nerfstudio_prune.records.kilo_schema import KiloFrameArm, KiloRecord, KiloSpeedRecord
from nerfstudio_prune.report.kilo_study import (
    KiloArm,
    KiloStudy,
    end_psnr,
    faster,
    median_factor,
    over_teacher,
    tiny,
    wide_in_cells,
)
from nerfstudio_prune.report.markup import Column, code, escape, item_table, missing, stat_column, table
from nerfstudio_prune.report.stats import NOTHING, TIMES, TO, Stat, number
from nerfstudio_prune.report.targets import Target, told

LEGO, FOX = "lego_100", "fox_135x240"
BYTES = 4
"""Of a parameter in float32."""


def kilo_tables(studies: Sequence[KiloStudy]) -> dict[str, Callable[[], str]]:
    """Tables that a file may hold: name -> what makes it."""
    makers: dict[str, Callable[[KiloStudy], Optional[str]]] = {
        "kilonerf-arms": arms_table,
        "kilonerf-frames": frames_table,
    }
    tables = {name: partial(_of_all, studies, make) for name, make in makers.items()}
    return {"kilonerf-targets": lambda: targets_table(studies), **tables}


def _of_all(studies: Sequence[KiloStudy], make: Callable[[KiloStudy], Optional[str]]) -> str:
    parts = [f"{text}\n\n{_caption(study)}" for study in studies if (text := make(study))]
    return "\n\n".join(parts) or missing("kilo")


def _caption(study: KiloStudy) -> str:
    seeds = sorted({run.seed for arm in study.arms.values() for run in arm.runs} | {s.seed for s in study.speeds})
    views = sorted({len(run.end.quality.views) for arm in study.arms.values() for run in arm.runs})
    parts = [escape(study.title), *([f"{views[0]} test views"] if len(views) == 1 else [])]
    return ", ".join(parts) + f", seeds {', '.join(map(str, seeds))}."


def arms_table(study: KiloStudy) -> Optional[str]:
    """Every arm with its size, its quality after each phase, and its time; None without records."""
    if not study.arms:
        return None
    arms = list(study.arms.values())
    columns = [
        Column("arm", lambda arm: code(arm.name)),
        Column("networks", lambda arm: _mean(arm, lambda run: run.end.networks)),
        Column("parameters", lambda arm: _mean(arm, lambda run: run.end.parameters)),
        Column("MB", lambda arm: _mean(arm, _megabytes, 2)),
        stat_column("teacher in the cells dB", lambda arm: arm.at("teacher", _psnr), 2),
        stat_column("distilled dB", lambda arm: arm.at("distilled", _psnr), 2),
        stat_column("Δ teacher", lambda arm: arm.stat(over_teacher("distilled")), 2, signed=True),
        stat_column("end dB", lambda arm: arm.stat(end_psnr), 2),
        stat_column("Δ teacher, end", lambda arm: arm.stat(over_teacher("end")), 2, signed=True),
        Column("samples a ray", lambda arm: _mean(arm, lambda run: run.end.samples_per_ray, 1)),
        Column("MACs a ray", lambda arm: _mean(arm, lambda run: run.end.macs_per_ray)),
        Column("s", lambda arm: _mean(arm, lambda run: run.seconds.total)),
        Column("of the teacher's", lambda arm: _percent(arm.stat(_share))),
        Column("view ms", lambda arm: _mean(arm, lambda run: 1e3 * run.end.frame_seconds)),
        Column("n", lambda arm: str(arm.n)),
    ]
    return f"{item_table(columns, [arms])}\n\n{_teachers(arms)}"


def _teachers(arms: Iterable[KiloArm]) -> str:
    """A line for each teacher: its quality by itself, its size and its time."""
    found = {run.teacher.name: run.teacher for arm in arms for run in arm.runs}
    lines = [
        f"{code(name)} {number(own.psnr, 2)} dB, {own.parameters:,} parameters, {number(own.seconds)} s"
        for name, own in sorted(found.items())
    ]
    return f"Teachers by themselves: {'; '.join(lines)}."


def _psnr(stage: object) -> float:
    return stage.quality.psnr  # type: ignore[attr-defined]


def _megabytes(run: KiloRecord) -> float:
    return run.end.parameters * BYTES / 1e6


def _share(run: KiloRecord) -> float:
    return run.seconds.total / run.teacher.seconds


def _mean(arm: KiloArm, value: Callable[[KiloRecord], Optional[float]], digits: int = 0) -> str:
    return number(arm.stat(value).mean, digits)


def _percent(stat: Stat) -> str:
    return NOTHING if stat.mean is None else f"{number(100 * stat.mean)} %"


def frames_table(study: KiloStudy) -> Optional[str]:
    """Ways to render, in turns in one process; of the lowest seed, and the factors of the others below. None without
    records."""
    if not study.speeds:
        return None
    record = study.speeds[0]
    stock, wide = record.arms[0], wide_in_cells(record)
    sizes = list(dict.fromkeys(tuple(frames.image_size) for arm in record.arms for frames in arm.frames))

    def milliseconds(size: tuple[int, ...]) -> Callable[[KiloFrameArm], str]:
        def text(arm: KiloFrameArm) -> str:
            own = next((frames for frames in arm.frames if tuple(frames.image_size) == size), None)
            return NOTHING if own is None else number(1e3 * median(own.seconds), 1)

        return text

    columns = [
        Column("way", lambda arm: code(arm.label) if arm.run else escape(arm.label)),
        Column("networks", lambda arm: f"{arm.networks:,}"),
        Column("MACs a point", lambda arm: number(arm.macs_per_point)),
        Column("points a ray", lambda arm: number(arm.frames[0].samples_per_ray, 1)),
        *(Column(f"{height} {TIMES} {width} ms", milliseconds((height, width))) for height, width in sizes),
        Column("faster than stock", lambda arm: _spread(faster(record, arm, stock))),
        Column("than the widest in the cells", lambda arm: _spread(faster(record, arm, wide))),
    ]
    text = item_table(columns, [record.arms])
    if len(study.speeds) == 1:
        return text
    others = [f"seed {other.seed} {_spread(faster(other, tiny(other), other.arms[0]))}" for other in study.speeds]
    return f"{text}\n\nTiny networks against stock: {'; '.join(others)}."


def _spread(factors: list[float]) -> str:
    """Median of factors with their range."""
    if not factors:
        return NOTHING
    digits = 0 if min(factors) >= 10 else 1
    low, high = (number(bound(factors), digits) for bound in (min, max))
    return f"{number(median(factors), digits)}{TIMES} ({low}{TO}{high})"


STUDENT = "student"


def _of_student(value: Callable[[KiloRecord], Optional[float]]) -> Callable[[KiloStudy], Stat]:
    return lambda study: study.arms[STUDENT].stat(value) if STUDENT in study.arms else Stat(())


def _less(arm: str, other: str) -> Callable[[KiloStudy], Stat]:
    return lambda study: study.arms[arm].less(study.arms.get(other), end_psnr) if arm in study.arms else Stat(())


def _frames(other: Callable[[KiloSpeedRecord], Optional[KiloFrameArm]]) -> Callable[[KiloStudy], Stat]:
    def value(study: KiloStudy) -> Stat:
        found = (median_factor(faster(record, tiny(record), other(record))) for record in study.speeds)
        return Stat.of(found)

    return value


def _smallest(study: KiloStudy) -> Stat:
    """Size in MB of the smallest networks that are good enough."""
    good = [
        arm
        for arm in study.arms.values()
        if arm.first.role == "student" and (arm.stat(over_teacher("end")).mean or 0.0) >= -ALLOWED_LOSS
    ]
    arm = min(good, key=lambda arm: arm.stat(_megabytes).mean or 0.0, default=None)
    return Stat(()) if arm is None else arm.stat(_megabytes)


ALLOWED_LOSS = 0.2
"""Of small networks, in dB below the teacher."""


def _stock(record: KiloSpeedRecord) -> Optional[KiloFrameArm]:
    return record.arms[0]


TARGETS: Sequence[Target[KiloStudy]] = (
    Target(LEGO, "a picture at least 300 times faster than stock's", _frames(_stock), lambda v: v >= 300, 0, TIMES),
    Target(
        LEGO,
        "… at least 15 times faster than of a dense network of width 256 in the same cells",
        _frames(wide_in_cells),
        lambda v: v >= 15,
        1,
        TIMES,
    ),
    Target(
        LEGO,
        "right after distilling: less the teacher, at least -0.2 dB",
        _of_student(over_teacher("distilled")),
        lambda v: v >= -0.2,
        signed=True,
    ),
    Target(
        LEGO,
        "… in at most 60 s, the look at the teacher included",
        _of_student(lambda run: run.seconds.setup + run.seconds.distil),
        lambda v: v <= 60,
        0,
        "s",
    ),
    Target(
        LEGO,
        "fine-tuned: less the teacher, at least 0",
        _of_student(over_teacher("end")),
        lambda v: v >= 0,
        signed=True,
    ),
    Target(
        LEGO,
        "… less the teacher trained on for as long, at least 0",
        _less(STUDENT, "teacher-on"),
        lambda v: v >= 0,
        signed=True,
    ),
    Target(
        LEGO,
        "… less the same at a rate that falls once more, at least 0",
        _less(STUDENT, "teacher-on-again"),
        lambda v: v >= 0,
        signed=True,
    ),
    Target(
        LEGO,
        "… less the same grid without distilling, at least +1 dB",
        _less(STUDENT, "scratch"),
        lambda v: v >= 1,
        signed=True,
    ),
    Target(
        LEGO,
        "distilling and fine-tuning in at most 25 % of the teacher's time",
        _of_student(lambda run: 100 * _share(run)),
        lambda v: v <= 25,
        0,
        "%",
    ),
    Target(
        LEGO,
        "half of the parameters pruned: less all of them, at least -0.2 dB",
        _less("narrow-0.5", STUDENT),
        lambda v: v >= -0.2,
        signed=True,
    ),
    Target(
        LEGO,
        "the smallest at no more than 0.2 dB below the teacher, at most 1.0 MB",
        _smallest,
        lambda v: v <= 1.0,
        2,
        "MB",
    ),
    Target(FOX, "a picture at least 20 times faster than stock's", _frames(_stock), lambda v: v >= 20, 0, TIMES),
)


def targets_table(studies: Sequence[KiloStudy]) -> str:
    """Every target of a scene that there are records of, with what was reached."""
    rows = [[escape(study.scene), escape(study.device), *cells] for study, cells in told(TARGETS, studies)]
    headers = ["scene", "device", "target", "measured", "reached", "n"]
    return table(headers, rows, text_columns=3) if rows else missing("kilo")
