"""What a file shows, beside what the checkpoint shows, on test views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from nerfstudio_prune.data.pixels import CountedDataset, counted_pixels
from nerfstudio_prune.data.view_quality import Quality, decibels, mean_quality, quality_of
from nerfstudio_prune.export.kinds import ExportedNetwork
from nerfstudio_prune.nerf.rows import rows_of_rays

RenderFn = Callable[[RayBundle], Tensor]
"""Rays of shape [rays] -> their colours, [rays, 3]."""


@dataclass(frozen=True)
class Comparison:
    """Quality of a file and of the checkpoint that it was made from."""

    views: int
    """Views that all was measured on."""
    checkpoint: Quality
    file: Quality
    original: Optional[Quality]
    """Of the dense network that all began with; None where there is none to be measured."""
    agreement: float
    """PSNR of the file's pictures against those of the checkpoint, over all their pixels, in dB; infinite if equal."""


@torch.no_grad()
def compare(
    model: Any, network: ExportedNetwork, dataset: CountedDataset, views: int, original: Optional[Any] = None
) -> Comparison:
    """Renders test views with all of them. None leaves empty space out that the other does not.

    Args:
        model: The checkpoint's model, which renders rays, with its `device` and `renderer_rgb`.
        network: What was read back of the file, on the same device.
        dataset: Test views.
        views: How many of them, evenly spaced.
        original: Model of the dense network, on the same device. None: there is none.
    """
    count = min(views, len(dataset))
    renderers: list[RenderFn] = [
        lambda rays: model(rays)["rgb"],
        lambda rays: network(rays.origins, rays.directions)["rgb"],
    ]
    model.eval()
    if original is not None:
        original.eval()
        renderers.append(lambda rays: original(rays)["rgb"])
    found: list[list[Quality]] = [[] for _ in renderers]
    squares, pixels = 0.0, 0
    for i in range(count):
        view = i * len(dataset) // count
        data = dataset[view]
        truth = model.renderer_rgb.blend_background(data["image"].to(model.device))
        used = counted_pixels(data).to(model.device) if "mask" in data else None
        pictures = _pictures(renderers, dataset.cameras[view : view + 1].to(model.device))
        for qualities, picture in zip(found, pictures, strict=True):
            qualities.append(quality_of(picture, truth, used))
        squares += float((pictures[0] - pictures[1]).double().square().sum())
        pixels += pictures[0].numel()
    means = [mean_quality(qualities) for qualities in found]
    return Comparison(count, means[0], means[1], means[2] if original is not None else None, decibels(squares / pixels))


def _pictures(renderers: Sequence[RenderFn], camera: Any) -> Sequence[Float[Tensor, "H W 3"]]:
    """A view by each, some rows at a time."""
    rows: list[list[Tensor]] = [[] for _ in renderers]
    for rays in rows_of_rays(camera):
        flat, shape = rays.flatten(), rays.origins.shape
        for parts, render in zip(rows, renderers, strict=True):
            parts.append(render(flat).view(shape))
    return [torch.cat(parts) for parts in rows]
