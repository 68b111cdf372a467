"""Carries out one training run of the suite of Gaussians with Nerfstudio's own trainer and measures it."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Optional

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import MemoryMeter
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.splat_quality import SplatMeter
from nerfstudio_prune.bench.splat_setup import make_splat_trainer, record_fields, warm_up
from nerfstudio_prune.bench.splat_suite import SplatRun, SplatScale
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.gaussians.pruner import prepare_gaussian_pruning
from nerfstudio_prune.records.splat_schema import SplatRecord, SplatSeconds, SplatStage
from nerfstudio_prune.splats.model import SplatPruneModel

BEFORE, AFTER = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION


class SplatRecorder:
    """Watches a training: clock, and the state right before and after events. It is the controller's `measure`.

    Args:
        trainer: Ready to train.
        views: Views of each split that are measured; None: all.
        pictures: Folder for pictures of the first test view.
    """

    description = "mean of the benchmark's views"

    def __init__(self, trainer: Trainer, views: Optional[int], pictures: Path) -> None:
        pipeline: Any = trainer.pipeline
        self.model: SplatPruneModel = pipeline.model
        self.meter = SplatMeter(trainer, views)
        self.pictures = pictures
        self.stages: list[SplatStage] = []
        self.images: dict[str, str] = {}
        self._clock = self.meter.now
        self.train = self.train_cpu = self.prune = 0.0
        self.step_seconds: deque[float] = deque(maxlen=100)
        self.steps: int = trainer._start_step
        self.failure: Optional[Exception] = None
        self._start = self._start_cpu = self._end_of_step = self._evaluated = 0.0
        controller = pipeline.controller
        controller.measure = self
        trainer.callbacks.insert(0, TrainingCallback([BEFORE], self._begin))
        # The clock of a step stops behind the densification, and that of an event behind the controller.
        at = next(i for i, found in enumerate(trainer.callbacks) if found.func == controller.on_step)
        trainer.callbacks.insert(at, TrainingCallback([AFTER], self._end))
        trainer.callbacks.append(TrainingCallback([AFTER], self._look))

    def _begin(self, step: int) -> None:
        self._start, self._start_cpu = self._clock(), time.process_time()

    def _end(self, step: int) -> None:
        self._end_of_step, self._evaluated = self._clock(), self.meter.seconds
        self.step_seconds.append(self._end_of_step - self._start)
        self.train += self.step_seconds[-1]
        self.train_cpu += time.process_time() - self._start_cpu
        self.steps = step + 1

    def __call__(self, model: SplatPruneModel) -> dict[str, float]:
        """Measures the present state; called right before and right after an event."""
        label = "right after" if self.stages and self.stages[-1].label == "before" else "before"
        try:
            stage = self.add_stage(label)
        except Exception as error:
            # The controller goes on without a measurement, as a training should; a benchmark must not.
            self.failure = error
            raise
        return {"psnr": stage.quality["test"].psnr}

    def add_stage(self, label: str) -> SplatStage:
        """Measures the present state and keeps it under a label."""
        file = None if label == "before" else self.pictures / f"{label.replace(' ', '-')}.png"
        stage = self.meter.stage(self.model, label, self.steps, file)
        if file is not None:
            self.images[label] = f"images/{self.pictures.name}/{file.name}"
        self.stages.append(stage)
        return stage

    def _look(self, step: int) -> None:
        if self.failure is not None:
            raise self.failure
        if self.stages and self.stages[-1].step == self.steps:
            self.prune += self._clock() - self._end_of_step - (self.meter.seconds - self._evaluated)
            self.step_seconds.clear()


class Cap:
    """Stops the growth of a training for good as soon as there are so many Gaussians; what is above leaves.

    Args:
        trainer: Ready to train.
        count: Gaussians.
    """

    def __init__(self, trainer: Trainer, count: int) -> None:
        pipeline: Any = trainer.pipeline
        self.trainer, self.model, self.count = trainer, pipeline.model, count
        self.stopped: Optional[int] = None
        """Training step at which growth was stopped; None: it was not."""
        at = next(i for i, found in enumerate(trainer.callbacks) if found.func == pipeline.controller.on_step)
        trainer.callbacks.insert(at, TrainingCallback([AFTER], self._look))

    def _look(self, step: int) -> None:
        excess = self.model.num_points - self.count
        if self.stopped is not None or excess < 0:
            return
        self.stopped = step
        self.model.strategy.refine_stop_iter = 0
        if excess:
            keep = self.model.opacities.detach()[:, 0].topk(self.count).indices.sort().values
            optimizers = self.trainer.optimizers
            prepare_gaussian_pruning(
                self.model.gauss_params,
                keep,
                optimizers.optimizers,
                optimizers.parameters,
                self.model.strategy_state,
            ).apply()
            check_optimizers(optimizers.optimizers, optimizers.parameters, self.model.get_param_groups())


FIRST_OF_CAP = 0.5
"""Gaussians that a capped run begins with at most, as a share of its cap: it has to grow where the scene needs them."""


def execute_splats(
    run: SplatRun,
    scale: SplatScale,
    scene: Scene,
    steps: int,
    folder: Path,
    checkpoint: Optional[Path],
    parent: Optional[SplatRecord],
    cap: Optional[int],
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> SplatRecord:
    """Trains and measures.

    Args:
        run: What to do.
        scale: Sizes.
        scene: Data.
        steps: Training steps that it takes.
        folder: Folder of the benchmark.
        checkpoint: Checkpoint that it goes on from.
        parent: Record of the run that it goes on from.
        cap: Gaussians at which growth stops; None: nothing stops it.
        identity: `digest` and `command` for the record.
        advance: Is told which share of the steps is done, in [0, 1].

    Returns:
        The record; the run's checkpoint lies in the work folder.

    Raises:
        RuntimeError: If an event that was asked for did not happen.
    """
    options = {**scale.options, **run.options}
    if cap is not None:
        options["pipeline.model.num_random"] = max(10, int(cap * FIRST_OF_CAP))
    trainer = make_splat_trainer(run.name, run.seed, options, scene, steps, folder, checkpoint)
    warm_up(trainer.pipeline)
    device: torch.device = trainer.pipeline.model.device
    memory = MemoryMeter(device)
    recorder = SplatRecorder(trainer, scale.views, folder / "images" / run.name)
    growth = None if cap is None else Cap(trainer, cap)
    first = trainer._start_step
    trainer.callbacks.append(TrainingCallback([AFTER], lambda step: advance((step + 1 - first) / steps)))
    trainer.train()
    peak = memory.peak_mb
    recorder.add_stage("end")
    history = recorder.model.prune_state.history
    before = 0 if parent is None else len(parent.history)
    if run.recovery is not None and not [event for event in history[before:] if not event.error]:
        raise RuntimeError(f"{run.name}: no pruning event happened")
    notes = {} if growth is None else {"cap": cap, "growth_stopped_at": growth.stopped}
    earlier = (0.0, 0.0) if parent is None else (parent.seconds.train_total, parent.seconds.prune_total)
    return SplatRecord(
        **record_fields(run, scale, scene, options, device, identity),
        arm=run.arm,
        role=run.role,
        strategy=run.strategy,
        score=run.score,
        rounds=run.rounds,
        keep=run.keep,
        recovery=run.recovery,
        distil=run.distil,
        parent=run.parent,
        steps=recorder.steps,
        stages=recorder.stages,
        history=history,
        seconds=SplatSeconds(
            train=recorder.train,
            train_total=earlier[0] + recorder.train,
            train_cpu=recorder.train_cpu,
            prune=recorder.prune,
            prune_total=earlier[1] + recorder.prune,
            evaluate=recorder.meter.seconds,
        ),
        step_seconds=median(recorder.step_seconds) if recorder.step_seconds else 0.0,
        peak_memory_mb=peak,
        clock=recorder.meter.clock,
        images=recorder.images,
        notes=notes,
    )
