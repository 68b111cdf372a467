"""Time and memory of a training step and of a picture by the size of network, batch and picture."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

import torch

from nerfstudio_prune.bench.cost_jobs import MODEL, Samples, Scaling
from nerfstudio_prune.bench.machine import describe_machine
from nerfstudio_prune.bench.own import SKIP, dense_run, own_network, own_precision
from nerfstudio_prune.bench.setup import Scene, run_options
from nerfstudio_prune.bench.suites import Scale
from nerfstudio_prune.bench.timed import PointCounter, TimedNetwork
from nerfstudio_prune.nerf.rows import RAYS_AT_ONCE
from nerfstudio_prune.records.cost_schema import Axis, LargeFrame, LargeFrames, ScalingPoint, ScalingRecord

FLOATS_PER_PIXEL = 32
"""Numbers of 4 bytes a pixel: the outputs in parts and as a whole, 25, and what is read of them."""
FLOATS_PER_RAY = 136
"""Numbers a ray of those that are made at once, by the host."""
FLOATS_PER_POINT = 64
"""Numbers a point of the rays that are rendered at once: places, densities, colours and weights take about 45."""
ALLOWANCE_MB = 32.0
"""Activations, of which there are a few MB at a time, and what the allocators keep."""
LARGE = 0.5
"""Share of the work, for the bar: the large picture."""


def measure_scaling(
    job: Scaling,
    scale: Scale,
    scene: Scene,
    folder: Path,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> ScalingRecord:
    """Measures blocks of all points in turns, and then one large picture.

    Args:
        job: What to measure.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    networks: dict[tuple[int, Samples], TimedNetwork] = {}

    def network(width: int, samples: Samples) -> TimedNetwork:
        if (width, samples) not in networks:
            run = dense_run(job.name, job.seed, width, samples)
            networks[width, samples] = own_network(run, scale, scene, folder)
        return networks[width, samples]

    steps, frames = _steps(job, network), _frames(job, network)
    middle = network(*job.middle[:2])
    precision = own_precision(middle.model.device)
    torch.set_float32_matmul_precision(precision)
    points: list[_Point] = [*steps, *frames]
    for point in points:
        point.warm_up()
    for i in range(job.rounds):
        for point in points:
            point.seconds.append(point.block())
        advance((1 - LARGE) * (i + 1) / job.rounds)
    large = measure_large(job, scale, scene, folder)
    return ScalingRecord(
        name=job.name,
        seed=job.seed,
        method=scene.method,
        scene=scene.name,
        scale=scale.name,
        config=dict(run_options(dense_run(job.name, job.seed, *job.middle[:2]), scale, scene.method)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=describe_machine(middle.model.device),
        matmul_precision=precision,
        steps=[point.result() for point in steps],
        frames=[point.result() for point in frames],
        large=large,
        clock=middle.clock_name,
        digest=identity["digest"],
        command=identity["command"],
    )


class _Point(ABC):
    """One network doing one thing."""

    def __init__(self, axis: Axis, network: TimedNetwork, job: Scaling) -> None:
        self.axis: Axis = axis
        self.network, self.job = network, job
        self.seconds: list[float] = []
        self.memory: Optional[float] = None

    @property
    @abstractmethod
    def count(self) -> int:
        """Rays, or pixels."""

    @abstractmethod
    def once(self) -> float:
        """Does it once, and gives the seconds."""

    def warm_up(self) -> None:
        """What does not count, and how much memory it takes."""
        self.once()
        self.memory = self.network.growth(self.once)

    def block(self) -> float:
        """Seconds, measured as long as is needed."""
        return self.once()

    def result(self) -> ScalingPoint:
        """What was measured."""
        config = self.network.model.config
        return ScalingPoint(
            axis=self.axis,
            width=config.base_mlp_layer_width,
            samples=[config.num_coarse_samples, config.num_importance_samples],
            count=self.count,
            points=sum(self.network.samples.values()),
            macs_per_point=self.network.macs_per_point,
            seconds=self.seconds,
            memory_mb=self.memory,
        )


class _Step(_Point):
    """A training step of a number of rays."""

    def __init__(self, axis: Axis, network: TimedNetwork, job: Scaling, rays: int) -> None:
        super().__init__(axis, network, job)
        self.rays = rays
        self.steps = 1

    @property
    def count(self) -> int:
        """Rays."""
        return self.rays

    def once(self) -> float:
        """One step."""
        return self._train(1)

    def warm_up(self) -> None:
        """First steps, and how many a block has."""
        super().warm_up()
        self.steps = self.network.steps_of_block(self.job.block_seconds, self.job.most_steps)

    def block(self) -> float:
        """Seconds of a step, mean over a block."""
        return self._train(self.steps)

    def _train(self, steps: int) -> float:
        self.network.pipeline.datamanager.train_pixel_sampler.set_num_rays_per_batch(self.rays)
        return self.network.train(steps)


class _Frame(_Point):
    """A picture of a number of rows of pixels."""

    def __init__(self, axis: Axis, network: TimedNetwork, job: Scaling, height: int) -> None:
        super().__init__(axis, network, job)
        self.camera = network.camera(0, height)

    @property
    def count(self) -> int:
        """Pixels."""
        return int(self.camera.height.item()) * int(self.camera.width.item())

    def once(self) -> float:
        """One picture."""
        return self.network.render(self.camera)


Networks = Callable[[int, Samples], TimedNetwork]


def _steps(job: Scaling, network: Networks) -> list[_Point]:
    width, samples, rays, _ = job.middle
    return [
        *(_Step("width", network(one, samples), job, rays) for one in job.widths),
        *(_Step("samples", network(width, some), job, rays) for some in job.samples),
        *(_Step("rays", network(width, samples), job, count) for count in job.rays),
    ]


def _frames(job: Scaling, network: Networks) -> list[_Point]:
    width, samples, _, height = job.middle
    return [
        *(_Frame("width", network(one, samples), job, height) for one in job.widths),
        *(_Frame("samples", network(width, some), job, height) for some in job.samples),
        *(_Frame("pixels", network(width, samples), job, rows) for rows in job.heights),
    ]


def memory_bound(pixels: int, rays_at_once: int, points: int) -> float:
    """What a picture must not exceed, in MB: it grows with the pixels by their outputs alone.

    Args:
        pixels: Pixels.
        rays_at_once: Rays that are rendered at once.
        points: Points of a ray, both fields together.
    """
    rays = FLOATS_PER_RAY * min(pixels, RAYS_AT_ONCE)
    floats = FLOATS_PER_PIXEL * pixels + rays + FLOATS_PER_POINT * min(pixels, rays_at_once) * points
    return 4 * floats / 1e6 + ALLOWANCE_MB


def measure_large(job: Scaling, scale: Scale, scene: Scene, folder: Path) -> LargeFrames:
    """Trains a small network for a short while, and renders a large picture of it with and without empty space.

    Args:
        job: What to measure.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
    """
    options = {SKIP: True, MODEL + "occupancy_warm_up_steps": job.large_warm_up}
    options |= {MODEL + "grid_resolution": job.grid_resolution}
    run = dense_run(f"{job.name}-large", job.seed, job.large_width, job.large_samples, **options)
    network = own_network(run, scale, scene, folder)
    torch.set_float32_matmul_precision(own_precision(network.model.device))
    network.train(job.large_steps)
    model, camera = network.model, network.camera(0, job.large_height)
    model.empty_space.training, model.empty_space.in_training = {}, False
    height, width = int(camera.height.item()), int(camera.width.item())
    frames = []
    for skips in (False, True):
        model.config.skip_empty_space = skips
        network.render(network.camera(0, 8))  # what is made once for these weights or this process is no part of it
        counter = PointCounter(model)
        with counter.counting():
            network.memory.reset()
            seconds = network.render(camera)
            memory = network.memory.growth_mb
        frames.append(LargeFrame(skips, seconds, counter.per_ray(height * width), memory))
    chunk = model.config.eval_num_rays_per_chunk
    return LargeFrames(
        width=job.large_width,
        samples=list(job.large_samples),
        train_steps=job.large_steps,
        image_size=[height, width],
        eval_rays_per_chunk=chunk,
        bound_mb=memory_bound(height * width, chunk, sum(network.samples.values())),
        frames=frames,
    )
