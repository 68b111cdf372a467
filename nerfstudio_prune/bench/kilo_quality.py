"""Quality and cost of tiny networks on whole views, at one point of a run."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, Optional

import torch

from nerfstudio_prune.bench.machine import clock_of
from nerfstudio_prune.data.images import save_image
from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilo.outputs import ViewOutputs
from nerfstudio_prune.kilo.teacher import Teacher
from nerfstudio_prune.nerf.model import is_linear
from nerfstudio_prune.neurons.groups import macs_per_sample
from nerfstudio_prune.records.kilo_schema import KiloStage
from nerfstudio_prune.records.schema import Clock, Quality, ViewQuality


class KiloMeter:
    """Measures tiny networks on test views.

    Args:
        pipeline: Its evaluation views are the test views.
        views: How many of them, evenly spaced.
    """

    def __init__(self, pipeline: Any, views: int) -> None:
        self.model: KiloModel = pipeline.model
        self.dataset = pipeline.datamanager.eval_dataset
        count = min(views, len(self.dataset))
        self.views = [i * len(self.dataset) // count for i in range(count)]
        clock, self.now = clock_of(self.model.device)
        self.clock: Clock = clock
        self.seconds = 0.0
        """Time spent so far, by the clock."""

    def stage(self, label: str, step: int, picture: Optional[Path] = None) -> KiloStage:
        """All that a record tells of the networks at one point of a run.

        Args:
            label: Name of the point.
            step: Training steps taken.
            picture: File for the first view; None saves none.
        """
        networks, live = self.model.networks, self.model.cells.live
        assert live is not None
        widths = {str(s.hidden_width): n for s, n in zip(networks.shapes, networks.counts, strict=True) if n}
        macs = networks.shapes[-1].macs if len(widths) == 1 else None
        quality, frame, samples = self._measured(picture)
        return KiloStage(
            label=label,
            step=step,
            parameters=networks.num_parameters,
            networks=networks.num_networks,
            widths=widths,
            occupied=live.share,
            samples_per_ray=samples,
            macs_per_ray=None if macs is None else samples * macs,
            quality=quality,
            frame_seconds=frame,
        )

    def stage_of_teacher(self, teacher: Teacher, look: Callable[..., Any], picture: Path) -> KiloStage:
        """What the teacher shows in the cells of the networks.

        Args:
            teacher: The teacher.
            look: Shows samples as it.
            picture: File for the first view.
        """
        live, field = self.model.cells.live, teacher.field
        assert live is not None
        macs = macs_per_sample(layer for layer in field.modules() if is_linear(layer))
        self.model.look = look
        try:
            quality, frame, samples = self._measured(picture)
        finally:
            self.model.look = None
        return KiloStage(
            label="teacher",
            step=0,
            parameters=sum(parameter.numel() for parameter in field.parameters()),
            networks=1,
            widths={},
            occupied=live.share,
            samples_per_ray=samples,
            macs_per_ray=samples * macs,
            quality=quality,
            frame_seconds=frame,
        )

    def _measured(self, picture: Optional[Path]) -> tuple[Quality, float, float]:
        """Quality, seconds of a view and samples of a ray; random state and mode of the model stay as they are."""
        begin, model, was_training = self.now(), self.model, self.model.training
        model.eval()
        results, frames, samples = [], [], []
        try:
            with forked(model.device), torch.no_grad():
                for view in self.views:
                    start = self.now()
                    outputs = model.get_outputs_for_camera(self.dataset.cameras[view : view + 1].to(model.device))
                    frames.append(self.now() - start)
                    assert isinstance(outputs, ViewOutputs)
                    samples.append(float(outputs.counts.float().mean()))
                    metrics, _ = model.get_image_metrics_and_images(outputs, self.dataset[view])  # type: ignore[arg-type]
                    results.append(ViewQuality(view, metrics["psnr"], metrics["ssim"], metrics.get("lpips")))
                    if picture is not None and view == self.views[0]:
                        save_image(outputs["rgb"], picture)
        finally:
            model.train(was_training)
        self.seconds += self.now() - begin
        return Quality.of(results), fmean(frames), fmean(samples)
