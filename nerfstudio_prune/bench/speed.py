"""Speed of a dense and a pruned network, measured in turns in one process."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import MemoryMeter, clock_of, describe_machine
from nerfstudio_prune.bench.quality import measure_sizes
from nerfstudio_prune.bench.setup import Scene, make_config, make_trainer, run_options
from nerfstudio_prune.bench.suites import Run, Scale, SpeedRun, pruned
from nerfstudio_prune.records.schema import Clock, SpeedArm, SpeedRecord

WARM_UP_BLOCKS = 2


def measure_speed(
    job: SpeedRun,
    scale: Scale,
    scene: Scene,
    folder: Path,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> SpeedRecord:
    """Measures blocks of training steps and renderings A B A B …, so that what else the machine does hits both.

    Args:
        job: What to compare.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    base = pruned(scale.seeds[0], replace(scale, start_steps=0), "uniform", None, job.pruning_ratio)
    dense = replace(base, arm=f"{job.name}-dense", options={"pipeline.prune.strategy": "none"})
    arms = [_Arm(dense, scale, scene, folder), _Arm(replace(base, arm=f"{job.name}-pruned"), scale, scene, folder)]
    for arm in arms:
        arm.train(1)  # the event happens at the end of the first step
    for _ in range(WARM_UP_BLOCKS):
        for arm in arms:
            arm.train(scale.speed_steps)
    for i in range(scale.speed_blocks):
        for arm in arms:
            arm.block(scale.speed_steps)
        advance((i + 1) / scale.speed_blocks)
    # Whole images take longest: a few are enough, in turns as well.
    for _ in range(3):
        for arm in arms:
            arm.render_image()
    datamanager: Any = arms[0].trainer.pipeline.datamanager
    camera = datamanager.eval_dataset.cameras[0]
    return SpeedRecord(
        name=job.name,
        scene=scene.name,
        scale=scale.name,
        method=scene.method,
        config=dict(run_options(dense, scale, scene.method)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=describe_machine(arms[0].model.device),
        rays_per_batch=datamanager.get_train_rays_per_batch(),
        image_size=[int(camera.height), int(camera.width)],
        pruning_ratio=job.pruning_ratio,
        warm_up_blocks=WARM_UP_BLOCKS,
        steps_per_block=scale.speed_steps,
        dense=arms[0].result(),
        pruned=arms[1].result(),
        clock=arms[0].clock_name,
        digest=identity["digest"],
        command=identity["command"],
    )


def step_time_ratio(record: SpeedRecord) -> float:
    """How many training steps of the pruned network fit into one of the dense."""
    return median(record.dense.train_step_seconds) / median(record.pruned.train_step_seconds)


class _Arm:
    """One network with its own trainer, advanced by hand."""

    def __init__(self, run: Run, scale: Scale, scene: Scene, folder: Path) -> None:
        config = make_config(run, scale, scene, 10**6, folder / "work" / "runs", None)
        self.trainer: Trainer = make_trainer(config)
        pipeline: Any = self.trainer.pipeline
        self.model = pipeline.model
        name, self.clock = clock_of(self.model.device)
        self.clock_name: Clock = name
        self.memory = MemoryMeter(self.model.device)
        self.step = 0
        self.step_seconds: list[float] = []
        self.eval_rays_per_sec: list[float] = []
        self.image_seconds: list[float] = []
        self.peaks: list[float] = []
        rays = pipeline.datamanager.get_train_rays_per_batch()
        self.rays = pipeline.datamanager.eval_dataset.cameras.generate_rays(0, keep_shape=False).flatten()[:rays]
        self.rays = self.rays.to(self.model.device)

    def train(self, steps: int) -> None:
        """Training steps as the host's loop takes them, with the controller's hooks."""
        pipeline: Any = self.trainer.pipeline
        pipeline.train()
        for _ in range(steps):
            pipeline.controller.before_step(self.step)
            self.trainer.train_iteration(self.step)
            pipeline.controller.on_step(self.step)
            self.step += 1

    def block(self, steps: int) -> None:
        """One measured block of training and one of rendering."""
        self.memory.reset()
        start = self.clock()
        self.train(steps)
        self.step_seconds.append((self.clock() - start) / steps)
        if self.memory.growth_mb is not None:
            self.peaks.append(self.memory.growth_mb)
        self.model.eval()
        with torch.no_grad():
            start = self.clock()
            for _ in range(steps):
                self.model(self.rays)
            self.eval_rays_per_sec.append(steps * len(self.rays) / (self.clock() - start))

    def render_image(self) -> None:
        """Renders one evaluation view."""
        pipeline: Any = self.trainer.pipeline
        self.model.eval()
        camera = pipeline.datamanager.eval_dataset.cameras[0:1].to(self.model.device)
        start = self.clock()
        self.model.get_outputs_for_camera(camera)
        self.image_seconds.append(self.clock() - start)

    def result(self) -> SpeedArm:
        """What was measured."""
        return SpeedArm(
            sizes=measure_sizes(self.trainer),
            train_step_seconds=self.step_seconds,
            eval_rays_per_sec=self.eval_rays_per_sec,
            image_seconds=self.image_seconds,
            peak_memory_mb=max(self.peaks, default=None),
        )
