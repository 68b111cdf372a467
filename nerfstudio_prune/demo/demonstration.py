"""Trains the built-in scene with pruning, measures before, right after and at the end, and prints what was gained."""

import io
import shlex
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image, ImageDraw
from rich.markup import escape
from rich.table import Table

from nerfstudio_prune.data.images import to_uint8
from nerfstudio_prune.demo.command import Demo
from nerfstudio_prune.engine.checkpoints import checkpoint_bytes, newest_checkpoint
from nerfstudio_prune.engine.host import forked, seed_host
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.pipeline import PrunePipeline
from nerfstudio_prune.records.files import write_file

LABELS = ("dense", "right after pruning", "after recovery")


@dataclass
class PhaseRecord:
    """What the network is and does at one point of the run."""

    label: str
    parameters: int
    macs_per_ray: int
    checkpoint_mb: float
    field_mb: float
    rays_per_sec: Optional[float]
    """Training rays per second of the steps up to here; None where there were none."""
    psnr: float
    ssim: float
    image: np.ndarray
    """Rendered test view, [height, width, 3] uint8."""


class Demonstration:
    """One run of the demo; the controller's `measure` in it.

    Args:
        options: Options of the command, in range.
    """

    def __init__(self, options: Demo) -> None:
        self.options = options
        count = options.num_test_views
        self.description = f"mean of {count} test {'view' if count == 1 else 'views'}"
        self.records: list[PhaseRecord] = []

    def config(self) -> TrainerConfig:
        """The run's configuration: `nerf-prune-demo` with the options above."""
        config = deepcopy(all_methods["nerf-prune-demo"])
        config.output_dir = self.options.output_dir
        config.experiment_name = "demo"
        if self.options.max_num_iterations is not None:
            config.max_num_iterations = self.options.max_num_iterations
        config.pipeline.prune.start_step = config.max_num_iterations // 2
        # The test views are measured by this script; the trainer's own evaluation would only take time.
        config.steps_per_eval_batch = config.steps_per_eval_image = config.max_num_iterations + 1
        dataparser = config.pipeline.datamanager.dataparser
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
        trainer: Trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup(test_mode="test")
        pipeline: Any = trainer.pipeline
        assert isinstance(pipeline, PrunePipeline) and pipeline.controller is not None
        pipeline.controller.measure = self
        self._trainer = trainer
        trainer.train()
        self(pipeline.model)

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

    def __call__(self, model: PruneModel) -> dict[str, float]:
        """Measures and records the present state; the controller calls it right before and right after the event."""
        trainer = self._trainer
        pipeline: Any = trainer.pipeline
        with forked(model.device):
            metrics = pipeline.get_average_eval_image_metrics()
            pipeline.eval()
            rendered = model.get_outputs_for_camera(
                pipeline.datamanager.eval_dataset.cameras[self.options.view : self.options.view + 1]
            )
            pipeline.train()
        costs = model.layer_costs().values()
        parameters = sum(count for count, _ in costs)
        self.records.append(
            PhaseRecord(
                label=LABELS[len(self.records)],
                parameters=parameters,
                macs_per_ray=sum(macs for _, macs in costs),
                checkpoint_mb=checkpoint_bytes(trainer) / 1e6,
                field_mb=parameters * 4 / 1e6,
                rays_per_sec=None if len(self.records) == 1 else pipeline.controller.rays_per_sec,
                psnr=metrics["psnr"],
                ssim=metrics["fine_ssim"],
                image=to_uint8(rendered["rgb"]),
            )
        )
        return {"psnr": metrics["psnr"], "ssim": metrics["fine_ssim"]}

    def _table(self) -> Table:
        table = Table(title=f"nerf-prune-demo, {self.description}", title_justify="left")
        for column in (
            "",
            "parameters",
            "MACs per ray",
            "checkpoint MB",
            "fields MB",
            "train rays/s",
            "PSNR dB",
            "SSIM",
        ):
            table.add_column(column, justify="right" if column else "left")
        for record in self.records:
            table.add_row(
                record.label,
                f"{record.parameters:,}",
                f"{record.macs_per_ray:,}",
                f"{record.checkpoint_mb:.2f}",
                f"{record.field_mb:.2f}",
                "—" if record.rays_per_sec is None else f"{record.rays_per_sec:,.0f}",
                f"{record.psnr:.2f}",
                f"{record.ssim:.3f}",
            )
        return table

    def _summary(self) -> str:
        dense, _, last = self.records
        assert dense.rays_per_sec and last.rays_per_sec
        return (
            f"{dense.parameters / last.parameters:.1f}x fewer parameters, "
            f"{dense.macs_per_ray / last.macs_per_ray:.1f}x fewer MACs, "
            f"{last.rays_per_sec / dense.rays_per_sec:.1f}x faster training, "
            f"{last.psnr - dense.psnr:+.2f} dB against the dense network at the time of pruning "
            "(the pruned one trained on; a dense control is `--pipeline.prune.strategy none`)"
        )

    def _save_picture(self, path: Path, pipeline: PrunePipeline) -> None:
        truth = to_uint8(pipeline.datamanager.eval_dataset[self.options.view]["image"])  # type: ignore[index]
        captions = ["ground truth"] + [f"{record.label}, {record.psnr:.1f} dB" for record in self.records]
        content = io.BytesIO()
        side_by_side([truth] + [record.image for record in self.records], captions).save(content, "PNG")
        write_file(path, content.getvalue())


def side_by_side(images: list[np.ndarray], captions: list[str], scale: int = 2) -> Image.Image:
    """A row of equally large images with captions, enlarged without smoothing."""
    height, width = (size * scale for size in images[0].shape[:2])
    margin, caption_height = 8, 20
    canvas = Image.new("RGB", (len(images) * (width + margin) + margin, height + caption_height + margin), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = margin + i * (width + margin)
        canvas.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (left, caption_height))
        draw.text((left + 2, 4), caption, fill="black")
    return canvas
