"""What of a suite is to be run: what was asked for, what is recorded already, and how long the rest will take."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_prune.bench.cost_jobs import Samples, Scaling, StockSpeed, network_options
from nerfstudio_prune.bench.file_jobs import FileRun, TinyFileRun
from nerfstudio_prune.bench.file_measuring import files_in_words, measure_files
from nerfstudio_prune.bench.file_networks import NetworkFiles, TinyFiles
from nerfstudio_prune.bench.kilo_jobs import KiloRun, KiloSpeed
from nerfstudio_prune.bench.kilo_setup import kilo_fields, saved_config, saved_student_config, teacher_schedule
from nerfstudio_prune.bench.kilo_speed import measure_kilo_speed
from nerfstudio_prune.bench.kilo_training import execute_student, execute_teacher_on
from nerfstudio_prune.bench.scaling import measure_scaling
from nerfstudio_prune.bench.setup import Scene, get_option, run_options
from nerfstudio_prune.bench.speed import measure_speed, step_time_ratio
from nerfstudio_prune.bench.stock_speed import measure_stock_speed
from nerfstudio_prune.bench.suites import MASKING, Job, Run, Scale, SpeedRun, digest, speed_name
from nerfstudio_prune.bench.training import checkpoint_of, execute
from nerfstudio_prune.engine.checkpoints import CheckpointError
from nerfstudio_prune.records.cost_schema import CostRecord, ScalingRecord, StockSpeedRecord
from nerfstudio_prune.records.file_schema import FileRecord
from nerfstudio_prune.records.files import read_record, write_record
from nerfstudio_prune.records.kilo_schema import AnyKiloRecord, KiloRecord, KiloSpeedRecord
from nerfstudio_prune.records.schema import Record, RunRecord, SpeedRecord

JobT = TypeVar("JobT", bound=Any)
Advance = Callable[[float], None]
NetworkRecord = Record | CostRecord | AnyKiloRecord | FileRecord


class JobSkipped(Exception):
    """A job that cannot be done on this machine, which is no failure. The message says what it lacks."""


def choose_jobs(suite: Sequence[JobT], pattern: str) -> list[JobT]:
    """The jobs of a suite that were asked for, each once, behind those that they go on from.

    Args:
        suite: All jobs; one that others go on from stands before them.
        pattern: Pattern of the names that were asked for, or several with commas between them.

    Raises:
        ValueError: If a pattern matches none.
    """
    by_name: dict[str, JobT] = {}
    for job in suite:
        by_name.setdefault(job.name, job)
    wanted: set[str] = set()
    for part in pattern.split(","):
        matching = {name for name in by_name if fnmatchcase(name, part.strip())}
        if not matching:
            raise ValueError(f"--only {part!r} matches none of {', '.join(by_name)}")
        wanted |= matching
    for name in reversed(list(by_name)):
        if name in wanted:
            wanted |= set(by_name[name].needs)
    return [job for name, job in by_name.items() if name in wanted]


@contextmanager
def alone(folder: Any) -> Iterator[None]:
    """Keeps other processes from making the same records; ends with this process, however that ends.

    Args:
        folder: Records of one folder, which its `path` names.

    Raises:
        ValueError: If another process is at it; names it.
    """
    work = folder.path / "work"
    work.mkdir(parents=True, exist_ok=True)
    # Beside the lock: to take it, or to try to, empties its file.
    owner = work / "bench.pid"
    lock = FileLock(work / "bench.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        process = owner.read_text(encoding="utf-8") if owner.exists() else "unknown"
        raise ValueError(
            f"--output {folder.path}: another `ns-prune bench` (process {process}) works on this folder; wait for "
            "it, or choose another --output"
        ) from None
    with lock:
        owner.write_text(str(os.getpid()), encoding="utf-8")
        yield


def record_of(path: Path, digest: str) -> Any:
    """A record in a file; None if there is none.

    Args:
        path: The file.
        digest: Fingerprint of the settings that it must be of.

    Raises:
        RecordError: If it cannot be read.
        ValueError: If it is one of other settings.
    """
    if not path.exists():
        return None
    record = read_record(path)
    if record.digest != digest:
        raise ValueError(
            f"{path}: recorded with other settings (scene {record.scene}, scale {record.scale}, options "
            f"{record.config}); choose another --output, or move it away"
        )
    return record


class RunFolder:
    """The records of one output folder, and how those that are missing are made.

    Args:
        path: The folder.
        scale: Sizes.
        scene: Data.
        jobs: All jobs by name.
    """

    alone = alone

    def __init__(self, path: Path, scale: Scale, scene: Scene, jobs: dict[str, Job]) -> None:
        self.path, self.scale, self.scene, self.jobs = path, scale, scene, jobs

    def file(self, job: Job) -> Path:
        """Where the record of a job lies."""
        return self.path / job.folder / f"{job.name}.json"

    def digest(self, job: Job) -> str:
        """Fingerprint of a job's settings."""
        parents, left = [], [*job.sources]
        while left:
            parents.append(self.jobs[left.pop()])
            left += parents[-1].sources
        return digest(job, self.scale, self.scene.method, self.scene.fingerprint, parents)

    def record(self, job: Job) -> Any:
        """Record of a job; None if there is none.

        Raises:
            RecordError: If it cannot be read.
            ValueError: If it is one of other settings.
        """
        return record_of(self.file(job), self.digest(job))

    def done(self, job: Job) -> bool:
        """Whether a job need not be run: it is recorded, and its checkpoint is there where it is still needed."""
        if self.record(job) is None:
            return False
        needed = any(job.name in other.sources and not self.done(other) for other in self.jobs.values())
        return not needed or self.has_checkpoint(job)

    def has_checkpoint(self, run: Job) -> bool:
        """Whether the whole checkpoint of the run's end is there, as it is on record."""
        record = self.record(run)
        try:
            return record is not None and checkpoint_of(self.path, record).exists()
        except CheckpointError:
            return False

    def steps(self, run: Run) -> int:
        """Training steps that a run takes itself.

        Raises:
            FileNotFoundError: If they follow from a record that is not there.
        """
        if run.steps is not None:
            return run.steps
        if run.as_long_as is not None:
            whole, pace = (self._record_for(run, name) for name in run.as_long_as)
            return max(1, round((whole.seconds.train_total + whole.seconds.prune) / pace.seconds.train * pace.steps))
        assert run.pruning_ratio is not None
        speed = self.record(SpeedRun(run.pruning_ratio))
        if speed is None:
            raise FileNotFoundError(f"{run.name} needs the record {speed_name(run.pruning_ratio)}")
        # The dense steps before the cut, spent on small steps; after the cut both take the same ones.
        return max(1, round(self.scale.start_steps * (step_time_ratio(speed) - 1)))

    def _record_for(self, job: Job, name: str) -> Any:
        record = self.record(self.jobs[name])
        if record is None:
            raise FileNotFoundError(f"{job.name} needs the record {name}")
        return record

    def source(self, job: Any, name: str) -> tuple[Any, Any]:
        """A run that a job goes on from, and its record; its checkpoint is there.

        Args:
            job: The job.
            name: Name of the run.

        Raises:
            FileNotFoundError: If it is missing.
        """
        run = self.jobs[name]
        if not self.has_checkpoint(run):
            raise FileNotFoundError(f"{job.name} goes on from {name}, which is missing")
        return run, self.record(run)

    def carry_out(self, job: Job, advance: Advance) -> NetworkRecord:
        """Runs a job and writes its record; `advance` is told which share is done."""
        identity = {"digest": self.digest(job), "command": shlex.join(["ns-prune", *sys.argv[1:]])}
        record = MAKERS[type(job)](self, job, identity, advance)
        write_record(record, self.file(job))
        return record

    def summary(self, record: NetworkRecord) -> str:
        """What came out, in a few words."""
        return SUMMARIES[type(record)](record)

    def row(self, job: Job) -> tuple[str, str]:
        """What a job goes on from, and its steps, for the plan."""
        return ", ".join(job.sources), job.told_steps

    def estimate(self, jobs: Sequence[Job]) -> tuple[dict[str, float], str]:
        """Seconds of each job, and where the speed comes from."""
        return estimate_seconds(jobs, self.scale, self.scene.method, self.path)


