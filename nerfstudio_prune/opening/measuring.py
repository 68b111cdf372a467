"""What a file shows of test views, beside the pictures that were taken."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.model_components.renderers import RGBRenderer
from torch import Tensor

from nerfstudio_prune.data.pixels import CountedDataset, counted_pixels
from nerfstudio_prune.data.view_quality import Quality, quality_of
from nerfstudio_prune.export.kinds import ExportedNetwork
from nerfstudio_prune.nerf.rows import rows_of_rays


@dataclass(frozen=True)
class ViewQuality:
    """What was measured of one view."""

    name: str
    """Name of its picture."""
    quality: Quality


def spread(count: int, of: int) -> Sequence[int]:
    """Evenly spaced views.

    Args:
        count: How many.
        of: How many there are.
    """
    return [i * of // count for i in range(count)]


@torch.no_grad()
def measured(
    network: ExportedNetwork, dataset: CountedDataset, views: Sequence[int], device: torch.device
) -> Iterator[ViewQuality]:
    """Renders views and holds them against their pictures, one after the other.

    Args:
        network: What a file holds, on the device.
        dataset: The views.
        views: Which of them.
        device: Where to compute.

    Raises:
        ValueError: If a picture cannot be read.
    """
    # What is seen through a picture is what the network shows there.
    behind = RGBRenderer(background_color=network.metadata.background)
    for view in views:
        data = dataset[view]
        truth = behind.blend_background(data["image"].to(device))
        used = counted_pixels(data).to(device) if "mask" in data else None
        picture = _picture(network, dataset.cameras[view : view + 1].to(device))
        yield ViewQuality(dataset.image_filenames[view].name, quality_of(picture, truth, used))


def _picture(network: ExportedNetwork, camera: Any) -> Float[Tensor, "H W 3"]:
    """A view, some rows at a time."""
    rows = []
    for rays in rows_of_rays(camera):
        flat = rays.flatten()
        rows.append(network(flat.origins, flat.directions)["rgb"].view(rays.origins.shape))
    return torch.cat(rows)
