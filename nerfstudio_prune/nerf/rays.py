"""Random rays of a data set with their true colours, and the quality of a model on them, without touching the run's
random state or data order."""

from typing import Any, Optional

import torch
from jaxtyping import Float, Int64
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from nerfstudio_prune.engine.host import forked


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


class FixedRays:
    """A batch of rays spread over all evaluation views, the same for every call.

    Args:
        dataset: Evaluation views.
        num_rays: Size of the batch; 0 measures nothing.
        seed: Seed of the choice of pixels.
    """

    def __init__(self, dataset: InputDataset, num_rays: int, seed: int) -> None:
        self.dataset = dataset
        self.num_rays = num_rays if len(dataset) else 0
        self.seed = seed
        self.description = f"fixed batch of {self.num_rays} rays from {len(dataset)} evaluation views"
        self._batch: Optional[tuple[RayBundle, Float[Tensor, "rays channels"]]] = None

    def fewer(self, num_rays: int) -> "FixedRays":
        """A batch of at most so many rays of the same views."""
        return FixedRays(self.dataset, min(num_rays, self.num_rays), self.seed)

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, float]:
        """Measures the fine field.

        Returns:
            {"psnr": decibels}, or nothing if the batch is empty.
        """
        if self.num_rays == 0:
            return {}
        if self._batch is None:
            self._batch = draw_rays(self.dataset, self.num_rays, torch.Generator().manual_seed(self.seed))
        rays, colours = self._batch
        was_training = model.training
        model.eval()
        try:
            with forked(model.device):
                outputs: Any = model(rays.to(model.device))
                truth = model.renderer_rgb.blend_background(colours.to(model.device))
                mse = torch.mean((outputs["rgb"].float().clamp(0, 1) - truth) ** 2)
        finally:
            model.train(was_training)
        return {"psnr": float(-10 * torch.log10(mse.clamp_min(1e-12)))}
