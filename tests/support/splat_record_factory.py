"""Records of Gaussians with plausible numbers, made by hand: for tests of what reads records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.records.files import SPLAT_FOLDERS, write_record
from nerfstudio_prune.records.schema import MachineRecord, Quality, ViewQuality
from nerfstudio_prune.records.splat_schema import (
    AnySplatRecord,
    SplatRecord,
    SplatRole,
    SplatSeconds,
    SplatSpeedArm,
    SplatSpeedRecord,
    SplatStage,
    ZeroShotRecord,
    ZeroShotRow,
)
from support.record_factory import CPU

WHOLE, BYTES = 1000, 236
SCHEDULE = "cut at 3,000 of 3,400 steps"


def splits(psnr: float, val: bool = True) -> dict[str, Quality]:
    """Quality of two test views around a mean, and of one validation view that is half a decibel worse."""
    test = Quality([ViewQuality(0, psnr - 1, 0.9), ViewQuality(1, psnr + 1, 0.94)], psnr, 0.92)
    return {"test": test, **({"val": Quality([ViewQuality(0, psnr - 0.5, 0.9)], psnr - 0.5, 0.9)} if val else {})}


def stage(label: str, psnr: float, keep: float = 1.0, degree: int = 3, val: bool = True) -> SplatStage:
    """A model of which a share stays, of some degree."""
    count = round(WHOLE * keep)
    each = 4 * (11 + 3 * (degree + 1) ** 2)
    return SplatStage(label, 3400, count, degree, count * each, splits(psnr, val), 0.01 * keep, 30.0 * keep)


def splat_run(
    arm: str,
    seed: int = 0,
    role: SplatRole = "pruned",
    psnr: Optional[Mapping[str, float]] = None,
    keep: Optional[float] = None,
    degree: int = 3,
    machine: MachineRecord = CPU,
    val: bool = True,
    **values: Any,
) -> SplatRecord:
    """A run; `psnr` has the label of each stage, in their order."""
    stages = [stage(label, value, keep or 1.0, degree, val) for label, value in (psnr or {"end": 30.0}).items()]
    given: dict[str, Any] = {
        "strategy": "rank" if role == "pruned" else "none",
        "score": "removal" if role == "pruned" else None,
        "rounds": 6 if role == "pruned" else None,
        "recovery": "continue" if role in ("pruned", "harmonics") else None,
        "distil": None,
        "scene": "lego_100",
        **values,
    }
    return SplatRecord(
        name=f"{arm}-s{seed}",
        arm=arm,
        seed=seed,
        role=role,
        keep=keep,
        method="splat-prune",
        data="BlenderDataParser",
        scale="cpu",
        parent="dense-start-s0",
        digest="0123456789abcdef",
        config={"pipeline.prune.strategy": "none"},
        command="ns-prune bench splats",
        created="2026-01-01T00:00:00+00:00",
        machine=machine,
        steps=3400,
        stages=stages,
        history=[],
        seconds=SplatSeconds(20.0, 120.0, 20.0, 9.0 if keep else 0.0, 9.0 if keep else 0.0, 5.0),
        step_seconds=0.04,
        peak_memory_mb=1200.0,
        schedule=SCHEDULE,
        clock="processor",
        **given,
    )


def zero_shot(seed: int = 0, rows: Optional[list[ZeroShotRow]] = None, **values: Any) -> ZeroShotRecord:
    """Choices right after the cut."""
    return ZeroShotRecord(
        name=f"zero-shot-s{seed}",
        seed=seed,
        method="splat-prune",
        data="BlenderDataParser",
        scale="cpu",
        parent=f"dense-start-s{seed}",
        digest="0123456789abcdef",
        config={},
        command="ns-prune bench splats",
        created="2026-01-01T00:00:00+00:00",
        machine=CPU,
        schedule=SCHEDULE,
        train_views=100,
        views={"test": 2, "val": 1},
        rows=rows or [row("dense", 0, 1.0, 31.0), row("removal", 6, 0.34, 29.0), row("significance", 1, 0.34, 23.5)],
        clock="processor",
        **{"scene": "lego_100", **values},
    )


def row(rule: str, rounds: int, keep: float, psnr: float) -> ZeroShotRow:
    """One choice."""
    quality = {"test": psnr, "val": psnr - 0.5}
    return ZeroShotRow(rule, rounds, keep, round(WHOLE * keep), quality, {"test": 0.9, "val": 0.9}, 3.0)


def splat_speed(seed: int = 0, **values: Any) -> SplatSpeedRecord:
    """A pruned model that is twice as fast, in every block."""
    return SplatSpeedRecord(
        name=f"speed-s{seed}",
        seed=seed,
        method="splat-prune",
        data="BlenderDataParser",
        scale="cpu",
        parents={"dense": f"dense-s{seed}", "pruned": f"removal-6-34-s{seed}"},
        digest="0123456789abcdef",
        config={},
        command="ns-prune bench splats",
        created="2026-01-01T00:00:00+00:00",
        machine=CPU,
        schedule=SCHEDULE,
        image_size=[100, 100],
        keep=0.34,
        warm_up_blocks=1,
        steps_per_block=10,
        process_memory_mb=1300.0,
        dense=SplatSpeedArm(WHOLE, 3, [0.04, 0.05], [0.02, 0.018], 30.0, 40.0),
        pruned=SplatSpeedArm(340, 3, [0.02, 0.025], [0.01, 0.009], 12.0, 20.0),
        clock="processor",
        **{"scene": "lego_100", **values},
    )


def save_splats(folder: Path, *records: AnySplatRecord) -> Path:
    """Writes records where a benchmark would."""
    for record in records:
        write_record(record, folder / SPLAT_FOLDERS[0] / f"{record.name}.json")
    return folder
