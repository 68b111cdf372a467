"""What a file shows, beside what the checkpoint shows, on test views."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.data.pixels import CountedDataset, counted_pixels
from nerfstudio_prune.export.kinds import ExportedNetwork
from nerfstudio_prune.export.quality import Quality, decibels, mean_quality, quality_of
from nerfstudio_prune.nerf.rows import rows_of_rays


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
def compare(model: Any, network: ExportedNetwork, dataset: CountedDataset, views: int) -> Comparison:
    """Renders test views with both. Neither leaves empty space out, so that they differ by their weights alone.

    Args:
        model: The checkpoint's model, which renders rays, with its `device` and `renderer_rgb`.
        network: What was read back of the file, on the same device.
        dataset: Test views.
        views: How many of them, evenly spaced.
    """
    count = min(views, len(dataset))
    model.eval()
    found: tuple[list[Quality], list[Quality]] = ([], [])
    squares, pixels = 0.0, 0
    for i in range(count):
        view = i * len(dataset) // count
        data = dataset[view]
        truth = model.renderer_rgb.blend_background(data["image"].to(model.device))
        used = counted_pixels(data).to(model.device) if "mask" in data else None
        pictures = _pictures(model, network, dataset.cameras[view : view + 1].to(model.device))
        for qualities, picture in zip(found, pictures, strict=True):
            qualities.append(quality_of(picture, truth, used))
        first, second = pictures
        squares += float((first - second).double().square().sum())
        pixels += first.numel()
    return Comparison(count, mean_quality(found[0]), mean_quality(found[1]), decibels(squares / pixels))


def _pictures(model: Any, network: ExportedNetwork, camera: Any) -> Sequence[Float[Tensor, "H W 3"]]:
    """A view by both, some rows at a time."""
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for rays in rows_of_rays(camera):
        flat, shape = rays.flatten(), rays.origins.shape
        rows[0].append(model(flat)["rgb"].view(shape))
        rows[1].append(network(flat.origins, flat.directions)["rgb"].view(shape))
    return [torch.cat(parts) for parts in rows]
