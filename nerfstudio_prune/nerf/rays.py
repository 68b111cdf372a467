"""Random rays of a data set with their true colours, without touching the run's random state or data order."""

import torch
from jaxtyping import Float, Int64
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor


def draw_rays(
    dataset: InputDataset, num_rays: int, generator: torch.Generator, views: Int64[Tensor, " views"] | None = None
) -> tuple[RayBundle, Float[Tensor, "rays channels"]]:
    """Draws rays spread evenly over views.

    Args:
        dataset: Views; a mask limits the pixels.
        num_rays: Number of rays.
        generator: The only source of randomness.
        views: Indices of the views. None: all.

    Returns:
        Rays and colours, both on the CPU: the host's ray generator needs all on one device. A view that is masked out
        as a whole gives none.

    Raises:
        ValueError: If the views give no ray at all.
    """
    chosen = range(len(dataset)) if views is None else [int(view) for view in views]
    indices, colours = [], []
    for i, view in enumerate(chosen):
        count = num_rays * (i + 1) // len(chosen) - num_rays * i // len(chosen)
        if count == 0:
            continue
        data = dataset[view]
        image = data["image"]
        usable = data["mask"][..., 0].bool() if "mask" in data else torch.ones(image.shape[:2], dtype=torch.bool)
        pixels = usable.nonzero()
        if len(pixels) == 0:
            continue
        pixels = pixels[torch.randint(len(pixels), (count,), generator=generator)]
        indices.append(torch.cat([torch.full((count, 1), view), pixels], dim=1))
        colours.append(image[pixels[:, 0], pixels[:, 1]])
    if not indices:
        raise ValueError(f"the masks of the {len(chosen)} views that rays are drawn from leave no pixel")
    return RayGenerator(dataset.cameras.to("cpu"))(torch.cat(indices)), torch.cat(colours)
