"""Records of small files with plausible numbers, made by hand: for tests of what reads records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.records.file_schema import FileRecord, FileRole, FileUnit, StoredForm
from nerfstudio_prune.records.files import FILE_FOLDERS, write_record
from nerfstudio_prune.records.schema import MachineRecord, Quality, ViewQuality
from support.record_factory import CPU


def quality(psnr: float) -> Quality:
    """Of two views."""
    return Quality([ViewQuality(0, psnr - 1, 0.9), ViewQuality(1, psnr + 1, 0.94)], psnr, 0.92)


def stored(label: str, size: int, psnr: float, agreement: Optional[float] = 45.0) -> StoredForm:
    """One file."""
    return StoredForm(label, {"dtype": "mixed", "bits": 4.0}, size, quality(psnr), agreement, 2.5)


def file_record(
    arm: str = "best",
    seed: int = 1,
    role: FileRole = "pruned",
    units: int = 80_000,
    psnr: float = 28.0,
    forms: Optional[Mapping[str, tuple[int, float]]] = None,
    machine: MachineRecord = CPU,
    scene: str = "lego_100",
    unit: FileUnit = "parameters",
    run: Optional[str] = None,
    schedule: str = "cut at 12,000 of 15,000 steps",
) -> FileRecord:
    """Files of a run; of each form the bytes and the PSNR."""
    found = {"float16": (160_500, psnr), "mixed 4": (40_000, psnr - 0.1)} if forms is None else forms
    common: dict[str, Any] = {
        "data": "BlenderDataParser",
        "scale": "cpu",
        "digest": "0123456789abcdef",
        "command": "ns-prune bench files",
        "created": "2026-01-01T00:00:00+00:00",
        "schedule": schedule,
        "clock": "processor",
        "config": {},
        "method": "nerf-prune",
    }
    return FileRecord(
        name=f"files-{arm}-s{seed}",
        arm=arm,
        seed=seed,
        role=role,
        run=run or f"preset-{arm}-decay-s{seed}",
        scene=scene,
        machine=machine,
        unit=unit,
        units=units,
        plain_bytes=4 * units,
        checkpoint_bytes=12 * units,
        checkpoint=quality(psnr),
        forms=[stored(label, size, value) for label, (size, value) in found.items()],
        **common,
    )


def save_files(folder: Path, *records: FileRecord) -> None:
    """Writes records as a suite does."""
    for record in records:
        write_record(record, folder / FILE_FOLDERS[0] / f"{record.name}.json")
