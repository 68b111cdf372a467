"""Records of tiny networks with plausible numbers, made by hand: for tests of what reads records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.records.files import KILO_FOLDERS, write_record
from nerfstudio_prune.records.kilo_schema import (
    AnyKiloRecord,
    KiloFrameArm,
    KiloFrames,
    KiloRecord,
    KiloRole,
    KiloSeconds,
    KiloSpeedRecord,
    KiloStage,
    TeacherResult,
)
from nerfstudio_prune.records.schema import MachineRecord, Quality, ViewQuality
from support.record_factory import CPU

TEACHER_DB, TEACHER_SECONDS = 28.0, 400.0
COMMON: Mapping[str, Any] = {
    "data": "BlenderDataParser",
    "scale": "cpu",
    "digest": "0123456789abcdef",
    "command": "ns-prune bench kilo",
    "created": "2026-01-01T00:00:00+00:00",
    "machine": CPU,
    "schedule": "cut at 2,250 of 15,000 steps",
    "clock": "processor",
}


def kilo_stage(label: str, psnr: float, parameters: int = 250_000, networks: int = 100) -> KiloStage:
    """Networks of one width, or a dense one."""
    quality = Quality([ViewQuality(0, psnr - 1, 0.9), ViewQuality(1, psnr + 1, 0.94)], psnr, 0.92)
    return KiloStage(label, 3200, parameters, networks, {"32": networks}, 0.1, 6.5, 26_000.0, quality, 0.07)


def kilo_run(
    arm: str = "student",
    seed: int = 1,
    role: KiloRole = "student",
    psnr: Optional[Mapping[str, float]] = None,
    parameters: int = 250_000,
    config: Optional[Mapping[str, Any]] = None,
    seconds: tuple[float, float, float] = (10.0, 30.0, 40.0),
    machine: MachineRecord = CPU,
    scene: str = "lego_100",
) -> KiloRecord:
    """A run; `psnr` has the label of each stage, in their order."""
    points = psnr or {"teacher": 28.5, "distilled": 28.1, "fine-tuned": 30.2, "end": 30.0}
    return KiloRecord(
        **{**COMMON, "machine": machine},
        name=f"{arm}-s{seed}",
        arm=arm,
        seed=seed,
        role=role,
        teacher=TeacherResult(f"dense-decay-s{seed}", TEACHER_DB, 0.9, 292_616, TEACHER_SECONDS, 15_000),
        method="kilonerf",
        scene=scene,
        config=dict(config or {}),
        steps=3200,
        stages=[kilo_stage(label, value, parameters) for label, value in points.items()],
        seconds=KiloSeconds(*seconds, 5.0),
        peak_memory_mb=900.0,
    )


def frames_of(label: str, network: Any, seconds: list[float], cells: bool = False, **values: Any) -> KiloFrameArm:
    """A way to render, at one size."""
    given = {"run": None, "networks": 1, "macs_per_point": 400_000.0, "matmul_precision": "highest", **values}
    return KiloFrameArm(
        label=label, network=network, cells=cells, frames=[KiloFrames([100, 100], seconds, 1, 6.5)], **given
    )


def kilo_speed(seed: int = 1, scene: str = "lego_100", arms: Optional[list[KiloFrameArm]] = None) -> KiloSpeedRecord:
    """Tiny networks that are 500 times as fast as the host's, in the middle of three rounds."""
    return KiloSpeedRecord(
        **COMMON,
        name=f"kilo-speed-s{seed}",
        seed=seed,
        teacher=f"dense-decay-s{seed}",
        method="kilonerf",
        scene=scene,
        config={},
        arms=arms
        or [
            frames_of("stock", "stock", [40.0, 50.0, 60.0]),
            frames_of("dense 256, in the cells", "dense", [2.0, 2.0, 2.0], cells=True),
            frames_of("dense 128, in the cells", "dense", [1.0, 1.0, 1.0], cells=True, macs_per_point=100_000.0),
            frames_of("student-s1", "tiny", [0.1, 0.1, 0.1], cells=True, run="student-s1", networks=100),
        ],
    )


def save_kilo(folder: Path, *records: AnyKiloRecord) -> Path:
    """Writes records where a benchmark would."""
    for record in records:
        write_record(record, folder / KILO_FOLDERS[0] / f"{record.name}.json")
    return folder
