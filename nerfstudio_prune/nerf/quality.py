"""PSNR on a fixed batch of evaluation rays, without touching the run's random state or data order."""

from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.rays import draw_rays


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

    @torch.no_grad()
    def __call__(self, model: PruneModel) -> dict[str, float]:
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
        devices: list[Any] = [model.device] if model.device.type == "cuda" else []
        model.eval()
        try:
            with torch.random.fork_rng(devices=devices):
                outputs: Any = model(rays.to(model.device))
                truth = model.renderer_rgb.blend_background(colours.to(model.device))
                mse = torch.mean((outputs["rgb"].float().clamp(0, 1) - truth) ** 2)
        finally:
            model.train(was_training)
        return {"psnr": float(-10 * torch.log10(mse.clamp_min(1e-12)))}
