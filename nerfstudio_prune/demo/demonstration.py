"""Trains the built-in scene with pruning, measures at every turn of the run, and prints what was gained."""

import io
import shlex
import time
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from rich.table import Table

from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.data.images import to_uint8
from nerfstudio_prune.demo.command import Demo
from nerfstudio_prune.demo.pictures import details, framed, side_by_side
from nerfstudio_prune.demo.shows import SHOWS
from nerfstudio_prune.engine.checkpoints import checkpoint_bytes, newest_checkpoint
from nerfstudio_prune.engine.host import forked, seed_host
from nerfstudio_prune.engine.pipeline import ControlledPipeline
from nerfstudio_prune.engine.trainer import PruneTrainer


@dataclass
class Moment:
    """What the model is and does at one point of the run."""

    label: str
    costs: Mapping[str, int]
    """Name of each cost of what is pruned -> its value."""
    checkpoint_mb: Optional[float]
    """Size of a checkpoint in units of 10^6 bytes; None before the first step, when the optimizers hold nothing."""
    rays_per_sec: Optional[float]
    """Training rays per second of the steps up to here; None where there were none."""
    frame_ms: float
    """Time that one test view takes, in milliseconds."""
    psnr: float
    ssim: float
    image: np.ndarray
    """Rendered test view, [height, width, 3] uint8."""

    @property
    def weights_mb(self) -> float:
        """Size of the parameters in float32, in units of 10^6 bytes."""
        return self.costs["parameters"] * 4 / 1e6


