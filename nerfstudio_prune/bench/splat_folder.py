"""The records of one output folder of the suite of Gaussians, and how those that are missing are made."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Optional

import torch

from nerfstudio_prune.bench.file_jobs import SplatFileRun
from nerfstudio_prune.bench.file_measuring import files_in_words, measure_files
from nerfstudio_prune.bench.file_splats import SplatFiles
from nerfstudio_prune.bench.runs import alone, record_of
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.splat_peers import measure_splat_peer
from nerfstudio_prune.bench.splat_setup import record_fields, saved_splat_config
from nerfstudio_prune.bench.splat_speed import measure_splat_speed
from nerfstudio_prune.bench.splat_suite import (
    SplatJob,
    SplatPeer,
    SplatRun,
    SplatScale,
    SplatSpeed,
    ZeroShot,
    splat_digest,
)
from nerfstudio_prune.bench.splat_training import execute_splats
from nerfstudio_prune.bench.splat_zero_shot import measure_zero_shot
from nerfstudio_prune.engine.checkpoints import TRAINING, CheckpointError, checkpoint_of_step
from nerfstudio_prune.records.file_schema import FileRecord
from nerfstudio_prune.records.files import write_record
from nerfstudio_prune.records.splat_schema import AnySplatRecord, SplatRecord, SplatSpeedRecord, ZeroShotRecord

Advance = Callable[[float], None]
SplatFolderRecord = AnySplatRecord | FileRecord


class SplatFolder:
    """Records of one folder.

    Args:
        path: The folder.
        scale: Sizes.
        scene: Data.
        jobs: All jobs by name.
    """

    alone = alone

    def __init__(self, path: Path, scale: SplatScale, scene: Scene, jobs: Mapping[str, SplatJob]) -> None:
        self.path, self.scale, self.scene, self.jobs = path, scale, scene, jobs

    def file(self, name: str) -> Path:
        """Where the record of a job lies."""
        return self.path / self.jobs[name].folder / f"{name}.json"

    def digest(self, job: SplatJob) -> str:
        """Fingerprint of a job's settings."""
        others: dict[str, Any] = {}
        left = list(job.needs)
        while left:
            name = left.pop(0)
            if name not in others:
                others[name] = self.jobs[name]
                left += others[name].needs
        return splat_digest(job, self.scale, self.scene.fingerprint, [others[name] for name in sorted(others)])

    def record(self, name: str) -> Any:
        """Record of a job; None if there is none.

        Raises:
            RecordError: If it cannot be read.
            ValueError: If it is one of other settings.
        """
        return record_of(self.file(name), self.digest(self.jobs[name]))

    def done(self, job: SplatJob) -> bool:
        """Whether a job need not be run: it is recorded, and its checkpoint is there where it is still needed."""
        if self.record(job.name) is None:
            return False
        needed = any(job.name in other.sources and not self.done(other) for other in self.jobs.values())
        return not needed or self.has_checkpoint(job)

    def checkpoint(self, name: str) -> Optional[Path]:
        """The checkpoint of a run's end, as it is on record; None if it is missing or not whole."""
        record = self.record(name)
        saved = self.path / "work" / "runs" / name / self.scene.method / "run" / "nerfstudio_models"
        try:
            return None if record is None else checkpoint_of_step(saved, record.steps - 1, TRAINING).path
        except CheckpointError:
            return None

    def has_checkpoint(self, job: SplatJob) -> bool:
        """Whether the whole checkpoint of the job's end is there, as it is on record."""
        return self.checkpoint(job.name) is not None

    def source(self, job: Any, name: str) -> tuple[Any, Path]:
        """Record of a run that a job goes on from, and its checkpoint, which is there.

        Args:
            job: The job.
            name: Name of the run.

        Raises:
            FileNotFoundError: If it is missing.
        """
        return self._needed(job, name), self._checkpoint(job, name)

    def steps(self, run: SplatRun) -> int:
        """Training steps that a run takes itself.

        Raises:
            FileNotFoundError: If they follow from runs that are not recorded.
        """
        if run.steps is not None:
            return run.steps
        beside, pace = self._needed(run, run.beside), self._needed(run, run.pace)
        budget = beside.seconds.train_total + beside.seconds.prune_total
        return max(1, round(pace.steps * budget / pace.seconds.train_total))

    def _needed(self, job: SplatJob, name: Optional[str]) -> Any:
        record = None if name is None else self.record(name)
        if record is None:
            raise FileNotFoundError(f"{job.name} needs the record {name}")
        return record

    def _checkpoint(self, job: SplatJob, name: str) -> Path:
        path = self.checkpoint(name)
        if path is None:
            raise FileNotFoundError(f"{job.name} goes on from {name}, which is missing")
        return path

    def carry_out(self, job: SplatJob, advance: Advance) -> SplatFolderRecord:
        """Runs a job and writes its record; `advance` is told which share is done."""
        identity = {"digest": self.digest(job), "command": shlex.join(["ns-prune", *sys.argv[1:]])}
        record = MAKERS[type(job)](self, job, identity, advance)
        write_record(record, self.file(job.name))
        return record

    def summary(self, record: SplatFolderRecord) -> str:
        """What came out, in a few words."""
        return SUMMARIES[type(record)](record)

    def row(self, job: SplatJob) -> tuple[str, str]:
        """What a job goes on from, and its steps, for the plan."""
        return ", ".join(job.sources), job.told_steps

    def estimate(self, jobs: Sequence[SplatJob]) -> tuple[dict[str, float], str]:
        """Seconds of each job, and where the speed comes from."""
        records = [self.record(name) for name in self.jobs]
        steps = [r.step_seconds for r in records if isinstance(r, SplatRecord) and r.step_seconds > 0]
        shots = [sum(row.seconds for row in r.rows) for r in records if isinstance(r, ZeroShotRecord)]
        guess = STEP_SECONDS["cuda" if torch.cuda.is_available() else "cpu"]
        step = median(steps) if steps else guess
        known = _Speeds(self.scale, step, 2 * median(shots) if shots else 6000 * step)
        origin = f"speed of {len(steps)} recorded runs" if steps else "a guess until a run is recorded"
        return {job.name: ESTIMATES[type(job)](job, known) for job in jobs}, origin