def _train(folder: RunFolder, run: Run, identity: Mapping[str, str], advance: Advance) -> RunRecord:
    parent = folder.source(run, run.parent)[1] if run.parent else None
    return execute(run, folder.scale, folder.scene, folder.steps(run), folder.path, parent, identity, advance)


def _time(folder: RunFolder, job: SpeedRun, identity: Mapping[str, str], advance: Advance) -> SpeedRecord:
    return measure_speed(job, folder.scale, folder.scene, folder.path, identity, advance)


def _beside_stock(folder: RunFolder, job: StockSpeed, identity: Mapping[str, str], advance: Advance) -> CostRecord:
    if folder.scene.method != "nerf-prune":
        raise JobSkipped(f"the host's vanilla NeRF has no unbounded scenes, which {folder.scene.method} is for")
    return measure_stock_speed(job, folder.scale, folder.scene, folder.path, identity, advance)


def _by_size(folder: RunFolder, job: Scaling, identity: Mapping[str, str], advance: Advance) -> CostRecord:
    return measure_scaling(job, folder.scale, folder.scene, folder.path, identity, advance)


def _learn(folder: RunFolder, job: KiloRun, identity: Mapping[str, str], advance: Advance) -> KiloRecord:
    teacher, taught = folder.source(job, job.teacher)
    common = job, folder.scale, folder.scene, folder.path, teacher, taught
    if job.beside is None:
        return execute_student(*common, identity, advance)
    beside = folder._record_for(job, job.beside)
    return execute_teacher_on(*common, beside, checkpoint_of(folder.path, taught), identity, advance)


