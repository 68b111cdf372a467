"""What Gaussians had to reach, and what they did."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Optional

from nerfstudio_prune.report.markup import escape, table
from nerfstudio_prune.report.splat_study import TEST, SplatArm, SplatStudy, end_psnr, psnr, row_of
from nerfstudio_prune.report.splat_tables import (
    NO_RECORDS,
    change,
    harmonics_table,
    of_all,
    recovered_table,
    splat_speed_table,
    step_factors,
    zero_shot_table,
)
from nerfstudio_prune.report.stats import NOTHING, TIMES, Stat, number
from nerfstudio_prune.report.targets import Target, told

LEGO, FOX = "lego_100", "fox_135x240"


def splat_tables(studies: Sequence[SplatStudy]) -> dict[str, Callable[[], str]]:
    """Tables that a file may hold: name -> what makes it."""
    makers: dict[str, Callable[[SplatStudy], Optional[str]]] = {
        "splats-zero-shot": zero_shot_table,
        "splats-recovered": recovered_table,
        "splats-harmonics": harmonics_table,
        "splats-speed": splat_speed_table,
        "splats-lightgaussian": lightgaussian_table,
    }
    tables = {name: partial(of_all, studies, make) for name, make in makers.items()}
    return {"splats-targets": lambda: targets_table(studies), **tables}


def _end(arm: str, value: Callable[[SplatArm], Stat]) -> Callable[[SplatStudy], Stat]:
    return lambda study: value(study.arms[arm]) if arm in study.arms else Stat(())


def _less(arm: str, other: str) -> Callable[[SplatStudy], Stat]:
    return _end_less(arm, lambda study: study.arms.get(other))


def _end_less(arm: str, other: Callable[[SplatStudy], Optional[SplatArm]]) -> Callable[[SplatStudy], Stat]:
    return lambda study: study.arms[arm].less(other(study), end_psnr) if arm in study.arms else Stat(())


def _rounds_over_paper(study: SplatStudy) -> Stat:
    pairs = [(row_of(record, "removal", 6, 0.34), row_of(record, "significance", 1, 0.34)) for record in study.shots]
    return Stat.of(a.psnr[TEST] - b.psnr[TEST] for a, b in pairs if a is not None and b is not None)


def _step_faster(study: SplatStudy) -> Stat:
    return Stat(tuple(median(step_factors(record.dense, record.pruned)) for record in study.speeds))


def _memory(study: SplatStudy) -> Stat:
    return _end("dense-start", lambda arm: arm.stat(lambda run: run.peak_memory_mb))(study)


def _frame(study: SplatStudy) -> Stat:
    return Stat(tuple(1e3 * median(record.dense.frame_seconds) for record in study.speeds))


_DENSE_DB = _end("dense-start", lambda arm: arm.at("end", psnr))
_DENSE_SECONDS = _end("dense-start", lambda arm: arm.stat(lambda run: run.seconds.train))
_DENSE_COUNT = _end("dense-start", lambda arm: arm.at("end", lambda stage: stage.gaussians))


def _difference(scene: str, words: str, value: Callable[[SplatStudy], Stat], least: float) -> Target[SplatStudy]:
    return Target(scene, words, value, lambda v: v >= least, signed=True)


TARGETS: Sequence[Target[SplatStudy]] = (
    Target(LEGO, "dense, at least 31.5 dB", _DENSE_DB, lambda v: v >= 31.5),
    Target(LEGO, "… in at most 120 s", _DENSE_SECONDS, lambda v: v <= 120, 0, "s"),
    _difference(
        LEGO,
        "keep 34 %, right after: `removal` in 6 rounds over the paper's score, at least +4 dB",
        _rounds_over_paper,
        4,
    ),
    _difference(LEGO, "… recovered: less dense of equal steps, at least -0.4 dB", _less("removal-6-34", "dense"), -0.4),
    _difference(LEGO, "… recovered: less capped of equal steps, at least 0", _less("removal-6-34", "capped-34"), 0),
    _difference(LEGO, "… recovered: less capped of equal time, told", _less("removal-6-34", "capped-34-equal-time"), 0),
    _difference(
        LEGO, "keep 20 %, recovered: less dense of equal steps, at least -1.0 dB", _less("removal-6-20", "dense"), -1
    ),
    _difference(
        LEGO,
        "moments kept less cleared, recovered, at least +0.5 dB",
        _less("removal-6-34", "removal-6-retrain-34"),
        0.5,
    ),
    _difference(
        LEGO, "degree 3 → 2, photos: at least -0.2 dB", _end("sh2-photo", lambda arm: change(arm, "end")), -0.2
    ),
    _difference(
        LEGO,
        "degree 3 → 2, distilled (mixed): at least -0.2 dB",
        _end("sh2-mixed", lambda arm: change(arm, "end")),
        -0.2,
    ),
    Target(LEGO, "frame 100 x 100, at most 20 ms", _frame, lambda v: v <= 20, 1, "ms"),
    Target(FOX, "dense, at least 23.5 dB", _DENSE_DB, lambda v: v >= 23.5),
    Target(FOX, "… in at most 900 s", _DENSE_SECONDS, lambda v: v <= 900, 0, "s"),
    Target(FOX, "… at most 55,000 Gaussians", _DENSE_COUNT, lambda v: v <= 55_000, 0, ""),
    _difference(
        FOX, "keep 34 %, recovered: less dense of equal steps, at least -0.3 dB", _less("removal-6-34", "dense"), -0.3
    ),
    Target(FOX, "… a training step at least 1.8 times faster", _step_faster, lambda v: v >= 1.8, 2, TIMES),
    Target(FOX, "peak memory of the dense training, at most 1,500 MB", _memory, lambda v: v <= 1500, 0, "MB"),
)


def targets_table(studies: Sequence[SplatStudy]) -> str:
    """Every target of a scene that there are records of, with what was reached."""
    rows = [[escape(study.scene), *cells] for study, cells in told(TARGETS, studies)]
    return table(["scene", "target", "measured", "reached", "n"], rows, text_columns=2) if rows else NO_RECORDS


PAPER_2 = (
    ("3D-GS", 31.68),
    ("+ pruning by significance", 30.32),
    ("+ co-adaptation", 31.85),
    ("+ SH of degree 2, cut", 30.54),
    ("+ distillation", 31.47),
    ("+ pseudo views", 31.59),
)
"""LightGaussian, Table 2, rows 1 to 6 (Room, 30,000 steps, PSNR in dB)."""
PAPER_3 = (
    ("3D-GS", 31.68),
    ("hits", 28.28),
    ("hits · opacity", 30.10),
    ("hits · opacity · volume^0.1", 30.32),
    ("+ co-adaptation", 31.85),
)
"""LightGaussian, Table 3 (Room, a third stays, PSNR in dB)."""


def lightgaussian_table(study: SplatStudy) -> Optional[str]:
    """Tables 2 and 3 of LightGaussian beside this project's numbers; None without both choices and recovery."""
    if not study.shots or "significance-34" not in study.arms:
        return None
    dense = _end("dense-start", lambda arm: arm.at("end", psnr))(study)

    def shot(rule: str) -> Stat:
        return study.shot(rule, 1, 0.34, lambda row: row.psnr.get(TEST))

    recovered = _end("significance-34", lambda arm: arm.at("end", psnr))(study)
    best = _end("removal-6-34", lambda arm: arm.at("end", psnr))(study)
    six = study.shot("removal", 6, 0.34, lambda row: row.psnr.get(TEST))

    def lower(arm: str, label: str) -> Stat:
        return _end(arm, lambda found: found.at(label, psnr))(study)

    table_2 = _beside(
        PAPER_2,
        {
            "this project, by the paper's score": [dense, shot("significance"), recovered],
            "by `removal` in 6 rounds": [
                dense,
                six,
                best,
                lower("sh2-photo", "right after"),
                lower("sh2-teacher", "end"),
                lower("sh2-mixed", "end"),
            ],
        },
    )
    table_3 = _beside(
        PAPER_3,
        {"this project": [dense, shot("hits"), shot("hits_opacity"), shot("significance"), recovered]},
    )
    return f"Table 2:\n\n{table_2}\n\nTable 3:\n\n{table_3}"


def _beside(paper: Sequence[tuple[str, float]], ours: dict[str, list[Stat]]) -> str:
    base = paper[0][1]
    headers = ["", "paper dB", "Δ"]
    for name in ours:
        headers += [f"{name} dB", "Δ"]
    rows = []
    for i, (label, value) in enumerate(paper):
        row = [label, number(value, 2), NOTHING if i == 0 else number(value - base, 2, signed=True)]
        for stats in ours.values():
            stat = stats[i] if i < len(stats) else Stat(())
            row += [
                stat.text(2),
                NOTHING
                if i == 0 or stat.mean is None or stats[0].mean is None
                else number(stat.mean - stats[0].mean, 2, signed=True),
            ]
        rows.append(row)
    return table(headers, rows)
