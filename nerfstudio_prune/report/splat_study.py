"""Records of Gaussians, put together into what may be compared: one scene, scale, method, device and schedule."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.records.files import SPLAT_FOLDERS, read_record, record_files
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.records.splat_schema import (
    AnySplatRecord,
    SplatRecord,
    SplatSpeedRecord,
    SplatStage,
    ZeroShotRecord,
    ZeroShotRow,
)
from nerfstudio_prune.report.repeated import Repeated
from nerfstudio_prune.report.stats import Stat

TEST, VAL = "test", "val"
"""Splits: tables tell the first, choices are made by the second."""
LARGEST = 1_000_000
"""Beyond any PSNR or SSIM; larger numbers have no finite mean."""
ARM_FIELDS = ("role", "strategy", "score", "rounds", "keep", "recovery", "distil")
"""What runs of one arm must agree in."""


class SplatArm(Repeated[SplatRecord]):
    """Runs of Gaussians that differ in the seed only."""


@dataclass
class SplatStudy:
    """What may be compared."""

    scene: str
    scale: str
    method: str
    device: str
    schedule: str
    arms: dict[str, SplatArm] = field(default_factory=dict)
    """Name -> runs, in the order of the suite."""
    shots: list[ZeroShotRecord] = field(default_factory=list)
    """By seed."""
    speeds: list[SplatSpeedRecord] = field(default_factory=list)
    """By seed."""

    @property
    def title(self) -> str:
        """For headings and captions."""
        return ", ".join(part for part in (self.scene, f"scale {self.scale}", self.schedule, self.device) if part)

    def find(self, *roles: str) -> list[SplatArm]:
        """Arms of some roles."""
        return [arm for arm in self.arms.values() if arm.first.role in roles]

    def shot(self, rule: str, rounds: int, keep: float, value: Callable[[ZeroShotRow], Optional[float]]) -> Stat:
        """A quantity of one choice right after the cut, over the seeds that have it."""
        rows = (row_of(record, rule, rounds, keep) for record in self.shots)
        return Stat.of(value(row) for row in rows if row is not None)


ORDER = ("start", "dense", "pruned", "scheduled", "capped", "capped-equal-time", "harmonics", "peer")


def collect_splats(folder: Path) -> list[SplatStudy]:
    """Reads all records of Gaussians below a folder and puts them together; there may be none.

    Raises:
        RecordError: If one cannot be read, or two are in conflict; names the files.
    """
    studies: dict[tuple[str, ...], SplatStudy] = {}
    seen: dict[tuple[Any, ...], Path] = {}
    for path in record_files(folder, SPLAT_FOLDERS):
        record = read_record(path)
        if not isinstance(record, AnySplatRecord):
            raise RecordError(f"{path}: a record of networks in a folder for those of Gaussians")
        key = (record.scene, record.scale, record.method, record.machine.key, record.schedule)
        if (*key, record.name) in seen:
            raise RecordError(f"{path}: the same run on the same device as {seen[(*key, record.name)]}; keep one")
        seen[(*key, record.name)] = path
        study = studies.setdefault(key, SplatStudy(*key))
        _TAKERS[type(record)](study, record, path)
    for study in studies.values():
        study.shots.sort(key=lambda record: record.seed)
        study.speeds.sort(key=lambda record: record.seed)
        for arm in study.arms.values():
            arm.runs.sort(key=lambda run: run.seed)
        study.arms = dict(sorted(study.arms.items(), key=lambda item: _place(item[1])))
    return [studies[key] for key in sorted(studies)]


def _place(arm: SplatArm) -> tuple[Any, ...]:
    run = arm.first
    return (ORDER.index(run.role), -(run.keep or 1.0), run.strategy != "rank", -run.end.sh_degree, run.arm)


def _take_run(study: SplatStudy, record: SplatRecord, path: Path) -> None:
    if any(TEST not in stage.quality for stage in record.stages):
        raise RecordError(f"{path}: a stage without the quality of test views")
    values = [value for s in record.stages for q in s.quality.values() for value in (q.psnr, q.ssim)]
    if any(abs(value) > LARGEST for value in values):
        raise RecordError(f"{path}: a quality beyond ±{LARGEST:,}")
    arm = study.arms.setdefault(record.arm, SplatArm([]))
    if arm.runs:
        for name in ARM_FIELDS:
            if getattr(arm.first, name) != getattr(record, name):
                raise RecordError(f"{path}: {name} differs from that of {arm.first.name}, a run of the same arm")
        if record.seed in {run.seed for run in arm.runs}:
            raise RecordError(f"{path}: a second run of arm {record.arm!r} and seed {record.seed}")
    arm.runs.append(record)


def _take_shot(study: SplatStudy, record: ZeroShotRecord, path: Path) -> None:
    if any(TEST not in row.psnr for row in record.rows):
        raise RecordError(f"{path}: a choice without the quality of test views")
    study.shots.append(record)


def _take_speed(study: SplatStudy, record: SplatSpeedRecord, path: Path) -> None:
    if any(value <= 0 for arm in (record.dense, record.pruned) for value in arm.train_step_seconds + arm.frame_seconds):
        raise RecordError(f"{path}: holds times that are not above 0")
    study.speeds.append(record)


_TAKERS: dict[type[AnySplatRecord], Callable[[SplatStudy, Any, Path], None]] = {
    SplatRecord: _take_run,
    ZeroShotRecord: _take_shot,
    SplatSpeedRecord: _take_speed,
}


def by_splat_study(
    studies: Sequence[SplatStudy], make: Callable[[SplatStudy], Optional[str]]
) -> Iterator[tuple[SplatStudy, str]]:
    """What can be made of each study."""
    for study in studies:
        text = make(study)
        if text:
            yield study, text


def row_of(record: ZeroShotRecord, rule: str, rounds: int, keep: float) -> Optional[ZeroShotRow]:
    """One choice of a record; None if it was not tried."""
    return next((row for row in record.rows if (row.rule, row.rounds, row.keep) == (rule, rounds, keep)), None)


def psnr(stage: SplatStage, split: str = TEST) -> Optional[float]:
    """PSNR of a stage in dB; None where the data have no such views."""
    quality = stage.quality.get(split)
    return None if quality is None else quality.psnr


def end_psnr(run: SplatRecord) -> Optional[float]:
    """PSNR of the end of a run on test views, in dB."""
    return psnr(run.end)
