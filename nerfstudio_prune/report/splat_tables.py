"""Tables of Gaussians: choices right after the cut, recovery beside its controls, spherical harmonics, speed."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Optional

from nerfstudio_prune.records.splat_schema import SplatRecord, SplatSpeedArm, ZeroShotRow
from nerfstudio_prune.report.markup import Column, code, escape, item_table, stat_column, table
from nerfstudio_prune.report.splat_study import (
    TEST,
    VAL,
    SplatArm,
    SplatStudy,
    by_splat_study,
    end_psnr,
    psnr,
)
from nerfstudio_prune.report.stats import NOTHING, TIMES, TO, Stat, number
from nerfstudio_prune.report.tables import block_ratios

NO_RECORDS = "No records for this; `ns-prune bench splats` makes them."
RECOVERED = ("dense", "pruned", "scheduled", "capped", "capped-equal-time", "peer")
"""Roles that are compared at the end."""
THIRD = 0.34


def of_all(studies: Sequence[SplatStudy], make: Callable[[SplatStudy], Optional[str]]) -> str:
    """One table for each study that it can be made of, each with where its numbers come from."""
    parts = [f"{text}\n\n{splat_caption(study)}" for study, text in by_splat_study(studies, make)]
    return "\n\n".join(parts) or NO_RECORDS


def splat_caption(study: SplatStudy) -> str:
    """Line below a table: where its numbers come from."""
    seeds = sorted({run.seed for arm in study.arms.values() for run in arm.runs} | {s.seed for s in study.shots})
    views = sorted({len(run.end.quality[TEST].views) for arm in study.arms.values() for run in arm.runs})
    views = views or sorted({record.views.get(TEST, 0) for record in study.shots})
    parts = [escape(study.title), *([f"{views[0]} test views"] if len(views) == 1 else [])]
    return ", ".join(parts) + (f", seeds {', '.join(map(str, seeds))}" if seeds else "") + "."


def zero_shot_table(study: SplatStudy) -> Optional[str]:
    """PSNR right after the cut, by rule and share that stays; None without records."""
    if not study.shots:
        return None
    rows = [row for record in study.shots for row in record.rows]
    keeps = sorted({row.keep for row in rows if row.keep < 1}, reverse=True)
    choices = list(dict.fromkeys((row.rule, row.rounds) for row in rows if row.keep < 1))
    third = min(keeps, key=lambda keep: abs(keep - THIRD), default=THIRD)

    def quality(split: str, keep: float) -> Callable[[tuple[str, int]], Stat]:
        return lambda choice: study.shot(choice[0], choice[1], keep, _split(split))

    columns = [
        Column("rule", lambda choice: _choice_name(*choice)),
        *[stat_column(f"keep {keep:.0%} dB".replace("%", " %"), quality(TEST, keep), 2, max) for keep in keeps],
        stat_column(f"keep {third:.0%} dB, validation views".replace("%", " %"), quality(VAL, third), 2, max),
        stat_column("choice s", lambda choice: study.shot(choice[0], choice[1], third, lambda row: row.seconds), 1),
    ]
    ranked = sorted(choices, key=lambda choice: -(quality(TEST, third)(choice).mean or 0.0))
    dense = study.shot("dense", 0, 1.0, _split(TEST))
    return f"{item_table(columns, [ranked])}\n\nWhole model: {dense.text(2)} dB."


def _split(split: str) -> Callable[[ZeroShotRow], Optional[float]]:
    return lambda row: row.psnr.get(split)


def _choice_name(rule: str, rounds: int) -> str:
    return escape(rule) + (f", {rounds} rounds" if rounds > 1 else "")


def recovered_table(study: SplatStudy) -> Optional[str]:
    """Every arm with its size, quality and time at the end; None without records."""
    arms = study.find(*RECOVERED)
    if not arms:
        return None
    dense = next(iter(study.find("dense")), None)
    columns = [
        Column("arm", lambda arm: code(arm.name)),
        stat_column("Gaussians", lambda arm: arm.at("end", lambda stage: stage.gaussians), 0),
        stat_column("MB", lambda arm: arm.at("end", lambda stage: stage.bytes / 1e6), 2),
        Column("steps", lambda arm: _range([run.steps for run in arm.runs])),
        stat_column("right after dB", lambda arm: arm.at("right after", psnr), 2),
        stat_column("end dB", lambda arm: arm.at("end", psnr), 2),
        Column("Δ dense dB", lambda arm: _difference(arm, dense)),
        stat_column("SSIM", lambda arm: arm.at("end", lambda stage: stage.quality[TEST].ssim), 3),
        stat_column("validation dB", lambda arm: arm.at("end", lambda stage: psnr(stage, VAL)), 2),
        stat_column("training s", lambda arm: arm.stat(lambda run: run.seconds.train_total), 0),
        stat_column("choice s", lambda arm: arm.stat(_prune_seconds), 1),
        stat_column("frame ms", lambda arm: arm.at("end", lambda stage: 1e3 * stage.frame_seconds), 1),
        stat_column("pairs a pixel", lambda arm: arm.at("end", lambda stage: stage.pairs_per_pixel), 1),
        Column("n", lambda arm: str(arm.n)),
    ]
    return item_table(columns, [arms])


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return number(low) if low == high else f"{number(low)}{TO}{number(high)}"


def _prune_seconds(run: SplatRecord) -> Optional[float]:
    return run.seconds.prune_total or None


def _difference(arm: SplatArm, dense: Optional[SplatArm]) -> str:
    return NOTHING if arm is dense else arm.less(dense, end_psnr).text(2, signed=True)


def harmonics_table(study: SplatStudy) -> Optional[str]:
    """What a lower degree costs, right after the cut and when it has learned; None without records."""
    arms = study.find("harmonics")
    if not arms:
        return None
    degrees = sorted({arm.first.end.sh_degree for arm in arms}, reverse=True)
    columns = [
        Column("degree", lambda arm: str(arm.first.end.sh_degree)),
        Column("learns from", lambda arm: escape(arm.first.distil or NOTHING)),
        stat_column("MB", lambda arm: arm.at("end", lambda stage: stage.bytes / 1e6), 2),
        stat_column("before dB", lambda arm: arm.at("before", psnr), 2),
        stat_column("cut alone, Δ dB", lambda arm: change(arm, "right after"), 2, signed=True),
        stat_column("end, Δ dB", lambda arm: change(arm, "end"), 2, max, signed=True),
        stat_column("end, Δ dB, validation views", lambda arm: change(arm, "end", VAL), 2, max, signed=True),
        Column("n", lambda arm: str(arm.n)),
    ]
    blocks = [[arm for arm in arms if arm.first.end.sh_degree == degree] for degree in degrees]
    return item_table(columns, blocks, text_columns=2)


def change(arm: SplatArm, label: str, split: str = TEST) -> Stat:
    """PSNR of a stage less that right before the event, in dB."""

    def of_run(run: SplatRecord) -> Optional[float]:
        before, stage = run.stage("before"), run.end if label == "end" else run.stage(label)
        if before is None or stage is None:
            return None
        first, last = psnr(before, split), psnr(stage, split)
        return None if first is None or last is None else last - first

    return arm.stat(of_run)


def splat_speed_table(study: SplatStudy) -> Optional[str]:
    """Dense and pruned in turns; None without records."""
    if not study.speeds:
        return None
    rows = []
    for record in study.speeds:
        dense, pruned = record.dense, record.pruned
        rows.append(
            [
                str(record.seed),
                _pair(dense.gaussians, pruned.gaussians, 0),
                _pair(dense.pairs_per_pixel, pruned.pairs_per_pixel, 1),
                _milliseconds(dense.train_step_seconds, pruned.train_step_seconds),
                _spread(step_factors(dense, pruned)),
                _milliseconds(dense.frame_seconds, pruned.frame_seconds),
                _spread(block_ratios(dense.frame_seconds, pruned.frame_seconds)),
                _pair(dense.peak_memory_mb, pruned.peak_memory_mb, 0),
                number(record.process_memory_mb),
                str(len(dense.train_step_seconds)),
            ]
        )
    headers = ["seed", "Gaussians", "pairs a pixel", "step ms", "step faster", "frame ms", "frame faster"]
    return table([*headers, "memory of a step MB", "memory of the process MB", "blocks"], rows)


def step_factors(dense: SplatSpeedArm, pruned: SplatSpeedArm) -> list[float]:
    """How many times faster a training step is, block by block."""
    return block_ratios(dense.train_step_seconds, pruned.train_step_seconds)


def _milliseconds(first: Sequence[float], second: Sequence[float]) -> str:
    return _pair(1e3 * median(first), 1e3 * median(second), 1)


def _pair(first: Optional[float], second: Optional[float], digits: int) -> str:
    return NOTHING if first is None and second is None else f"{number(first, digits)} → {number(second, digits)}"


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f}{TIMES} ({min(values):.2f}{TO}{max(values):.2f})" if values else NOTHING