class Demonstration:
    """One run of the demo; the controller's `measure` in it.

    Args:
        options: Options of the command, in range.
    """

    def __init__(self, options: Demo) -> None:
        self.options = options
        self.show = SHOWS[options.what]
        count = options.num_test_views
        self.description = f"mean of {count} test {'view' if count == 1 else 'views'}"
        self.moments: list[Moment] = []
        self._before: Any = None
        self._left_out: Optional[np.ndarray] = None

    def config(self) -> TrainerConfig:
        """The run's configuration: the method of the demo with the options above."""
        config = deepcopy(all_methods[self.show.method])
        config.output_dir = self.options.output_dir
        config.experiment_name = "demo"
        if (steps := self.options.max_num_iterations) is not None:
            if (start := config.pipeline.prune.start_step) is not None:
                config.pipeline.prune.start_step = start * steps // config.max_num_iterations
            config.max_num_iterations = steps
        # The test views are measured by this script; the trainer's own evaluation would only take time.
        config.steps_per_eval_batch = config.steps_per_eval_image = config.max_num_iterations + 1
        dataparser = config.pipeline.datamanager.dataparser
        if self.options.image_size is not None:
            dataparser.image_size = self.options.image_size
        dataparser.num_test_views = self.options.num_test_views
        config.set_timestamp()
        return config

    def run(self) -> None:
        """Trains, prunes, measures and prints."""
        warnings.filterwarnings("ignore", module="nerfstudio|torchmetrics|torch")
        config = self.config()
        config.save_config()
        seed_host(config.machine.seed)
        trainer: PruneTrainer = config.setup(local_rank=0, world_size=1)
        trainer.setup(test_mode="test")
        pipeline: Any = trainer.pipeline
        assert isinstance(pipeline, ControlledPipeline) and pipeline.controller is not None
        pipeline.controller.measure = self
        self._trainer = trainer
        if self.show.from_start:
            self(pipeline.model)
        # In the training, where the threads and the precision of products are those of the steps.
        at_end = TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], lambda step: self(pipeline.model))
        trainer.callbacks.append(at_end)
        trainer.train()

        base_dir = config.get_base_dir()
        picture = base_dir / "side_by_side.png"
        self._save_picture(picture, pipeline)
        CONSOLE.print(self._table())
        CONSOLE.print(self._summary())
        for label, path in (
            ("config", base_dir / "config.yml"),
            ("checkpoint", newest_checkpoint(trainer.checkpoint_dir).path),
            ("side by side", picture),
        ):
            CONSOLE.print(escape(f"{label + ':':14}{path}"), soft_wrap=True)
        for label, command in (("measure it", "ns-eval"), ("look at it", "ns-viewer")):
            line = f"{label + ':':14}{command} --load-config {shlex.quote(str(base_dir / 'config.yml'))}"
            CONSOLE.print(escape(line), soft_wrap=True)

    def __call__(self, model: Any) -> dict[str, float]:
        """Measures and records the present state; the controller calls it right before and right after an event."""
        trainer, show = self._trainer, self.show
        pipeline: Any = trainer.pipeline
        label = show.moments[len(self.moments)]
        if label == show.dense:
            trainer.threads.hold()  # the cut one is compared at the same number
        with forked(model.device):
            metrics = pipeline.get_average_eval_image_metrics()
            camera = pipeline.datamanager.eval_dataset.cameras[self.options.view : self.options.view + 1]
            pipeline.eval()
            start = time.perf_counter()
            rendered = model.get_outputs_for_camera(camera.to(model.device))
            seconds = time.perf_counter() - start
            if label == show.cut and show.left_out is not None:
                self._left_out = to_uint8(show.left_out(self._before, model, camera.to(model.device)))
            pipeline.train()
        self._before = show.copy(model) if label == show.dense else None
        # What has no moments yet, or has lost them, is saved without two thirds of its size.
        stepped = all(optimizer.state for optimizer in trainer.optimizers.optimizers.values())
        quality = {"psnr": metrics["psnr"], "ssim": metrics.get("ssim", metrics.get("fine_ssim"))}
        self.moments.append(
            Moment(
                label=label,
                costs=pipeline.controller.run.subject.sizes().costs,
                checkpoint_mb=checkpoint_bytes(trainer) / 1e6 if stepped else None,
                rays_per_sec=pipeline.controller.rays_per_sec or None,
                frame_ms=seconds * 1e3,
                image=to_uint8(rendered["rgb"]),
                **quality,
            )
        )
        return quality

    def _moment(self, label: str) -> Moment:
        return next(moment for moment in self.moments if moment.label == label)

    def _labels(self) -> dict[str, str]:
        """Names of the costs that the table shows; bytes are among its MB."""
        pipeline: Any = self._trainer.pipeline
        labels: Mapping[str, str] = pipeline.controller.run.subject.labels
        return {name: label for name, label in labels.items() if name != "bytes"}

    def _table(self) -> Table:
        table, labels = Table(title=f"{self.show.method}, {self.description}", title_justify="left"), self._labels()
        rest = ("checkpoint MB", "MB in fp32", "train rays/s", "ms a frame", "PSNR dB", "SSIM")
        for column in ("", *labels.values(), *rest):
            table.add_column(column, justify="right" if column else "left", no_wrap=not column)
        for moment in self.moments:
            table.add_row(
                moment.label,
                *(f"{moment.costs[name]:,}" for name in labels),
                "—" if moment.checkpoint_mb is None else f"{moment.checkpoint_mb:.2f}",
                f"{moment.weights_mb:.2f}",
                "—" if moment.rays_per_sec is None else f"{moment.rays_per_sec:,.0f}",
                f"{moment.frame_ms:,.0f}",
                f"{moment.psnr:.2f}",
                f"{moment.ssim:.3f}",
            )
        return table

    def _summary(self) -> str:
        dense, last = self._moment(self.show.dense), self.moments[-1]
        assert dense.rays_per_sec and last.rays_per_sec
        fewer = [
            f"{dense.costs[name] / last.costs[name]:.1f}x fewer {label.removesuffix(' per ray')}"
            for name, label in self._labels().items()
        ]
        return (
            f"{', '.join(fewer)}, {last.rays_per_sec / dense.rays_per_sec:.1f}x faster training, "
            f"{last.psnr - dense.psnr:+.2f} dB against the dense model at the time of pruning "
            "(the pruned one trained on; a dense control is `--pipeline.prune.strategy none`)"
        )

    def _save_picture(self, path: Path, pipeline: Any) -> None:
        truth = to_uint8(pipeline.datamanager.eval_dataset[self.options.view]["image"])
        seen = [self._moment(label) for label in self.show.seen]
        captions = ["ground truth", *(self._caption(moment) for moment in seen)]
        pictures = framed([truth, *(moment.image for moment in seen)], truth)
        if self._left_out is not None:
            pictures += [*framed([self._left_out], truth), details(pictures[0], pictures[1:4])]
            captions += ["what the cut took, alone", "a detail of the first four"]
        content = io.BytesIO()
        columns = 3 if self._left_out is not None else 0
        side_by_side(pictures, captions, columns=columns).save(content, "PNG")
        write_file(path, content.getvalue())

    def _caption(self, moment: Moment) -> str:
        """Name, size and quality of a moment."""
        name, label = next(iter(self._labels().items()))
        return f"{moment.label}: {moment.costs[name]:,} {label}, {moment.psnr:.1f} dB"
