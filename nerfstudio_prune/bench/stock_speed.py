"""Speed of this project's networks beside the host's own, with and without the samples in empty space.

All arms show one scene, take turns in one process, and are timed by one clock.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import torch

from nerfstudio_prune.bench.cost_jobs import MODEL, StockSpeed
from nerfstudio_prune.bench.machine import describe_machine
from nerfstudio_prune.bench.own import SKIP, STRATEGY, dense_run, own_network, own_precision
from nerfstudio_prune.bench.padding import pad_into
from nerfstudio_prune.bench.peak import peak_flops
from nerfstudio_prune.bench.setup import Scene, ready_trainer, run_options
from nerfstudio_prune.bench.stock import stock_config
from nerfstudio_prune.bench.suites import DECAY, Run, Scale
from nerfstudio_prune.bench.timed import PointCounter, TimedNetwork, mean_points
from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.engine.memory import kept_memory
from nerfstudio_prune.engine.products import Precision
from nerfstudio_prune.nerf.layouts import fields_of
from nerfstudio_prune.nerf.model import PruneModelConfig
from nerfstudio_prune.occupancy import Grids
from nerfstudio_prune.records.cost_schema import CostArm, EventCost, FineView, SkippedView, StockSpeedRecord

PRESET = "best"
"""Preset of the events that are timed."""
TRAINED, EVENTS = 0.4, 0.1
"""Shares of the work, for the bar: training of the scene, and events."""


def measure_stock_speed(
    job: StockSpeed,
    scale: Scale,
    scene: Scene,
    folder: Path,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> StockSpeedRecord:
    """Measures blocks of training steps and pictures A B C A B C …, so that what else the machine does hits all.

    Args:
        job: What to compare.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    makers = _Makers(job, scale, scene, folder)
    trained = makers.trained()
    precision = own_precision(trained.model.device)
    torch.set_float32_matmul_precision(precision)
    for step in range(job.train_steps):
        trained.train(1)
        advance(TRAINED * (step + 1) / job.train_steps)
    views = compare_views(trained, scale.views)
    arms = _arms(job, makers, trained, precision)
    for arm in arms:
        arm.warm_up()
    peaks = []
    for i in range(job.rounds):
        peaks.append(peak_flops({"highest", precision}, trained.model.device, trained.clock))
        for arm in arms:
            arm.block(i)
        advance(TRAINED + (1 - TRAINED - EVENTS) * (i + 1) / job.rounds)
    event = EventCost(job.widths[0], PRESET, [makers.event_seconds(i, precision) for i in range(job.events)])
    camera = trained.camera(0)
    return StockSpeedRecord(
        name=job.name,
        seed=job.seed,
        method=scene.method,
        scene=scene.name,
        scale=scale.name,
        config=dict(run_options(makers.run(job.widths[0]), scale, scene.method)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=describe_machine(trained.model.device),
        rays_per_batch=trained.rays_per_batch,
        image_size=[int(camera.height.item()), int(camera.width.item())],
        samples=list(job.samples),
        train_steps=job.train_steps,
        trained_width=job.widths[-1],
        update_interval=PruneModelConfig().occupancy_update_interval,
        peak_flops=peaks,
        arms=[arm.result() for arm in arms],
        event=event,
        views=views,
        clock=trained.clock_name,
        digest=identity["digest"],
        command=identity["command"],
    )


class _Makers:
    """Makes the networks of a job."""

    def __init__(self, job: StockSpeed, scale: Scale, scene: Scene, folder: Path) -> None:
        self.job, self.scale, self.scene, self.folder = job, scale, scene, folder

    def run(self, width: int, **options: Any) -> Run:
        """A dense run of a width."""
        options = {MODEL + "grid_resolution": self.job.grid_resolution, **options}
        return dense_run(self.job.name, self.job.seed, width, self.job.samples, **options)

    def own(self, width: int, **options: Any) -> TimedNetwork:
        """A network of this project.

        Args:
            width: Neurons of a trunk layer.
            options: Options by dotted path.
        """
        return own_network(self.run(width, **options), self.scale, self.scene, self.folder)

    def trained(self) -> TimedNetwork:
        """The network that is to be trained, as a user's is: at a rate that falls, without what is in empty space."""
        run = replace(self.run(self.job.widths[-1], **{SKIP: True}), decay=(DECAY, self.job.train_steps))
        return own_network(run, self.scale, self.scene, self.folder)

    def stock(self, rays_per_batch: int) -> TimedNetwork:
        """The host's network, as large as it is."""
        job = self.job
        name = f"{job.name}-stock"
        folder = self.folder / "work" / "runs"
        config = stock_config(name, job.seed, self.scene, job.samples, rays_per_batch, folder)
        return TimedNetwork(ready_trainer(config))

    def event_seconds(self, index: int, precision: Precision) -> float:
        """Time of a pruning event of a dense network after its first step.

        Args:
            index: Number of the event; each is of another network.
            precision: Precision of products.
        """
        options = {"pipeline.prune.preset": PRESET, "pipeline.prune.start_step": 0}
        run = self.run(self.job.widths[0], **options)
        run = replace(run, seed=self.job.seed + index, options={k: v for k, v in run.options.items() if k != STRATEGY})
        network = own_network(run, self.scale, self.scene, self.folder)
        torch.set_float32_matmul_precision(precision)
        controller = network.pipeline.controller
        network.pipeline.train()
        controller.before_step(0)
        network.trainer.train_iteration(0)
        start = network.clock()
        controller.on_step(0)
        seconds = network.clock() - start
        if not network.model.prune_state.succeeded:
            raise RuntimeError(f"{self.job.name}: no pruning event happened")
        return seconds


def _arms(job: StockSpeed, makers: _Makers, trained: TimedNetwork, precision: Precision) -> list["_Arm"]:
    """The host's model first; with the products of the other arms as well, where those are others."""

    def shows_scene(network: TimedNetwork) -> TimedNetwork:
        for name, own in fields_of(network.model).items():
            pad_into(fields_of(trained.model)[name], own)
        return network

    stock = shows_scene(makers.stock(trained.rays_per_batch))
    arms = [_Arm("stock", stock, job, "highest", False)]
    if precision != "highest":
        arms.append(_Arm(f"stock, products {precision}", stock, job, precision, False))
    for width in job.widths:
        network = shows_scene(makers.own(width))
        arms.append(_Arm(f"{width}, all samples", network, job, precision, False))
        arms.append(_Arm(f"{width}, skipping", network, job, precision, True))
        arms.append(_Arm(f"{width}, one field", network, job, precision, True, fine_field_only=True))
    return arms


class _Arm:
    """One network in one way of evaluating it."""

    def __init__(
        self,
        label: str,
        network: TimedNetwork,
        job: StockSpeed,
        precision: Precision,
        skipping: bool,
        fine_field_only: bool = False,
    ) -> None:
        self.label, self.network, self.job, self.precision = label, network, job, precision
        self.skipping, self.fine_field_only = skipping, fine_field_only
        self.counter = PointCounter(network.model)
        self.steps = 1
        self.step_seconds: list[float] = []
        self.frame_seconds: list[float] = []
        self.look_seconds: list[float] = []
        self.grids: Grids = {}
        self.step_points: list[dict[str, float]] = []
        self.frame_points: list[dict[str, float]] = []
        self.memory: tuple[Optional[float], Optional[float]] = (None, None)

    @property
    def own(self) -> bool:
        """Whether the network is of this project, and what its steps free stays for the next ones."""
        return bool(self.counter.fields)

    @property
    def rows(self) -> int:
        """Every so manieth row of a picture is rendered."""
        return 1 if self.skipping else min(self.job.rows, int(self.network.camera(0).height.item()))

    def prepare(self) -> None:
        """Sets what the arms differ in; where the scene is empty is looked at, going on from the block before."""
        torch.set_float32_matmul_precision(self.precision)
        if not self.own:
            return
        model = self.network.model
        model.config.skip_empty_space = self.skipping
        model.config.fine_field_only = self.fine_field_only
        # As in a training: pictures use its grids, and no look at the whole space is timed with them.
        model.empty_space.in_training = True
        model.empty_space.training = self.grids
        if self.skipping:
            start = self.network.clock()
            model.look(self.job.seed + len(self.look_seconds))
            self.look_seconds.append(self.network.clock() - start)
            self.grids = model.empty_space.training

    def warm_up(self) -> None:
        """First steps and pictures, which do not count, and what they take of memory.

        Apart from the blocks: before memory is measured what is free goes back to the system, and has to be got again.
        """
        self.prepare()
        network, camera = self.network, self.network.camera(0)
        network.train(1)
        network.render(camera, self.rows)
        self.memory = (
            network.growth(lambda: network.train(1)),
            network.growth(lambda: network.render(camera, self.rows)),
        )
        self.steps = network.steps_of_block(self.job.block_seconds, self.job.most_steps)
        self.look_seconds.clear()

    def block(self, index: int) -> None:
        """One measured block of training, and one picture.

        Args:
            index: Number of the block; says which view is rendered.
        """
        self.prepare()
        network = self.network
        count = len(network.pipeline.datamanager.eval_dataset)
        camera = network.camera(index * count // self.job.rounds)
        height, width = int(camera.height.item()), int(camera.width.item())
        with kept_memory(self.own):
            network.train(1)  # does not count: an arm before it may have given memory back
            with self.counter.counting():
                self.step_seconds.append(network.train(self.steps))
                self._count(self.step_points, self.steps * network.rays_per_batch)
                self.frame_seconds.append(network.render(camera, self.rows))
                self._count(self.frame_points, math.ceil(height / self.rows) * width)

    def _count(self, points: list[dict[str, float]], rays: int) -> None:
        # The host's fields evaluate everything, and are not counted.
        points.append(self.counter.per_ray(rays) or {name: float(n) for name, n in self.network.samples.items()})

    def result(self) -> CostArm:
        """What was measured."""
        layer = fields_of(self.network.model)["field_fine"].mlp_base.layers[0]
        return CostArm(
            label=self.label,
            network="own" if self.own else "stock",
            width=layer.weight.shape[0],
            skipping=self.skipping,
            matmul_precision=self.precision,
            macs_per_point=self.network.macs_per_point,
            eval_rays_per_chunk=self.network.model.config.eval_num_rays_per_chunk,
            steps_per_block=self.steps,
            step_seconds=self.step_seconds,
            frame_seconds=self.frame_seconds,
            look_seconds=self.look_seconds,
            step_points=mean_points(self.step_points),
            frame_points=mean_points(self.frame_points),
            rows=self.rows,
            step_memory_mb=self.memory[0],
            frame_memory_mb=self.memory[1],
            fine_field_only=self.fine_field_only,
        )


@torch.no_grad()
def compare_views(network: TimedNetwork, views: int) -> list[SkippedView]:
    """Renders test views with all samples, without those in empty space as a user's pictures are, and by one field.

    Args:
        network: The network; what it knows of its space for training is forgotten.
        views: How many test views, evenly spaced.
    """
    model, dataset = network.model, network.pipeline.datamanager.eval_dataset
    model.eval()
    model.empty_space.training, model.empty_space.in_training = {}, False
    count = min(views, len(dataset))
    counter, found = PointCounter(model), []
    for view in (i * len(dataset) // count for i in range(count)):
        camera = network.camera(view)
        truth = model.renderer_rgb.blend_background(dataset[view]["image"].to(model.device))
        pictures, points = [], []
        with forked(model.device):
            for skips, alone in ((False, False), (True, False), (True, True)):
                model.config.skip_empty_space, model.config.fine_field_only = skips, alone
                if skips:
                    # The look at the space evaluates fields too.
                    model.empty_space.for_evaluation(model._densities(), model._weights(), model.device)
                with counter.counting():
                    pictures.append(model.get_outputs_for_camera(camera)["rgb"])
                points.append(counter.per_ray(truth.shape[0] * truth.shape[1]))
        whole, skipped, fine = pictures
        levels = [_psnr(picture, truth) or 0.0 for picture in pictures]
        one = FineView(levels[2], _psnr(fine, whole), points[2])
        found.append(SkippedView(view, levels[0], levels[1], _psnr(skipped, whole), points[1], one))
    model.config.fine_field_only = False
    return found


def _psnr(picture: torch.Tensor, other: torch.Tensor) -> Optional[float]:
    """PSNR in dB of pictures in [0, 1]; None where they are equal."""
    error = float(torch.mean((picture.double() - other.double()) ** 2))
    return None if error == 0 else -10 * math.log10(error)
