"""Speed of dense and pruned Gaussians, measured in turns in one process."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import MemoryMeter
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.splat_quality import SplatMeter
from nerfstudio_prune.bench.splat_setup import make_splat_trainer, record_fields
from nerfstudio_prune.bench.splat_suite import SplatScale, SplatSpeed
from nerfstudio_prune.bench.timed import train_step
from nerfstudio_prune.records.splat_schema import SplatSpeedArm, SplatSpeedRecord

WARM_UP_BLOCKS = 1
FRAMES = 5
"""Views that are rendered a block."""


def measure_splat_speed(
    job: SplatSpeed,
    scale: SplatScale,
    scene: Scene,
    folder: Path,
    checkpoints: Mapping[str, Path],
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> SplatSpeedRecord:
    """Measures blocks of training steps and renderings A B A B …, so that what else the machine does hits both.

    Args:
        job: What to compare.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        checkpoints: Run -> checkpoint of its end.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    arms = [
        _Arm(f"{job.name}-{label}", job.seed, scale, scene, folder, checkpoints[name])
        for label, name in (("dense", job.dense), ("pruned", job.pruned))
    ]
    peaks = []
    for i in range(WARM_UP_BLOCKS + scale.speed_blocks):
        for arm in arms:
            arm.block(scale.speed_steps, counts=i >= WARM_UP_BLOCKS)
            peaks.append(arm.memory.peak_mb or 0.0)
        advance((i + 1) / (WARM_UP_BLOCKS + scale.speed_blocks))
    camera = arms[0].camera(0)
    return SplatSpeedRecord(
        **record_fields(job, scale, scene, scale.options, arms[0].model.device, identity),
        parents={"dense": job.dense, "pruned": job.pruned},
        image_size=[int(camera.height.item()), int(camera.width.item())],
        keep=job.keep,
        warm_up_blocks=WARM_UP_BLOCKS,
        steps_per_block=scale.speed_steps,
        process_memory_mb=max(peaks) or None,
        dense=arms[0].result(),
        pruned=arms[1].result(),
        clock=arms[0].meter.clock,
    )


class _Arm:
    """One model with its own trainer, advanced by hand."""

    def __init__(self, name: str, seed: int, scale: SplatScale, scene: Scene, folder: Path, checkpoint: Path) -> None:
        # As long as the recovery: the model is what it is at the end of one.
        steps = scale.recovery_steps
        self.trainer: Trainer = make_splat_trainer(name, seed, dict(scale.options), scene, steps, folder, checkpoint)
        pipeline: Any = self.trainer.pipeline
        self.pipeline, self.model = pipeline, pipeline.model
        self.meter = SplatMeter(self.trainer, scale.views)
        self.clock = self.meter.now
        self.memory = MemoryMeter(self.model.device)
        self.step = self.trainer._start_step
        self.step_seconds: list[float] = []
        self.frame_seconds: list[float] = []
        self.peaks: list[float] = []

    def camera(self, view: int) -> Any:
        """Camera of a test view."""
        return self.pipeline.view("eval", view)[0]

    def block(self, steps: int, counts: bool) -> None:
        """One block of training and one of rendering.

        Args:
            steps: Training steps.
            counts: Whether it is kept.
        """
        self.memory.reset()
        self.pipeline.train()
        start = self.clock()
        for _ in range(steps):
            train_step(self.trainer, self.step)
            self.step += 1
        seconds = (self.clock() - start) / steps
        growth = self.memory.growth_mb
        self.model.eval()
        count = len(self.pipeline.datamanager.eval_dataset)
        with torch.no_grad():
            cameras = [self.camera(i * count // min(count, FRAMES)) for i in range(min(count, FRAMES))]
            start = self.clock()
            for camera in cameras:
                self.model.render(self.model.gaussians, camera)
            frame = (self.clock() - start) / len(cameras)
        if counts:
            self.step_seconds.append(seconds)
            self.frame_seconds.append(frame)
            self.peaks += [] if growth is None else [growth]

    def result(self) -> SplatSpeedArm:
        """What was measured."""
        gaussians = self.model.gaussians
        return SplatSpeedArm(
            gaussians=len(gaussians),
            sh_degree=gaussians.sh_degree,
            train_step_seconds=self.step_seconds,
            frame_seconds=self.frame_seconds,
            pairs_per_pixel=self.meter.pairs_per_pixel(self.model),
            peak_memory_mb=max(self.peaks, default=None),
        )
