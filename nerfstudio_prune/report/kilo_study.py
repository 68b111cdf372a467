"""Records of tiny networks, put together into what may be compared: one scene, scale, device and teacher's schedule."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any, Optional

from nerfstudio_prune.records.files import KILO_FOLDERS, read_record, record_files
from nerfstudio_prune.records.kilo_schema import (
    AnyKiloRecord,
    KiloFrameArm,
    KiloRecord,
    KiloSpeedRecord,
)
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.repeated import Repeated
from nerfstudio_prune.report.splat_study import LARGEST

ORDER = ("teacher-on", "scratch", "student")
"""Roles, controls first."""


class KiloArm(Repeated[KiloRecord]):
    """Runs of tiny networks that differ in the seed only."""


@dataclass
class KiloStudy:
    """What may be compared."""

    scene: str
    scale: str
    device: str
    schedule: str
    """How the teachers were trained."""
    arms: dict[str, KiloArm] = field(default_factory=dict)
    """Name -> runs, controls first."""
    speeds: list[KiloSpeedRecord] = field(default_factory=list)
    """By seed."""

    @property
    def title(self) -> str:
        """For headings and captions."""
        return ", ".join((self.scene, f"scale {self.scale}", f"teacher: {self.schedule}", self.device))


def collect_kilo(folder: Path) -> list[KiloStudy]:
    """Reads all records of tiny networks below a folder and puts them together; there may be none.

    Raises:
        RecordError: If one cannot be read, or two are in conflict; names the files.
    """
    studies: dict[tuple[str, ...], KiloStudy] = {}
    seen: dict[tuple[Any, ...], Path] = {}
    for path in record_files(folder, KILO_FOLDERS):
        record = read_record(path)
        if not isinstance(record, AnyKiloRecord):
            raise RecordError(f"{path}: a record of another kind in a folder for those of tiny networks")
        key = (record.scene, record.scale, record.machine.key, record.schedule)
        if (*key, record.name) in seen:
            raise RecordError(f"{path}: the same run on the same device as {seen[(*key, record.name)]}; keep one")
        seen[(*key, record.name)] = path
        _TAKERS[type(record)](studies.setdefault(key, KiloStudy(*key)), record, path)
    for study in studies.values():
        study.speeds.sort(key=lambda record: record.seed)
        for arm in study.arms.values():
            arm.runs.sort(key=lambda run: run.seed)
        study.arms = dict(sorted(study.arms.items(), key=lambda item: _place(item[1])))
    return [studies[key] for key in sorted(studies)]


def _place(arm: KiloArm) -> tuple[Any, ...]:
    run = arm.first
    default = run.role != "student" or bool(set(run.config) & SIZES)
    return ORDER.index(run.role), default, -fmean(other.end.parameters for other in arm.runs), run.arm


SIZES = {f"pipeline.grid.{name}" for name in ("resolution", "hidden_width", "target_mb", "narrow_to")}
"""Options that say how large networks are."""


def _take_run(study: KiloStudy, record: KiloRecord, path: Path) -> None:
    qualities = [stage.quality for stage in record.stages]
    values = [value for q in qualities for value in (q.psnr, q.ssim)] + [record.teacher.psnr, record.teacher.ssim]
    if any(abs(value) > LARGEST for value in values):
        raise RecordError(f"{path}: a quality beyond ±{LARGEST:,}")
    if record.teacher.seconds <= 0:
        raise RecordError(f"{path}: a teacher that took no time")
    arm = study.arms.setdefault(record.arm, KiloArm([]))
    if arm.runs and arm.first.role != record.role:
        raise RecordError(f"{path}: role differs from that of {arm.first.name}, a run of the same arm")
    if record.seed in {run.seed for run in arm.runs}:
        raise RecordError(f"{path}: a second run of arm {record.arm!r} and seed {record.seed}")
    arm.runs.append(record)


def _take_speed(study: KiloStudy, record: KiloSpeedRecord, path: Path) -> None:
    if record.arms[0].network != "stock":
        raise RecordError(f"{path}: the first arm is not the host's model")
    if len({arm.label for arm in record.arms}) < len(record.arms):
        raise RecordError(f"{path}: two arms of one label")
    first = record.arms[0].frames[0]
    for arm in record.arms:
        frames = arm.frames[0]
        if frames.image_size != first.image_size or len(frames.seconds) != len(first.seconds):
            raise RecordError(f"{path}: arm {arm.label!r} has other pictures than the host's model")
        if any(value <= 0 for frames in arm.frames for value in frames.seconds):
            raise RecordError(f"{path}: holds times that are not above 0")
    study.speeds.append(record)


_TAKERS: dict[type[AnyKiloRecord], Callable[[KiloStudy, Any, Path], None]] = {
    KiloRecord: _take_run,
    KiloSpeedRecord: _take_speed,
}


def end_psnr(run: KiloRecord) -> float:
    """PSNR of the end of a run, in dB."""
    return run.end.quality.psnr


def over_teacher(label: str) -> Callable[[KiloRecord], Optional[float]]:
    """PSNR of a stage less that of the teacher by itself, in dB; None without such a stage.

    Args:
        label: The stage.
    """

    def value(run: KiloRecord) -> Optional[float]:
        stage = run.end if label == "end" else run.stage(label)
        return None if stage is None else stage.quality.psnr - run.teacher.psnr

    return value


def faster(record: KiloSpeedRecord, arm: KiloFrameArm, other: Optional[KiloFrameArm]) -> list[float]:
    """How many times as long another way took for a picture, round by round, at the size of the data.

    Args:
        record: What was measured.
        arm: The way.
        other: The other one; none gives nothing.
    """
    if other is None or other is arm:
        return []
    return [theirs / own for theirs, own in zip(other.frames[0].seconds, arm.frames[0].seconds, strict=True)]


def wide_in_cells(record: KiloSpeedRecord) -> Optional[KiloFrameArm]:
    """The widest dense network that was looked at in the cells of the tiny ones."""
    found = [arm for arm in record.arms if arm.network == "dense" and arm.cells]
    return max(found, key=lambda arm: arm.macs_per_point or 0, default=None)


def tiny(record: KiloSpeedRecord) -> KiloFrameArm:
    """The first of the tiny networks.

    Raises:
        RecordError: If there are none.
    """
    found = next((arm for arm in record.arms if arm.network == "tiny"), None)
    if found is None:
        raise RecordError(f"{record.name}: no arm of tiny networks")
    return found


def median_factor(factors: list[float]) -> Optional[float]:
    """Median of the factors of the rounds; None without any."""
    return median(factors) if factors else None