STEP_SECONDS = {"cpu": 0.05, "cuda": 0.01}
"""Guess for a machine without records: seconds a training step."""


@dataclass(frozen=True)
class _Speeds:
    """What the time of a job is guessed by."""

    scale: SplatScale
    step: float
    """Seconds of a training step."""
    shot: float
    """Seconds of all choices on one model."""


def _run_seconds(job: SplatRun, known: _Speeds) -> float:
    return (job.steps or known.scale.steps) * known.step * (1 if job.keep is None else 0.7) + 5


def _speed_seconds(job: SplatSpeed, known: _Speeds) -> float:
    return known.scale.speed_blocks * known.scale.speed_steps * 2 * known.step * 1.5


def _shot_seconds(job: ZeroShot | SplatPeer, known: _Speeds) -> float:
    return known.shot


def _file_seconds(job: SplatFileRun, known: _Speeds) -> float:
    # A rounding is looked at on some training views, which is some eight times for each profile.
    return 400 * known.step * len(job.labels)


ESTIMATES: Mapping[type, Callable[[Any, _Speeds], float]] = {
    SplatRun: _run_seconds,
    ZeroShot: _shot_seconds,
    SplatSpeed: _speed_seconds,
    SplatPeer: _shot_seconds,
    SplatFileRun: _file_seconds,
}
"""Kind of job -> its seconds."""


def _train(folder: SplatFolder, run: SplatRun, identity: Mapping[str, str], advance: Advance) -> SplatRecord:
    parent = None if run.parent is None else folder._needed(run, run.parent)
    checkpoint = None if run.parent is None else folder._checkpoint(run, run.parent)
    cap = folder._needed(run, run.beside).end.gaussians if run.capped else None
    steps = folder.steps(run)
    return execute_splats(
        run, folder.scale, folder.scene, steps, folder.path, checkpoint, parent, cap, identity, advance
    )


def _try(folder: SplatFolder, job: ZeroShot, identity: Mapping[str, str], advance: Advance) -> ZeroShotRecord:
    checkpoint = folder._checkpoint(job, job.parent)
    return measure_zero_shot(job, folder.scale, folder.scene, folder.path, checkpoint, identity, advance)


def _time(folder: SplatFolder, job: SplatSpeed, identity: Mapping[str, str], advance: Advance) -> SplatSpeedRecord:
    checkpoints = {name: folder._checkpoint(job, name) for name in job.sources}
    return measure_splat_speed(job, folder.scale, folder.scene, folder.path, checkpoints, identity, advance)


def _let(folder: SplatFolder, job: SplatPeer, identity: Mapping[str, str], advance: Advance) -> ZeroShotRecord:
    checkpoint = folder._checkpoint(job, job.parent)
    return measure_splat_peer(job, folder.scale, folder.scene, folder.path, checkpoint, identity, advance)


def _store(folder: SplatFolder, job: SplatFileRun, identity: Mapping[str, str], advance: Advance) -> FileRecord:
    folder._checkpoint(job, job.run)
    run: Any = folder.jobs[job.run]
    scale = folder.scale
    opened = SplatFiles(saved_splat_config(run, scale, folder.scene, folder.path), scale.views)
    said = record_fields(job, scale, folder.scene, {}, opened.model.device, identity)
    # A preset says itself when it cuts; what may be compared has as many steps.
    said["schedule"] = f"{scale.steps:,} steps"
    return measure_files(job, opened, folder.path, said, advance)


MAKERS: Mapping[type, Callable[..., SplatFolderRecord]] = {
    SplatRun: _train,
    ZeroShot: _try,
    SplatSpeed: _time,
    SplatPeer: _let,
    SplatFileRun: _store,
}
"""Kind of job -> what makes its record."""


def _trained(record: SplatRecord) -> str:
    psnr = [f"{stage.label} {stage.quality['test'].psnr:.2f}" for stage in record.stages]
    return f"{record.end.gaussians:,} Gaussians, degree {record.end.sh_degree}, PSNR {', '.join(psnr)} dB"


def _tried(record: ZeroShotRecord) -> str:
    return f"{len(record.rows)} choices of {record.rows[0].gaussians:,} Gaussians"


def _timed(record: SplatSpeedRecord) -> str:
    ratio = median(record.dense.train_step_seconds) / max(median(record.pruned.train_step_seconds), 1e-9)
    return f"{ratio:.2f} times faster training steps"


SUMMARIES: Mapping[type, Callable[[Any], str]] = {
    SplatRecord: _trained,
    ZeroShotRecord: _tried,
    SplatSpeedRecord: _timed,
    FileRecord: files_in_words,
}
"""Kind of record -> what came out."""
