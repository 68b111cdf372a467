"""Scenes of a few Gaussians, and what they look like by the textbook: every Gaussian at every pixel, in turn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import View


def scene(
    count: int,
    *,
    size: float = 0.15,
    logit: float = 0.0,
    degree: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Gaussians:
    """Gaussians at random about the origin.

    Args:
        count: How many.
        size: Typical standard deviation.
        logit: Typical logit of the opacities.
        degree: Of the spherical harmonics.
        dtype: Precision.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = (
        0.5 * normal(count, 3),
        torch.tensor(size).log() + 0.4 * normal(count, 3),
        normal(count, 4),
        normal(count, 3),
        0.2 * normal(count, (degree + 1) ** 2 - 1, 3),
        logit + normal(count, 1),
    )
    return Gaussians(*(t.to(dtype) for t in tensors))


def camera(width: int = 37, height: int = 45, dtype: torch.dtype = torch.float64) -> View:
    """One that looks at the origin from a distance of 3, a little turned, with unequal focal lengths and centre."""
    angle = torch.tensor(0.3, dtype=torch.float64)
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[0, 0] = viewmat[2, 2] = angle.cos()
    viewmat[0, 2], viewmat[2, 0] = angle.sin(), -angle.sin()
    viewmat[2, 3] = 3
    focal, off = 1.2 * width, 0.02 * width
    K = torch.tensor([[focal, 0, width / 2 + off], [0, 1.1 * focal, height / 2 - off], [0, 0, 1]])
    return View(viewmat.to(dtype), K.to(dtype), width, height)


def leaves(gaussians: Gaussians) -> Gaussians:
    """The same values as leaves of a graph."""
    return Gaussians(**{name: tensor.detach().clone().requires_grad_() for name, tensor in gaussians.items()})


@dataclass(eq=False)
class Picture:
    """What the textbook says."""

    colors: Tensor
    alphas: Tensor
    depths: Tensor
    weights: Tensor
    """T alpha, Gaussians x height x width."""
    absgrad_parts: list[Tensor]
    """Centres of each pixel of its own, Gaussians x (height, width, 2), for absolute gradients."""


def picture(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    colors: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
) -> Picture:
    """Composites projected Gaussians under gsplat's rules: alpha at most 0.999, left out below 1/255, and a pixel is
    done, and takes no more, where its transmittance would fall to 1e-4 or below."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack((x, y), dim=-1).to(means2d)
    through = torch.ones_like(pixels[..., 0])
    done = torch.zeros_like(through, dtype=torch.bool)
    color, depth = torch.zeros(height, width, colors.shape[1]).to(means2d), torch.zeros_like(through)
    weights: list[Tensor] = [torch.zeros_like(through)] * len(means2d)
    parts: list[Tensor] = [torch.zeros_like(pixels)] * len(means2d)
    for i in torch.argsort(depths, stable=True).tolist():
        if radii[i] == 0:
            continue
        parts[i] = means2d[i].expand_as(pixels)
        if parts[i].requires_grad:
            parts[i].retain_grad()
        dx, dy = (pixels - parts[i]).unbind(-1)
        sigma = 0.5 * (conics[i, 0] * dx * dx + conics[i, 2] * dy * dy) + conics[i, 1] * dx * dy
        alpha = (opacities[i] * torch.exp(-sigma)).clamp(max=0.999)
        met = (alpha >= 1 / 255) & (sigma >= 0) & ~done
        done = done | (met & (through * (1 - alpha) <= 1e-4))
        alpha = torch.where(met & ~done, alpha, 0.0)
        weights[i] = alpha * through
        color = color + weights[i][..., None] * colors[i]
        depth = depth + weights[i] * depths[i]
        through = through * (1 - alpha)
    alphas = (1 - through)[..., None]
    return Picture(color, alphas, depth[..., None] / alphas.clamp(min=1e-10), torch.stack(weights), parts)