def _render(folder: RunFolder, job: KiloSpeed, identity: Mapping[str, str], advance: Advance) -> KiloSpeedRecord:
    teacher, _ = folder.source(job, job.teacher)
    students = {name: folder.source(job, name)[1] for name in job.students}
    return measure_kilo_speed(job, folder.scale, folder.scene, folder.path, teacher, students, identity, advance)


def _store(folder: RunFolder, job: FileRun, identity: Mapping[str, str], advance: Advance) -> FileRecord:
    source, _ = folder.source(job, job.run)
    opened = NetworkFiles(saved_config(source, folder.scale, folder.scene, folder.path), folder.scale.views)
    said = _said(folder, job, folder.scene.method, source, opened.model.device, identity)
    return measure_files(job, opened, folder.path, said, advance)


def _store_tiny(folder: RunFolder, job: TinyFileRun, identity: Mapping[str, str], advance: Advance) -> FileRecord:
    student, record = folder.source(job, job.run)
    teacher: Any = folder.jobs[student.teacher]
    taught = saved_config(teacher, folder.scale, folder.scene, folder.path)
    opened = TinyFiles(saved_student_config(student, folder.scene, folder.path, taught), folder.scale.views)
    said = _said(folder, job, record.method, teacher, opened.model.device, identity)
    return measure_files(job, opened, folder.path, said, advance)


def _said(
    folder: RunFolder,
    job: FileRun | TinyFileRun,
    method: str,
    trained: Any,
    device: torch.device,
    identity: Mapping[str, str],
) -> dict[str, Any]:
    """What a record of files says of where they come from; tiny networks have their teacher's schedule."""
    fields = kilo_fields(job, folder.scale, folder.scene, method, {}, device, identity)
    return {**fields, "schedule": teacher_schedule(trained, folder.scale)}


