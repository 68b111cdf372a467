"""`ns-prune demo`: trains the built-in scene, prunes it in mid-training, and shows what was gained and what it cost."""

import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image, ImageDraw
from rich.table import Table

from nerfstudio_prune.engine.checkpoints import checkpoint_bytes, newest_checkpoint
from nerfstudio_prune.engine.host import forked, seed_host
from nerfstudio_prune.nerf.images import to_uint8
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.pipeline import PrunePipeline

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


@dataclass
class Demo:
    """Train the built-in scene, prune it in mid-training, evaluate, and print what was gained."""

    output_dir: Path = Path("outputs")
    """Where the run is saved."""
    max_num_iterations: Optional[int] = None
    """Training steps. None: as in the method nerf-prune-demo; pruning happens half-way."""
    image_size: int = 100
    """Height and width of the scene's views, in pixels."""
    num_test_views: int = 3
    """Views that PSNR and SSIM are averaged over."""
    view: int = 0
    """Test view that is shown side by side."""
    description: str = field(default="", init=False)
    """What quality is measured on."""
    records: list[PhaseRecord] = field(default_factory=list, init=False)

    def config(self) -> TrainerConfig:
        """The run's configuration: `nerf-prune-demo` with the options above."""
        config = deepcopy(all_methods["nerf-prune-demo"])
        config.output_dir = self.output_dir
        config.experiment_name = "demo"
        if self.max_num_iterations is not None:
            config.max_num_iterations = self.max_num_iterations
        config.pipeline.prune.start_step = config.max_num_iterations // 2
        # The test views are measured by this script; the trainer's own evaluation would only take time.
        config.steps_per_eval_batch = config.steps_per_eval_image = config.max_num_iterations + 1
        dataparser = config.pipeline.datamanager.dataparser
        dataparser.image_size = self.image_size
        dataparser.num_test_views = self.num_test_views
        config.set_timestamp()
        return config

    def main(self) -> None:
        """Runs the demo.

        Raises:
            ValueError: If an option is out of range.
        """
        if not 0 <= self.view < self.num_test_views:
            raise ValueError(f"view must be in [0, {self.num_test_views - 1}], got {self.view}")
        if self.max_num_iterations is not None and self.max_num_iterations < 4:
            raise ValueError(f"max_num_iterations must be at least 4, got {self.max_num_iterations}")
        warnings.filterwarnings("ignore", module="nerfstudio|torchmetrics|torch")
        config = self.config()
        config.save_config()
        seed_host(config.machine.seed)
        trainer: Trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup(test_mode="test")
        pipeline: Any = trainer.pipeline
        assert isinstance(pipeline, PrunePipeline) and pipeline.controller is not None
        self.description = f"mean of {self.num_test_views} test views"
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
            CONSOLE.print(f"{label + ':':14}{path}", soft_wrap=True)
        for label, command in (("measure it", "ns-eval"), ("look at it", "ns-viewer")):
            CONSOLE.print(f"{label + ':':14}{command} --load-config {base_dir / 'config.yml'}", soft_wrap=True)

    def __call__(self, model: PruneModel) -> dict[str, float]:
        """Measures and records the present state; the controller calls it right before and right after the event."""
        trainer = self._trainer
        pipeline: Any = trainer.pipeline
        with forked(model.device):
            metrics = pipeline.get_average_eval_image_metrics()
            pipeline.eval()
            rendered = model.get_outputs_for_camera(
                pipeline.datamanager.eval_dataset.cameras[self.view : self.view + 1]
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
        truth = to_uint8(pipeline.datamanager.eval_dataset[self.view]["image"])  # type: ignore[index]
        captions = ["ground truth"] + [f"{record.label}, {record.psnr:.1f} dB" for record in self.records]
        side_by_side([truth] + [record.image for record in self.records], captions).save(path)


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
