"""Carries out one run of the suite of tiny networks with Nerfstudio's own trainer and measures it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.kilo_jobs import KiloRun
from nerfstudio_prune.bench.kilo_quality import KiloMeter
from nerfstudio_prune.bench.kilo_setup import METHODS, kilo_fields, saved_config, student_config, teacher_schedule
from nerfstudio_prune.bench.machine import MemoryMeter, clock_of
from nerfstudio_prune.bench.quality import ViewMeter
from nerfstudio_prune.bench.setup import Scene, make_config, make_trainer
from nerfstudio_prune.bench.suites import Run, Scale
from nerfstudio_prune.kilo.outputs import as_teacher
from nerfstudio_prune.kilo.phases import Phases, falling
from nerfstudio_prune.nerf.layouts import fields_of
from nerfstudio_prune.records.kilo_schema import KiloRecord, KiloSeconds, KiloStage, TeacherResult
from nerfstudio_prune.records.schema import LEARNING_RATE, RunRecord

BEFORE, AFTER = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION


def teacher_result(record: RunRecord) -> TeacherResult:
    """What a run of tiny networks tells of its teacher.

    Args:
        record: The teacher's record.
    """
    end = record.end
    seconds = record.seconds.train_total + record.seconds.prune
    return TeacherResult(record.name, end.quality.psnr, end.quality.ssim, end.sizes.parameters, seconds, record.steps)


class KiloRecorder:
    """Watches a training of tiny networks: clock, and the state between its phases.

    Args:
        trainer: Ready to train.
        setup: Seconds that it took to make it ready.
        views: Test views that quality is measured on.
        pictures: Folder for pictures of the first one.
        advance: Is told which share of the steps is done, in [0, 1].
    """

    def __init__(
        self, trainer: Trainer, setup: float, views: int, pictures: Path, advance: Callable[[float], None]
    ) -> None:
        pipeline: Any = trainer.pipeline
        self.phases: Phases = pipeline.phases
        self.model = pipeline.model
        self.meter = KiloMeter(pipeline, views)
        self.pictures, self.advance, self.setup = pictures, advance, setup
        self.stages: list[KiloStage] = []
        self.images: dict[str, str] = {}
        self.seconds = {"distil": 0.0, "finetune": 0.0}
        self._start = self._evaluated = 0.0
        callbacks = trainer.callbacks
        # The clock runs over all that the pipeline does; its last callback is the one that removes what is empty.
        callbacks.insert(0, TrainingCallback([BEFORE], self._begin))
        callbacks.insert(0, TrainingCallback([AFTER], self._before_removal))
        callbacks.append(TrainingCallback([BEFORE], self._after_change))
        callbacks.append(TrainingCallback([AFTER], self._end))

    def _begin(self, step: int) -> None:
        self._start, self._evaluated = self.meter.now(), self.meter.seconds

    def _after_change(self, step: int) -> None:
        narrows = self.phases.options.grid.narrow_to is not None
        if narrows and step == self.phases.distil_steps:
            self.add("narrowed", step)

    def _before_removal(self, step: int) -> None:
        if step + 1 == self.phases.steps and self.phases.tightens(self.phases.steps):
            self.add("fine-tuned", step + 1)

    def _end(self, step: int) -> None:
        spent = self.meter.now() - self._start - (self.meter.seconds - self._evaluated)
        self.seconds[self.phases.phase(step)] += spent
        if step + 1 == self.phases.distil_steps:
            self.add("distilled", step + 1)
        self.advance((step + 1) / self.phases.steps)

    def add(self, label: str, step: int) -> None:
        """Measures the present state and keeps it under a label."""
        self.keep(self.meter.stage(label, step, self.picture(label)))

    def keep(self, stage: KiloStage) -> None:
        """Keeps what was measured with a picture."""
        self.images[stage.label] = f"images/{self.pictures.name}/{self.picture(stage.label).name}"
        self.stages.append(stage)

    def picture(self, label: str) -> Path:
        """File of the picture of a stage."""
        return self.pictures / f"{label}.png"

    def spent(self) -> KiloSeconds:
        """How the time was spent."""
        return KiloSeconds(self.setup, self.seconds["distil"], self.seconds["finetune"], self.meter.seconds)


def execute_student(
    job: KiloRun,
    scale: Scale,
    scene: Scene,
    folder: Path,
    teacher: Run,
    taught: RunRecord,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> KiloRecord:
    """Makes tiny networks of a teacher and measures them; their checkpoint lies in the work folder.

    Args:
        job: What to do.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        teacher: The teacher's run, whose checkpoint is there.
        taught: Its record.
        identity: `digest` and `command` for the record.
        advance: Is told which share of the steps is done, in [0, 1].
    """
    config = student_config(job, scene, folder, saved_config(teacher, scale, scene, folder))
    _, clock = clock_of(torch.device(config.machine.device_type))
    start = clock()
    # What opens a run, to render or to measure it, begins with its file; as the host's, of options that no set-up has
    # changed yet.
    config.save_config()
    trainer = make_trainer(config)
    pictures = folder / "images" / job.name
    recorder = KiloRecorder(trainer, clock() - start, scale.views, pictures, advance)
    model, memory = recorder.model, MemoryMeter(recorder.model.device)
    if model.teacher is not None:
        shown = recorder.meter.stage_of_teacher(model.teacher, as_teacher(model.teacher), recorder.picture("teacher"))
        recorder.keep(shown)
    trainer.train()
    peak = memory.peak_mb
    recorder.add("end", recorder.phases.steps)
    return KiloRecord(
        **kilo_fields(job, scale, scene, METHODS[scene.method], job.options, model.device, identity),
        arm=job.arm,
        role=job.role,
        teacher=teacher_result(taught),
        schedule=teacher_schedule(teacher, scale),
        steps=recorder.phases.steps,
        stages=recorder.stages,
        seconds=recorder.spent(),
        peak_memory_mb=peak,
        clock=recorder.meter.clock,
        images=recorder.images,
    )


def execute_teacher_on(
    job: KiloRun,
    scale: Scale,
    scene: Scene,
    folder: Path,
    teacher: Run,
    taught: RunRecord,
    beside: KiloRecord,
    checkpoint: Path,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> KiloRecord:
    """Trains a teacher on, for as long as a student took, and measures it.

    Args:
        job: What to do; its `rates` are given.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        teacher: The teacher's run.
        taught: Its record, which says how fast its last steps were.
        beside: The student's record.
        checkpoint: The teacher's checkpoint.
        identity: `digest` and `command` for the record.
        advance: Is told which share of the steps is done, in [0, 1].
    """
    assert job.rates is not None
    steps = max(1, round(beside.seconds.total * taught.rays_per_sec / taught.rays_per_batch))
    run = Run(job.arm, job.seed, "dense", steps, teacher.name, teacher.options, teacher.width_ratio)
    config = make_config(run, scale, scene, steps, folder / "work" / "runs", checkpoint)
    # The rates are those of the job, whatever the teacher's own schedule was.
    config.load_scheduler = False
    trainer = make_trainer(config)
    pipeline: Any = trainer.pipeline
    model, first = pipeline.model, trainer._start_step
    memory = MemoryMeter(model.device)
    clock, now = clock_of(model.device)
    rate = config.optimizers[LEARNING_RATE.split(".")[1]]["optimizer"].lr
    high, low = (share * rate for share in job.rates)

    def set_rate(step: int) -> None:
        for optimizer in trainer.optimizers.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = falling(high, low, step - first, steps)

    trainer.callbacks.append(TrainingCallback([BEFORE], set_rate))
    trainer.callbacks.append(TrainingCallback([AFTER], lambda step: advance((step + 1 - first) / steps)))
    start = now()
    trainer.train()
    seconds, peak = now() - start, memory.peak_mb
    meter = ViewMeter(pipeline.datamanager.eval_dataset, scale.views, folder / "work" / "quality")
    begin, picture = now(), folder / "images" / job.name / "end.png"
    quality = meter(model, picture)
    evaluate = now() - begin
    camera = pipeline.datamanager.eval_dataset.cameras[0]
    fields = list(fields_of(model).values())
    end = KiloStage(
        label="end",
        step=steps,
        parameters=sum(parameter.numel() for parameter in fields[-1].parameters()),
        networks=1,
        widths={},
        occupied=None,
        samples_per_ray=None,
        macs_per_ray=None,
        quality=quality,
        frame_seconds=float(camera.height * camera.width) / meter.rays_per_sec,
    )
    return KiloRecord(
        **kilo_fields(job, scale, scene, scene.method, {"rates": list(job.rates)}, model.device, identity),
        arm=job.arm,
        role=job.role,
        teacher=teacher_result(taught),
        schedule=teacher_schedule(teacher, scale),
        steps=first + steps,
        stages=[end],
        seconds=KiloSeconds(0.0, 0.0, seconds, evaluate),
        peak_memory_mb=peak,
        clock=clock,
        images={"end": f"images/{job.name}/end.png"},
    )
