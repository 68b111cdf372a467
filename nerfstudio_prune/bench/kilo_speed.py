"""Pictures of tiny networks, of dense ones in the same cells, and of the host's own model, in turns in one process."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.utils.eval_utils import eval_setup

from nerfstudio_prune.bench.kilo_jobs import KiloSpeed
from nerfstudio_prune.bench.kilo_setup import kilo_fields, recorded_config, saved_config, teacher_schedule
from nerfstudio_prune.bench.machine import clock_of
from nerfstudio_prune.bench.own import own_precision
from nerfstudio_prune.bench.padding import pad_into
from nerfstudio_prune.bench.setup import Scene, ready_trainer
from nerfstudio_prune.bench.stock import stock_config
from nerfstudio_prune.bench.suites import Run, Scale
from nerfstudio_prune.bench.timed import PointCounter, TimedNetwork, render_seconds
from nerfstudio_prune.engine.products import Precision
from nerfstudio_prune.kilo.outputs import ViewOutputs, as_teacher
from nerfstudio_prune.kilo.teacher import Teacher, load_teacher
from nerfstudio_prune.nerf.field import PruneField
from nerfstudio_prune.nerf.model import is_linear
from nerfstudio_prune.neurons.groups import macs_per_sample
from nerfstudio_prune.records.kilo_schema import KiloFrameArm, KiloFrames, KiloNetwork, KiloRecord, KiloSpeedRecord

STOCK_RAYS = 256
"""Rays of a training step of the host's model, which is not trained here."""


