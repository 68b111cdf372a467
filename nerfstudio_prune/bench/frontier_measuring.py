"""Finished runs of all kinds, rendered in turns in one process, and measured on the same views."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_prune.bench.frontier_jobs import FrontierRun
from nerfstudio_prune.bench.kilo_setup import recorded_config, saved_config, teacher_schedule
from nerfstudio_prune.bench.kilo_speed import opened
from nerfstudio_prune.bench.machine import clock_of, describe_machine
from nerfstudio_prune.bench.own import own_precision
from nerfstudio_prune.bench.setup import Scene, ready_trainer
from nerfstudio_prune.bench.splat_setup import SPLAT_PACKAGES, make_splat_trainer, warm_up
from nerfstudio_prune.bench.splat_suite import SplatScale
from nerfstudio_prune.bench.stock import stock_config
from nerfstudio_prune.bench.suites import Run, Scale
from nerfstudio_prune.bench.timed import render_seconds
from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.engine.products import Precision
from nerfstudio_prune.gaussians.budget import uncompressed_bytes
from nerfstudio_prune.nerf.layouts import fields_of
from nerfstudio_prune.records.frontier_schema import Family, FrontierArm, FrontierRecord
from nerfstudio_prune.records.kilo_schema import KiloRecord
from nerfstudio_prune.records.schema import Quality, RunRecord, ViewQuality
from nerfstudio_prune.records.splat_schema import SplatRecord

BYTES = 4
"""Of a number in float32."""
STOCK_SAMPLES, STOCK_RAYS = (64, 128), 256
"""Samples of a ray of the host's model, which has its own widths; rays of its training step, of which none is taken."""

View = tuple[Cameras, dict[str, Any]]
"""A camera, and the picture that was taken."""


@dataclass
class Finished:
    """A finished run, opened."""

    label: str
    family: Family
    run: Optional[str]
    model: Any
    view: Callable[[int], View]
    """Index of a test view -> the view."""
    views: int
    """Test views that there are."""
    precision: Precision
    units: int
    plain_bytes: int
    train_seconds: Optional[float]
    rows: int = 1
    prefix: str = ""
    """Before the names of the host's metrics but PSNR."""
    seconds: list[float] = field(default_factory=list)

    def frame(self, index: int, clock: Callable[[], float], counts: bool = True) -> None:
        """Renders a test view.

        Args:
            index: Its index.
            clock: Tells the time in seconds.
            counts: Whether it is kept.
        """
        torch.set_float32_matmul_precision(self.precision)
        seconds, _ = render_seconds(self.model, clock, self.view(index)[0], self.rows)
        if counts:
            self.seconds.append(seconds)

    def quality(self, views: list[int]) -> Quality:
        """Quality of whole test views, as the host measures it.

        Args:
            views: Their indices.
        """
        torch.set_float32_matmul_precision(self.precision)
        found = []
        with forked(self.model.device), torch.no_grad():
            for index in views:
                camera, batch = self.view(index)
                outputs = self.model.get_outputs_for_camera(camera)
                metrics, _ = self.model.get_image_metrics_and_images(outputs, batch)
                found.append(
                    ViewQuality(
                        index, metrics["psnr"], metrics[f"{self.prefix}ssim"], metrics.get(f"{self.prefix}lpips")
                    )
                )
        return Quality.of(found)

    def result(self, quality: Optional[Quality]) -> FrontierArm:
        """What was measured.

        Args:
            quality: On test views.
        """
        return FrontierArm(
            label=self.label,
            family=self.family,
            run=self.run,
            units=self.units,
            plain_bytes=self.plain_bytes,
            train_seconds=self.train_seconds,
            quality=quality,
            frame_seconds=self.seconds,
            rows=self.rows,
        )


def open_network(label: str, run: Run, record: RunRecord, scale: Scale, scene: Scene, folder: Path) -> Finished:
    """A network of this project.

    Args:
        label: In words.
        run: Its run, whose checkpoint is there.
        record: Its record.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
    """
    pipeline = opened(saved_config(run, scale, scene, folder))
    parameters = record.end.sizes.parameters
    seconds = record.seconds.train_total + record.seconds.prune
    network = _of_rays(label, "network", run.name, pipeline, parameters, seconds)
    network.prefix = "fine_"
    return network