MAKERS: Mapping[type, Callable[..., NetworkRecord]] = {
    Run: _train,
    SpeedRun: _time,
    StockSpeed: _beside_stock,
    Scaling: _by_size,
    KiloRun: _learn,
    KiloSpeed: _render,
    FileRun: _store,
    TinyFileRun: _store_tiny,
}
"""Kind of job -> what makes its record."""


def _trained(record: RunRecord) -> str:
    psnr = [f"{stage.label} {stage.quality.psnr:.2f}" for stage in record.stages]
    return f"{record.end.sizes.parameters:,} parameters, PSNR {', '.join(psnr)} dB"


def _timed(record: SpeedRecord) -> str:
    return f"{step_time_ratio(record):.2f} times faster training steps"


def _compared(record: StockSpeedRecord) -> str:
    stock, *_, last = record.arms
    step = median(stock.step_seconds) / median(last.step_seconds)
    frame = median(stock.frame_seconds) / median(last.frame_seconds)
    return f"{last.label}: {step:.0f} times faster training steps than {stock.label}, {frame:.0f} times faster frames"


def _scaled(record: ScalingRecord) -> str:
    whole = record.large.frames[0]
    height, width = record.large.image_size
    return f"a picture of {width} x {height} pixels in {whole.seconds:.0f} s"


def _learnt(record: KiloRecord) -> str:
    psnr = [f"{stage.label} {stage.quality.psnr:.2f}" for stage in record.stages]
    return f"{record.end.networks:,} networks, {record.end.parameters:,} parameters, PSNR {', '.join(psnr)} dB"


def _rendered(record: KiloSpeedRecord) -> str:
    stock, tiny = record.arms[0].frames[0], next(arm for arm in record.arms if arm.network == "tiny").frames[0]
    return f"pictures {median(stock.seconds) / median(tiny.seconds):.0f} times faster than stock's"


SUMMARIES: Mapping[type, Callable[[Any], str]] = {
    RunRecord: _trained,
    SpeedRecord: _timed,
    StockSpeedRecord: _compared,
    ScalingRecord: _scaled,
    KiloRecord: _learnt,
    KiloSpeedRecord: _rendered,
    FileRecord: files_in_words,
}
"""Kind of record -> what came out."""


TRAIN_MACS_PER_SECOND = {"cpu": 15e9, "cuda": 3e12}
"""Guess for a machine without records: multiply-accumulates of the forward pass per second of training."""
PICTURE_RAYS = 10_000
"""Guess: rays of a picture."""
EVALUATION_SHARE = 0.25
"""Guess: time of measuring quality as a share of training."""


