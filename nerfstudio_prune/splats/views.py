"""Cameras of the host as the rasteriser takes them, and the quality of a model on whole views."""

import math
from collections.abc import Callable
from copy import copy
from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from nerfstudio_prune.data.pixels import counted_pixels
from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.raster.interface import View


def view_of(camera: Cameras, camera_to_world: Optional[Float[Tensor, "3 4"]] = None) -> View:
    """A camera as the rasteriser takes it.

    Args:
        camera: A single pinhole camera, with one batch dimension or none. Lens distortion is passed over: pictures are
            undistorted when they are loaded.
        camera_to_world: Its pose, where that is not the camera's own.

    Raises:
        ValueError: If it is of another kind.
    """
    camera = camera.reshape((1,))
    kind = int(camera.camera_type[0])
    if kind != CameraType.PERSPECTIVE.value:
        raise ValueError(f"Gaussians are rendered by pinhole cameras; got one of kind {CameraType(kind).name}")
    pose = camera.camera_to_worlds[0] if camera_to_world is None else camera_to_world
    # The host's cameras look along -z with y up, the rasteriser's along z with y down.
    rotation = pose[:3, :3] * pose.new_tensor([1.0, -1.0, -1.0])
    viewmat = torch.cat(
        [
            torch.cat([rotation.T, -rotation.T @ pose[:3, 3:4]], dim=1),
            pose.new_tensor([[0.0, 0.0, 0.0, 1.0]]),
        ]
    )
    intrinsics = camera.get_intrinsics_matrices()[0].to(pose)
    return View(viewmat, intrinsics, int(camera.width[0]), int(camera.height[0]))


class FixedViews:
    """Quality on whole views, evenly spaced, the same for every call.

    Args:
        count: How many; 0 measures nothing.
        total: Views that there are.
        load: Gives camera and batch of a view.
    """

    def __init__(self, count: int, total: int, load: Callable[[int], tuple[Cameras, dict[str, Any]]]) -> None:
        count = min(count, total)
        self.views = [i * total // count for i in range(count)]
        self._load = load
        views = "1 evaluation view" if count == 1 else f"{count} evaluation views"
        self.description = f"mean of {views}" if count > 1 else views

    def fewer(self, num_rays: int) -> "FixedViews":
        """The first view alone, however few rays are wanted: Gaussians are rendered as whole pictures.

        Args:
            num_rays: Not used.
        """
        part = copy(self)
        part.views = self.views[:1]
        return part

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, float]:
        """Measures a model.

        Returns:
            {"psnr": decibels, the mean over the views}, or nothing where there are none.
        """
        if not self.views:
            return {}
        was_training = model.training
        model.eval()
        try:
            with forked(model.device):
                psnr = [psnr_of_view(model, *self._load(view)) for view in self.views]
        finally:
            model.train(was_training)
        return {"psnr": sum(psnr) / len(psnr)}


def psnr_of_view(model: Any, camera: Cameras, batch: dict[str, Any]) -> float:
    """PSNR of a whole view over the pixels that count, in dB.

    Args:
        model: The model, in evaluation.
        camera: A single camera.
        batch: Its picture, and its `mask` where not all pixels count.
    """
    outputs = model.get_outputs_for_camera(camera)
    truth = model.composite_with_background(model.get_gt_img(batch["image"]), outputs["background"])
    error = (outputs["rgb"].clamp(0, 1) - truth).square()
    if "mask" in batch:
        error = error[counted_pixels(batch).to(error.device)]
    return -10 * math.log10(max(float(error.mean()), 1e-12))
