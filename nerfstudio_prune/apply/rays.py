"""Rays of views that a cut does not see, and the quality of a radiance field on them."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from nerfstudio_prune.apply.quality import NOTHING, HeldOut
from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.nerf.rays import draw_rays

SEED = 0
"""Of the pixels: the same for every cut of a run."""
AT_ONCE = 1024
"""Rays that are rendered at once."""


def held_out_rays(dataset: Any, views: Sequence[int], rays: int) -> HeldOut:
    """Rays of some views, drawn once.

    Args:
        dataset: All training views.
        views: Those to measure on.
        rays: How many, shared out evenly over the views; 0 measures nothing.

    Raises:
        ValueError: If the masks leave no pixel, or a picture cannot be read.
    """
    if not rays or not views:
        return NOTHING
    generator = torch.Generator().manual_seed(SEED)
    batches = []
    for i, view in enumerate(views):
        count = rays * (i + 1) // len(views) - rays * i // len(views)
        if count:
            batches.append(draw_rays(dataset, count, generator, torch.tensor([view])))

    @torch.no_grad()
    def psnr(model: Any) -> Float64[Tensor, " views"]:
        was_training = model.training
        model.eval()
        try:
            with forked(model.device):
                return torch.stack([_psnr(model, *batch) for batch in batches])
        finally:
            model.train(was_training)

    total = sum(len(colours) for _, colours in batches)
    return HeldOut(f"{total:,} rays of {len(batches)} training views that the cut was not judged by", psnr)


def _psnr(model: Any, rays: Any, colours: Tensor) -> Tensor:
    squares, values = torch.zeros((), dtype=torch.float64), 0
    for begin in range(0, len(colours), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        shown = model(rays[part].to(model.device))["rgb"].float().clamp(0, 1)
        truth = model.renderer_rgb.blend_background(colours[part].to(model.device))
        squares = squares + (shown - truth).double().square().sum().cpu()
        values += shown.numel()
    return -10 * torch.log10((squares / values).clamp_min(1e-12))
