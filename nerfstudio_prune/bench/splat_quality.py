"""Quality of Gaussians on whole views: test views for tables, validation views for choosing."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import clock_of
from nerfstudio_prune.data.images import save_image
from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.gaussians.budget import uncompressed_bytes
from nerfstudio_prune.records.schema import Clock, Quality, ViewQuality
from nerfstudio_prune.records.splat_schema import SplatStage, Splits
from nerfstudio_prune.splats.model import SplatPruneModel

PAIR_VIEWS = 5
"""Test views, evenly spaced, that pairs are counted on."""

LoadView = Callable[[int], tuple[Cameras, dict[str, Any]]]


class Views:
    """Views of one split.

    Args:
        count: How many there are.
        wanted: How many are measured, evenly spaced; None: all.
        load: Gives camera and batch of one.
    """

    def __init__(self, count: int, wanted: Optional[int], load: LoadView) -> None:
        chosen = min(count, wanted or count)
        self.indices = [i * count // chosen for i in range(chosen)]
        self._cache: dict[int, tuple[Cameras, dict[str, Any]]] = {}
        self._load = load

    def load(self, view: int) -> tuple[Cameras, dict[str, Any]]:
        """Camera and batch of a view, read once."""
        if view not in self._cache:
            self._cache[view] = self._load(view)
        return self._cache[view]


class SplatMeter:
    """Measures models on whole views.

    Args:
        trainer: Its evaluation views are the test views.
        views: Views of each split that are measured; None: all.

    Raises:
        ValueError: If there are no test views.
    """

    def __init__(self, trainer: Trainer, views: Optional[int]) -> None:
        pipeline: Any = trainer.pipeline
        datamanager = pipeline.datamanager
        count = len(datamanager.eval_dataset)
        if not count:
            raise ValueError(
                f"--data: there are no test views to measure the runs on: {getattr(datamanager, 'no_evaluation', '')}"
            )
        self.splits = {"test": Views(count, views, lambda view: pipeline.view("eval", view))}
        validation = _validation_views(datamanager)
        if validation is not None:
            self.splits["val"] = Views(len(validation), views, lambda view: _view_of(datamanager, validation, view))
        clock, self.now = clock_of(pipeline.model.device)
        self.clock: Clock = clock
        self.seconds = 0.0
        """Time spent so far, by the clock."""

    def counts(self) -> dict[str, int]:
        """Split -> views that are measured."""
        return {name: len(views.indices) for name, views in self.splits.items()}

    def quality(self, model: SplatPruneModel) -> Splits:
        """Quality of each split; random state and mode of the model stay as they are.

        Args:
            model: The model.
        """
        return self._measured(model)[0]

    def stage(self, model: SplatPruneModel, label: str, step: int, picture: Optional[Path] = None) -> SplatStage:
        """All that a record tells of a model at one point of a run.

        Args:
            model: The model.
            label: Name of the point.
            step: Training steps taken.
            picture: File for the first test view; None saves none.
        """
        quality, frame = self._measured(model, picture)
        gaussians = model.gaussians
        degree = gaussians.sh_degree
        return SplatStage(
            label=label,
            step=step,
            gaussians=len(gaussians),
            sh_degree=degree,
            bytes=uncompressed_bytes(len(gaussians), degree),
            quality=quality,
            frame_seconds=frame,
            pairs_per_pixel=self.pairs_per_pixel(model),
        )

    def _measured(self, model: SplatPruneModel, picture: Optional[Path] = None) -> tuple[Splits, float]:
        begin, was_training = self.now(), model.training
        model.eval()
        found: dict[str, Quality] = {}
        frames: dict[str, list[float]] = {}
        try:
            with forked(model.device), torch.no_grad():
                for name, views in self.splits.items():
                    results, frames[name] = [], []
                    for view in views.indices:
                        camera, batch = views.load(view)
                        start = self.now()
                        outputs = model.get_outputs_for_camera(camera)
                        frames[name].append(self.now() - start)
                        metrics, _ = model.get_image_metrics_and_images(outputs, batch)
                        results.append(ViewQuality(view, metrics["psnr"], metrics["ssim"], metrics.get("lpips")))
                        if picture is not None and name == "test" and view == views.indices[0]:
                            save_image(outputs["rgb"], picture)
                    found[name] = Quality.of(results)
        finally:
            model.train(was_training)
        self.seconds += self.now() - begin
        return found, fmean(frames["test"])

    @torch.no_grad()
    def pairs_per_pixel(self, model: SplatPruneModel) -> Optional[float]:
        """Pairs of a Gaussian and a pixel that are composited, a pixel; None where the rasteriser does not tell.

        Args:
            model: The model.
        """
        begin, was_training = self.now(), model.training
        model.eval()
        views, pairs, pixels = self.splits["test"], 0, 0
        chosen = views.indices[:: max(1, len(views.indices) // PAIR_VIEWS)]
        try:
            for view in chosen:
                rendering = model.render(model.gaussians, views.load(view)[0])
                if rendering.pairs is None:
                    return None
                pairs += rendering.pairs
                pixels += rendering.colors.shape[0] * rendering.colors.shape[1]
        finally:
            model.train(was_training)
            self.seconds += self.now() - begin
        return pairs / pixels


def _validation_views(datamanager: Any) -> Optional[Any]:
    """Views of the split `val`; None where the data have none that are neither trained on nor test views."""
    try:
        outputs = datamanager.dataparser.get_dataparser_outputs(split="val")
    except (FileNotFoundError, IndexError, RuntimeError, ValueError, AssertionError):
        return None
    used = {*datamanager.train_dataset.image_filenames, *datamanager.eval_dataset.image_filenames}
    if not outputs.image_filenames or used & set(outputs.image_filenames):
        return None
    return datamanager.dataset_type(outputs, datamanager.config.camera_res_scale_factor)


def _view_of(datamanager: Any, dataset: Any, view: int) -> tuple[Cameras, dict[str, Any]]:
    data = dataset.get_data(view, image_type=datamanager.config.cache_images_type)
    batch = {name: data[name].to(datamanager.device) for name in ("image", "mask") if name in data}
    return dataset.cameras[view : view + 1].to(datamanager.device), batch
