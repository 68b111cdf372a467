"""Random rays of a data set with their true colours, and the quality of a model on them, without touching the run's
random state or data order."""

from copy import copy
from typing import Any, Optional

import torch
from jaxtyping import Float, Int64
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from nerfstudio_prune.data.pixels import counted_pixels
from nerfstudio_prune.engine.host import forked


def draw_rays(
    dataset: InputDataset, num_rays: int, generator: torch.Generator, views: Int64[Tensor, " views"] | None = None
) -> tuple[RayBundle, Float[Tensor, "rays channels"]]:
    """Draws rays spread evenly over views.

    Args:
        dataset: Views; only pixels that count are drawn.
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
        pixels = counted_pixels(data).nonzero()
        if len(pixels) == 0:
            continue
        pixels = pixels[torch.randint(len(pixels), (count,), generator=generator)]
        indices.append(torch.cat([torch.full((count, 1), view), pixels], dim=1))
        colours.append(data["image"][pixels[:, 0], pixels[:, 1]])
    if not indices:
        raise ValueError(f"the masks of the {len(chosen)} views that rays are drawn from leave no pixel")
    return RayGenerator(dataset.cameras.to("cpu"))(torch.cat(indices)), torch.cat(colours)


class FixedRays:
    """A batch of rays spread over all evaluation views, the same for every call.

    It is drawn when this is made: what is wrong with the views shows at the start of a run, and what becomes of them
    later does not matter. Views that cannot be used are told, and nothing is measured: it is for information only.

    Args:
        dataset: Evaluation views.
        num_rays: Size of the batch; 0 measures nothing.
        seed: Seed of the choice of pixels.
    """

    def __init__(self, dataset: InputDataset, num_rays: int, seed: int) -> None:
        self.num_rays = num_rays if len(dataset) else 0
        self._batch: Optional[tuple[RayBundle, Float[Tensor, "rays channels"]]] = None
        if self.num_rays > 0:
            try:
                self._batch = draw_rays(dataset, self.num_rays, torch.Generator().manual_seed(seed))
            except Exception as error:  # whatever a file or a machine has to offer
                self.num_rays = 0
                CONSOLE.print(f"[yellow]Nothing is measured on fixed evaluation rays: {escape(str(error))}")
        views = "1 evaluation view" if len(dataset) == 1 else f"{len(dataset)} evaluation views"
        self.description = f"fixed batch of {self.num_rays:,} rays from {views}"

    def fewer(self, num_rays: int) -> "FixedRays":
        """A batch of at most so many of these rays, spread evenly over them; no picture is read.

        Args:
            num_rays: Size of the batch.
        """
        part = copy(self)
        if self._batch is not None and num_rays < self.num_rays:
            rays, colours = self._batch
            chosen = torch.arange(num_rays) * len(colours) // max(1, num_rays)
            part.num_rays, part._batch = num_rays, (rays[chosen], colours[chosen])
        return part

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, float]:
        """Measures the fine field.

        Returns:
            {"psnr": decibels}, or nothing if the batch is empty.
        """
        if self.num_rays == 0 or self._batch is None:
            return {}
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