def estimate_seconds(jobs: Sequence[Job], scale: Scale, method: str, folder: Path) -> tuple[dict[str, float], str]:
    """Wall-clock time of each job.

    Args:
        jobs: What is to be run.
        scale: Sizes.
        method: Nerfstudio method.
        folder: Folder of records; those of runs on this kind of device say how fast it is.

    Returns:
        Name of the job -> seconds, and where the speed comes from.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    records: list[Any] = [read_record(path) for path in sorted(folder.glob("runs/*.json"))]
    records = [r for r in records if isinstance(r, RunRecord) and r.machine.device_type == device and r.curve]
    if records:
        speed = median(r.rays_per_sec * r.end.sizes.macs_per_ray for r in records)
        share = median(r.seconds.evaluate / r.seconds.train for r in records)
        origin = f"speed of {len(records)} recorded runs"
    else:
        speed, share, origin = TRAIN_MACS_PER_SECOND[device], EVALUATION_SHARE, "a guess until a run is recorded"
    options = run_options(Run("", 0, "dense", 1), scale, method)
    dense = macs_per_ray(options, method)
    batch = "pipeline.datamanager.train_num_rays_per_batch"
    rays = options.get(batch) or get_option(all_methods[method], batch)
    known = Speeds(scale, method, rays, dense, speed, share)
    return {job.name: ESTIMATES[type(job)](job, known) for job in jobs}, origin


@dataclass(frozen=True)
class Speeds:
    """What the time of a job is guessed by."""

    scale: Scale
    method: str
    rays: int
    """Rays of a training step."""
    dense: int
    """Multiply-accumulates of the dense network for a ray."""
    speed: float
    """Multiply-accumulates of the forward pass per second of training."""
    share: float
    """Time of measuring quality as a share of training."""


def _run_seconds(job: Run, known: Speeds) -> float:
    kept = 1.0 if job.procedure in MASKING else (1 - (job.pruning_ratio or 0.0)) ** 2
    # For equal time: the dense steps before the cut, in time.
    more = known.scale.start_steps * (1 / kept - 1) * 0.6
    steps = job.steps if job.steps is not None else more + (known.scale.steps if job.as_long_as else 0)
    return steps * known.rays * known.dense * kept / known.speed * (1 + known.share)


def _speed_seconds(job: SpeedRun, known: Speeds) -> float:
    steps = (2 + known.scale.speed_blocks) * known.scale.speed_steps
    return steps * known.rays * known.dense * (1 + (1 - job.pruning_ratio) ** 2) / known.speed * 1.5


def _stock_seconds(job: StockSpeed, known: Speeds) -> float:
    def step(width: int) -> float:
        return known.rays * macs_per_ray(network_options(width, job.samples), known.method) / known.speed

    # The host's steps take about twice those of the widest; frames of all samples about as long as three steps.
    return 4 * 3 * (job.rounds + 2) * step(max(job.widths)) + job.train_steps * step(job.widths[-1])


def _scaling_seconds(job: Scaling, known: Speeds) -> float:
    def ray(width: int, samples: Samples) -> float:
        return macs_per_ray(network_options(width, samples), known.method) / known.speed

    width, samples, rays, height = job.middle
    # A picture takes a third of a step of as many rays; small networks do not fill the machine.
    rays_of_a_block = job.most_steps * rays + height**2 / 3
    blocks = sum(ray(w, samples) for w in job.widths) + sum(ray(width, s) for s in job.samples)
    rays_of_large = job.large_height**2 / 3 + job.large_steps * known.rays
    large = 4 * ray(job.large_width, job.large_samples) * rays_of_large
    return 1.5 * job.rounds * rays_of_a_block * blocks + large


def _kilo_seconds(job: KiloRun, known: Speeds) -> float:
    # Of the time of its teacher.
    return 0.3 * known.scale.steps * known.rays * known.dense / known.speed


def _kilo_speed_seconds(job: KiloSpeed, known: Speeds) -> float:
    return 30.0 * (job.rounds + 1)


def _file_seconds(job: FileRun | TinyFileRun, known: Speeds) -> float:
    # Each form is rendered whole; of a picture a ray costs about a third of one of training.
    rays = known.scale.views * PICTURE_RAYS * (len(job.labels) + 1)
    return rays * known.dense / (3 * known.speed)


ESTIMATES: Mapping[type, Callable[[Any, Speeds], float]] = {
    Run: _run_seconds,
    SpeedRun: _speed_seconds,
    StockSpeed: _stock_seconds,
    Scaling: _scaling_seconds,
    KiloRun: _kilo_seconds,
    KiloSpeed: _kilo_speed_seconds,
    FileRun: _file_seconds,
    TinyFileRun: _file_seconds,
}
"""Kind of job -> its seconds."""


def macs_per_ray(options: dict[str, Any], method: str) -> int:
    """Multiply-accumulates per ray of the dense network with the given options."""
    pipeline: Any = all_methods[method].pipeline
    prefix = "pipeline.model."
    own = {path.removeprefix(prefix): value for path, value in options.items() if path.startswith(prefix)}
    config = type(pipeline.model)(**{**vars(pipeline.model), **own})
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    return sum(macs for _, macs in config.setup(scene_box=box, num_train_data=1).layer_costs().values())
