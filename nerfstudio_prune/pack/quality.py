"""What Gaussians show, beside photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from jaxtyping import Bool, Float, Shaped
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.data.view_quality import Quality, decibels, mean_quality, quality_of
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splats.model import SplatPruneModel


@dataclass(frozen=True, eq=False)
class PhotoView:
    """A view with its photo, on the model's device."""

    camera: Cameras
    image: Shaped[Tensor, "height width channels"]
    pixels: Optional[Bool[Tensor, "height width"]]
    """The pixels that count. None: all."""
    index: int
    """Its index among the views of its split."""


@dataclass(frozen=True)
class Comparison:
    """Quality of a file and of the checkpoint that it was made from."""

    views: int
    """Views that all was measured on."""
    checkpoint: Quality
    file: Quality
    agreement: float
    """PSNR of the file's pictures against those of the checkpoint, over all their pixels, in dB; infinite if equal."""


@torch.no_grad()
def compare(model: SplatPruneModel, gaussians: Gaussians, views: Sequence[PhotoView]) -> Comparison:
    """Renders views with the checkpoint's Gaussians and with those of a file.

    Args:
        model: The checkpoint's model, on its device.
        gaussians: What was read back, with coefficients of spherical harmonics as colours.
        views: At least one.
    """
    found: tuple[list[Quality], list[Quality]] = ([], [])
    squares, pixels = 0.0, 0
    models = model.with_gaussians(model.gaussians), packed_model(model, gaussians)
    for view in views:
        pictures = [picture_of(own, view.camera) for own in models]
        for qualities, picture in zip(found, pictures, strict=True):
            qualities.append(_quality(picture, model, view))
        first, second = pictures
        squares += float((first - second).double().square().sum())
        pixels += first.numel()
    return Comparison(len(views), mean_quality(found[0]), mean_quality(found[1]), decibels(squares / pixels))


@torch.no_grad()
def mean_psnr(model: SplatPruneModel, views: Sequence[PhotoView]) -> float:
    """PSNR, the mean over views, in dB.

    Args:
        model: The model, in evaluation mode.
        views: At least one.
    """
    return mean_quality([_quality(picture_of(model, view.camera), model, view) for view in views]).psnr


def packed_model(model: SplatPruneModel, gaussians: Gaussians) -> SplatPruneModel:
    """A model that shows what was read of a file: its colours are coefficients, also where those of the run are not.

    Args:
        model: The checkpoint's model.
        gaussians: What was read.
    """
    return model.with_gaussians(model.from_harmonics(gaussians.to(model.device)))


def picture_of(model: SplatPruneModel, camera: Cameras) -> Float[Tensor, "height width 3"]:
    """What a model shows, in [0, 1].

    Args:
        model: The model, in evaluation mode.
        camera: A view, on the model's device.
    """
    return model.get_outputs(camera)["rgb"].clamp(0, 1)


def truth_of(model: SplatPruneModel, view: PhotoView) -> Float[Tensor, "height width 3"]:
    """What a model should show: the photo, before what lies behind the Gaussians.

    Args:
        model: The model.
        view: The view.
    """
    return model.composite_with_background(model.get_gt_img(view.image), model.behind.to(model.device))


def _quality(picture: Tensor, model: SplatPruneModel, view: PhotoView) -> Quality:
    return quality_of(picture, truth_of(model, view), view.pixels)
