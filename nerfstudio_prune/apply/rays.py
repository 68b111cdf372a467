"""Rays of views that a cut does not see, and the quality of a radiance field on them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from nerfstudio_prune.apply.quality import NOTHING, HeldOut, in_evaluation
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

    def psnr(model: Any) -> Float64[Tensor, " views"]:
        with in_evaluation(model):
            return torch.stack([psnr_of_rays(_errors(model, *batch)) for batch in batches])

    total = sum(len(colours) for _, colours in batches)
    return HeldOut(f"{total:,} rays of {len(batches)} training views that the cut was not judged by", psnr)


def _errors(model: Any, rays: Any, colours: Float[Tensor, "rays channels"]) -> Float64[Tensor, " rays"]:
    """Mean squared error of each ray."""
    found = []
    for begin in range(0, len(colours), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        shown = model(rays[part].to(model.device))["rgb"].float().clamp(0, 1)
        truth = model.renderer_rgb.blend_background(colours[part].to(model.device))
        found.append((shown - truth).double().square().mean(dim=-1).cpu())
    return torch.cat(found)


def psnr_of_rays(errors: Float64[Tensor, " rays"]) -> Float64[Tensor, ""]:
    """PSNR of a view of which some rays were drawn, in dB.

    Few rays hold most of the error of a view, and a draw that misses them shows too good a picture: the logarithm of a
    mean of n draws lies below that of the mean by s² / (2 n m²) on average (delta method, second order), which is put
    back. A cut that breaks a few places is else taken for better than it is.

    Args:
        errors: Mean squared error of each ray.
    """
    mean = errors.mean().clamp_min(1e-12)
    missed = errors.var() / (2 * len(errors) * mean**2) if len(errors) > 1 else 0.0
    return -10 * torch.log10(mean) - 10 / math.log(10) * missed
