"""Gaussians and cameras that are made by hand, and their pictures."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import View

SH_C0 = 0.28209479177387814


def picture(gaussians: Gaussians, view: View, background: Tensor) -> Tensor:
    """Colours in front of a background [H, W, 3], in float64."""
    rendering = CpuRasterizer().render(gaussians.to(torch.float64), view, gaussians.sh_degree)
    return rendering.colors + (1 - rendering.alphas) * background.double()


def camera(position: Sequence[float], size: int = 16) -> View:
    """A camera that looks along z from a place."""
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, 3] = -torch.tensor(position, dtype=torch.float64)
    K = torch.tensor([[size, 0.0, size / 2], [0.0, size, size / 2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return View(viewmat, K, size, size)


def made(
    means: Sequence[Sequence[float]], opacity: Sequence[float], size: Sequence[float], color: Sequence[Sequence[float]]
) -> Gaussians:
    """Round Gaussians of degree 0 from opacities, standard deviations and colours in [0, 1]."""
    count = len(means)
    kind = torch.float64
    return Gaussians(
        torch.tensor(means, dtype=kind),
        torch.tensor(size, dtype=kind).log()[:, None].expand(count, 3).clone(),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=kind).repeat(count, 1),
        (torch.tensor(color, dtype=kind) - 0.5) / SH_C0,
        torch.zeros(count, 0, 3, dtype=kind),
        torch.logit(torch.tensor(opacity, dtype=kind))[:, None],
    )


def drawn(count: int, sh_degree: int = 0, seed: int = 0) -> Gaussians:
    """A cloud of random Gaussians in front of `camera([0, 0, 0])`."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    return Gaussians(
        normal(count, 3) * torch.tensor([0.6, 0.6, 0.3]) + torch.tensor([0.0, 0.0, 3.0]),
        normal(count, 3) * 0.3 - 1.8,
        normal(count, 4),
        normal(count, 3),
        normal(count, (sh_degree + 1) ** 2 - 1, 3) * 0.1,
        normal(count, 1),
    )
