"""Carries out one run of a suite with Nerfstudio's own trainer and measures it."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any, Optional

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import MemoryMeter, clock_of, describe_machine
from nerfstudio_prune.bench.procedures import PROCEDURES
from nerfstudio_prune.bench.quality import ViewMeter, measure_anatomy, measure_sizes
from nerfstudio_prune.bench.setup import Scene, make_config, make_trainer, run_options
from nerfstudio_prune.bench.suites import Run, Scale, schedule_text
from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.data.images import save_image
from nerfstudio_prune.engine.checkpoints import TRAINING, checkpoint_of_step
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.rays import FixedRays
from nerfstudio_prune.records.schema import Clock, CurvePoint, RunRecord, Seconds, Stage

CURVE_SEED = 0
"""Seed of the held-out rays of the curve: the same for all runs."""


class Recorder:
    """Watches a training: clock, curve, and the state right before and after events. It is the controller's `measure`.

    Args:
        trainer: Ready to train.
        run: What is carried out.
        scale: Sizes.
        parent: Record of the run that it goes on from.
        cache: Folder of measured qualities.
        images: Folder for pictures.
    """

    def __init__(
        self, trainer: Trainer, run: Run, scale: Scale, parent: Optional[RunRecord], cache: Path, images: Path
    ) -> None:
        self.trainer, self.run, self.scale = trainer, run, scale
        pipeline: Any = trainer.pipeline
        self.model: PruneModel = pipeline.model
        self.controller: PruneController = pipeline.controller
        dataset = pipeline.datamanager.eval_dataset
        self.meter = ViewMeter(dataset, scale.views, cache)
        self.images = images
        self.saved: dict[str, str] = {}
        self.rays = FixedRays(dataset, scale.curve_rays, CURVE_SEED)
        self.description = f"mean of {len(self.meter.views)} evaluation views"
        self.stages: list[Stage] = []
        self.curve: list[CurvePoint] = list(parent.curve) if parent else []
        self.first_step = trainer._start_step
        self.seconds_before = parent.seconds.train_total if parent else 0.0
        clock, self._clock = clock_of(self.model.device)
        self.clock: Clock = clock
        self.train = self.train_cpu = 0.0
        self.step_seconds: deque[float] = deque(maxlen=100)
        self.curve_seconds = 0.0
        self.notes: dict[str, Any] = {}
        self.failure: Optional[Exception] = None
        self._start = self._start_cpu = 0.0
        self._steps = self.first_step
        self.controller.measure = self
        # The clock stops before, and the curve is measured after, the controller does its work.
        trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self._begin))
        trainer.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self._end))
        trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self._look))

    @property
    def rays_per_sec(self) -> float:
        """Training rays per second, median over the last 100 steps since an event; 0 if there was none."""
        pipeline: Any = self.trainer.pipeline
        rays = pipeline.datamanager.get_train_rays_per_batch()
        return rays / median(self.step_seconds) if self.step_seconds else 0.0

    def _begin(self, step: int) -> None:
        self._start, self._start_cpu = self._clock(), time.process_time()

    def _end(self, step: int) -> None:
        self.step_seconds.append(self._clock() - self._start)
        self.train += self.step_seconds[-1]
        self.train_cpu += time.process_time() - self._start_cpu
        self._steps = step + 1

    def __call__(self, model: PruneModel) -> dict[str, float]:
        """Measures the present state; called right before and right after an event."""
        label = "right after" if self.stages and self.stages[-1].label == "before" else "before"
        try:
            return self.add_stage(label)
        except Exception as error:
            # The controller goes on without a measurement, as a training should; a benchmark must not.
            self.failure = error
            raise

    def add_stage(self, label: str) -> dict[str, float]:
        """Measures the present state and keeps it under a label."""
        picture = None if label == "before" else self.images / f"{label.replace(' ', '-')}.png"
        quality = self.meter(self.model, picture)
        if picture is not None:
            self.saved[label] = picture.name
        self.stages.append(Stage(label, self._steps, measure_sizes(self.trainer), quality))
        return {"psnr": quality.psnr, "ssim": quality.ssim}

    def _look(self, step: int) -> None:
        if self.failure is not None:
            raise self.failure
        procedure = PROCEDURES.get(self.run.procedure)
        event = bool(self.stages) and self.stages[-1].step == self._steps
        if procedure is not None and step == self.first_step:
            self.add_stage("before")
            self.notes |= procedure(self.trainer, self.run)
            self.add_stage("right after")
            event = True
        if event:
            self.step_seconds.clear()
        if event or self._steps % self.scale.curve_every == 0:
            start = time.perf_counter()
            psnr = self.rays(self.model)["psnr"]
            self.curve.append(CurvePoint(self._steps, self.seconds_before + self.train, psnr))
            self.curve_seconds += time.perf_counter() - start


def execute(
    run: Run,
    scale: Scale,
    scene: Scene,
    steps: int,
    folder: Path,
    parent: Optional[RunRecord],
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> RunRecord:
    """Trains and measures.

    Args:
        run: What to do.
        scale: Sizes.
        scene: Data.
        steps: Training steps that it takes.
        folder: Folder of the benchmark.
        parent: Record of the run that it goes on from.
        identity: `digest` and `command` for the record.
        advance: Is told which share of the steps is done, in [0, 1].

    Returns:
        The record; the run's checkpoint lies in the work folder.
    """
    checkpoint = checkpoint_of(folder, parent) if parent else None
    config = make_config(run, scale, scene, steps, folder / "work" / "runs", checkpoint)
    trainer = make_trainer(config)
    device = trainer.pipeline.model.device
    memory = MemoryMeter(device)
    images = folder / "images" / run.name
    recorder = Recorder(trainer, run, scale, parent, folder / "work" / "quality", images)
    first = trainer._start_step
    report = TrainingCallback(
        [TrainingCallbackLocation.AFTER_TRAIN_ITERATION], lambda step: advance((step + 1 - first) / steps)
    )
    trainer.callbacks.append(report)
    trainer.train()
    peak = memory.peak_mb
    recorder.add_stage("end")
    truth = folder / "images" / "truth.png"
    save_image(recorder.meter.truth(recorder.model), truth)
    state = recorder.model.prune_state
    expected_event = run.procedure == "method" and run.recovery is not None
    if expected_event and not state.succeeded:
        raise RuntimeError(f"{run.name}: no pruning event happened")
    return _record(run, scale, scene, recorder, parent, identity, peak, state.history)


def checkpoint_of(folder: Path, record: Any) -> Path:
    """The checkpoint of the end of a run.

    Args:
        folder: Folder of the benchmark.
        record: The run's record.

    Raises:
        CheckpointError: If it is missing, or not whole.
    """
    saved = folder / "work" / "runs" / record.name / record.method / "run" / "nerfstudio_models"
    return checkpoint_of_step(saved, record.steps - 1, TRAINING).path


def _record(
    run: Run,
    scale: Scale,
    scene: Scene,
    recorder: Recorder,
    parent: Optional[RunRecord],
    identity: Mapping[str, str],
    peak: Optional[float],
    history: list[PruneEvent],
) -> RunRecord:
    datamanager: Any = recorder.trainer.pipeline.datamanager
    view = str(recorder.meter.views[0])
    pictures = {label: f"images/{run.name}/{name}" for label, name in recorder.saved.items()}
    return RunRecord(
        name=run.name,
        arm=run.arm,
        seed=run.seed,
        role=run.role,
        strategy=run.strategy,
        score=run.score,
        pruning_ratio=run.pruning_ratio,
        recovery=run.recovery,
        method=scene.method,
        data=type(scene.dataparser).__name__.removesuffix("Config"),
        scene=scene.name,
        scale=scale.name,
        parent=parent.name if parent else None,
        config=dict(run_options(run, scale, scene.method)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=describe_machine(recorder.model.device),
        rays_per_batch=datamanager.get_train_rays_per_batch(),
        steps=recorder._steps,
        stages=recorder.stages,
        history=history,
        curve=recorder.curve,
        seconds=Seconds(
            train=recorder.train,
            train_total=recorder.seconds_before + recorder.train,
            train_cpu=recorder.train_cpu,
            prune=sum(event.seconds for event in history) + recorder.notes.get("seconds", 0.0),
            evaluate=recorder.meter.seconds + recorder.curve_seconds,
        ),
        rays_per_sec=recorder.rays_per_sec,
        eval_rays_per_sec=recorder.meter.rays_per_sec,
        peak_memory_mb=peak,
        eval_views=len(recorder.meter.views),
        curve_rays=recorder.rays.num_rays,
        schedule=schedule_text(run, scale),
        clock=recorder.clock,
        anatomy=measure_anatomy(recorder.model) if run.describe else None,
        images={view: {"truth": "images/truth.png", **pictures}},
        notes=recorder.notes,
        digest=identity["digest"],
        command=identity["command"],
    )