def open_tiny(label: str, record: KiloRecord, folder: Path) -> Finished:
    """Tiny networks.

    Args:
        label: In words.
        record: Record of their run, whose checkpoint is there.
        folder: Folder of the benchmark.
    """
    pipeline = opened(recorded_config(record, folder))
    seconds = record.seconds.total + record.teacher.seconds
    return _of_rays(label, "tiny networks", record.name, pipeline, record.end.parameters, seconds)


def open_gaussians(
    label: str, record: SplatRecord, checkpoint: Path, scale: SplatScale, scene: Scene, folder: Path
) -> Finished:
    """Gaussians.

    Args:
        label: In words.
        record: Record of their run.
        checkpoint: Its checkpoint.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
    """
    # A trainer takes one step at least; none is taken here.
    name, options = f"{record.name}-opened", dict(scale.options)
    pipeline: Any = make_splat_trainer(name, record.seed, options, scene, 1, folder, checkpoint).pipeline
    warm_up(pipeline)
    end = record.end
    return Finished(
        label=label,
        family="Gaussians",
        run=record.name,
        model=pipeline.model.eval(),
        view=lambda index: pipeline.view("eval", index),
        views=len(pipeline.datamanager.eval_dataset),
        precision="highest",
        units=end.gaussians,
        plain_bytes=uncompressed_bytes(end.gaussians, end.sh_degree),
        train_seconds=record.seconds.train_total + record.seconds.prune_total,
    )


def open_stock(job: FrontierRun, scene: Scene, folder: Path) -> Finished:
    """The host's own model, as it is before its training: what a picture costs does not depend on that.

    Args:
        job: The job.
        scene: Data.
        folder: Folder of the benchmark.
    """
    config = stock_config(f"{job.name}-stock", job.seed, scene, STOCK_SAMPLES, STOCK_RAYS, folder / "work" / "runs")
    pipeline: Any = ready_trainer(config).pipeline
    parameters = sum(p.numel() for own in fields_of(pipeline.model).values() for p in own.parameters())
    stock = _of_rays("vanilla-nerf", "stock", None, pipeline, parameters, None)
    stock.precision, stock.rows = "highest", job.stock_rows
    return stock


def _of_rays(
    label: str, family: Family, run: Optional[str], pipeline: Any, parameters: int, seconds: Optional[float]
) -> Finished:
    model, dataset = pipeline.model.eval(), pipeline.datamanager.eval_dataset
    return Finished(
        label=label,
        family=family,
        run=run,
        model=model,
        view=lambda index: (dataset.cameras[index : index + 1].to(model.device), dataset[index]),
        views=len(dataset),
        precision=own_precision(model.device),
        units=parameters,
        plain_bytes=BYTES * parameters,
        train_seconds=seconds,
    )


def measure_frontier(
    job: FrontierRun,
    scale: Scale,
    scene: Scene,
    arms: Sequence[Finished],
    taught: Run,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> FrontierRecord:
    """Renders A B C A B C …, so that what else the machine does hits all; then measures whole test views.

    Args:
        job: What to compare.
        scale: Sizes.
        scene: Data.
        arms: The runs, opened; the host's first.
        taught: A run of networks, which says how they were trained.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    stock = arms[0]
    clock, now = clock_of(stock.model.device)
    count = stock.views
    for arm in arms:
        arm.frame(0, now, counts=False)
    for i in range(job.rounds):
        for arm in arms:
            arm.frame(i * count // job.rounds, now)
        advance((i + 1) / (2 * job.rounds))
    wanted = min(scale.views, count)
    views = [i * count // wanted for i in range(wanted)]
    results = [stock.result(None)]
    for i, arm in enumerate(arms[1:], 1):
        results.append(arm.result(arm.quality(views)))
        advance(0.5 + 0.5 * i / (len(arms) - 1))
    camera = stock.view(0)[0]
    return FrontierRecord(
        name=job.name,
        seed=job.seed,
        method=scene.method,
        data=type(scene.dataparser).__name__.removesuffix("Config"),
        scene=scene.name,
        scale=scale.name,
        config={},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=describe_machine(stock.model.device, SPLAT_PACKAGES),
        schedule=teacher_schedule(taught, scale),
        image_size=[int(camera.height.item()), int(camera.width.item())],
        arms=results,
        clock=clock,
        digest=identity["digest"],
        command=identity["command"],
    )