def measure_kilo_speed(
    job: KiloSpeed,
    scale: Scale,
    scene: Scene,
    folder: Path,
    teacher: Run,
    students: Mapping[str, KiloRecord],
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> KiloSpeedRecord:
    """Renders A B C A B C …, so that what else the machine does hits all.

    Args:
        job: What to compare.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        teacher: The teacher's run, whose checkpoint is there.
        students: Run of tiny networks -> its record; their checkpoints are there.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    file = saved_config(teacher, scale, scene, folder)
    runs = {name: recorded_config(found, folder) for name, found in students.items()}
    tiny = {name: opened(path).model for name, path in runs.items()}
    first = next(iter(tiny.values()))
    device = first.device
    precision = own_precision(device)
    own = load_teacher(file, device)
    wide = replace(own, field=_widened(own, job.width).to(device))
    stock = TimedNetwork(
        ready_trainer(
            stock_config(f"{job.name}-stock", job.seed, scene, job.samples, STOCK_RAYS, folder / "work" / "runs")
        )
    )
    cameras = stock.pipeline.datamanager.eval_dataset.cameras
    dense = opened(file).model
    arms = [
        _Arm("stock", "stock", stock.model, "highest", job.stock_rows),
        _Arm(f"dense {_width(own)}, two fields, skipping", "dense", dense, precision, run=teacher.name),
        *(
            _Arm(f"dense {_width(field)}, in the cells", "dense", _looking_as(first, field), precision, field=field)
            for field in (wide, own)
        ),
        *(_Arm(name, "tiny", model, precision, run=name) for name, model in tiny.items()),
    ]
    heights = [int(cameras[0].height.item()) * factor for factor in (1, job.enlarged)]
    for arm in arms:
        arm.block(cameras[0:1].to(device), heights, counts=False)
    for i in range(job.rounds):
        view = i * len(cameras) // job.rounds
        for arm in arms:
            arm.block(cameras[view : view + 1].to(device), heights)
        advance((i + 1) / job.rounds)
    clock, _ = clock_of(device)
    return KiloSpeedRecord(
        **kilo_fields(job, scale, scene, next(iter(students.values())).method, {}, device, identity),
        schedule=teacher_schedule(teacher, scale),
        teacher=teacher.name,
        arms=[arm.result() for arm in arms],
        clock=clock,
    )


def opened(path: Path) -> Any:
    """The pipeline of a run as `ns-eval` opens it: with its data, which say how far the space reaches that is empty."""
    _, pipeline, _, _ = eval_setup(path, test_mode="test")
    return pipeline


def _looking_as(model: Any, field: Teacher) -> Any:
    """The model with a dense field in place of its networks; cells are shared."""
    other = copy(model)
    other.look = as_teacher(field)
    return other


def _width(teacher: Teacher) -> int:
    layer: Any = teacher.field.mlp_base.layers[0]
    return layer.weight.shape[0]


def _widened(teacher: Teacher, width: int) -> PruneField:
    """The same function in a field of another width, with zeros around its weights."""
    options = replace(
        teacher.config.pipeline.model, base_mlp_layer_width=width, head_mlp_layer_width=max(1, width // 2)
    )
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    field = options.setup(scene_box=box, num_train_data=1).field_fine
    pad_into(teacher.field, field)
    return field.eval().requires_grad_(False)


class _Arm:
    """One way to render."""

    def __init__(
        self,
        label: str,
        network: KiloNetwork,
        model: Any,
        precision: Precision,
        rows: int = 1,
        run: Optional[str] = None,
        field: Optional[Teacher] = None,
    ) -> None:
        self.label, self.model, self.precision = label, model, precision
        self.network: KiloNetwork = network
        self.rows, self.run, self.field = rows, run, field
        self.clock = clock_of(model.device)[1]
        self.seconds: dict[tuple[int, int], list[float]] = {}
        self.samples: dict[tuple[int, int], list[float]] = {}
        self.used_rows: dict[tuple[int, int], int] = {}

    @torch.no_grad()
    def block(self, camera: Cameras, heights: list[int], counts: bool = True) -> None:
        """One picture of each size; the host's model, which takes long, only of the first.

        Args:
            camera: The view.
            heights: Rows of pixels of each size.
            counts: Whether it is kept.
        """
        torch.set_float32_matmul_precision(self.precision)
        for height in heights[: 1 if self.network == "stock" else None]:
            view = camera[...]
            if height != int(view.height.item()):
                view.rescale_output_resolution(height / float(view.height.item()), "round")
            size, rows = (int(view.height.item()), int(view.width.item())), min(self.rows, height)
            counter = PointCounter(self.model) if self.network == "dense" and self.field is None else None
            if counter is None:
                seconds, outputs = render_seconds(self.model, self.clock, view, rows)
            else:
                with counter.counting():
                    seconds, outputs = render_seconds(self.model, self.clock, view, rows)
            if not counts:
                continue
            points = None if counter is None else sum(counter.per_ray(size[0] * size[1]).values())
            self.seconds.setdefault(size, []).append(seconds)
            self.samples.setdefault(size, []).append(self._samples(outputs) if points is None else points)
            self.used_rows[size] = rows

    def _samples(self, outputs: Any) -> float:
        """Points of a ray at which networks were evaluated."""
        if isinstance(outputs, ViewOutputs):
            return float(outputs.counts.float().mean())
        config = self.model.config
        # The fine field sees the coarse bins as well, and one interval more than the sum.
        return float(2 * config.num_coarse_samples + config.num_importance_samples + 1)

    def result(self) -> KiloFrameArm:
        """What was measured."""
        networks, macs = 1, None
        if self.network == "tiny":
            found = self.model.networks
            used = [shape for shape, count in zip(found.shapes, found.counts, strict=True) if count]
            networks, macs = found.num_networks, used[0].macs if len(used) == 1 else None
        else:
            fine = self.model.field_fine if self.field is None else self.field.field
            macs = macs_per_sample(layer for layer in fine.modules() if is_linear(layer))
        return KiloFrameArm(
            label=self.label,
            network=self.network,
            run=self.run,
            cells=self.network == "tiny" or self.field is not None,
            networks=networks,
            macs_per_point=macs,
            matmul_precision=self.precision,
            frames=[
                KiloFrames(list(size), seconds, self.used_rows[size], sum(self.samples[size]) / len(self.samples[size]))
                for size, seconds in self.seconds.items()
            ],
        )
