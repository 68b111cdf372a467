"""What each Gaussian does to the pixels of all views that a cut is judged by."""

import zlib
from collections.abc import Collection, Iterable
from typing import Optional

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import SUMS, Contributions, Rasterizer, Sum, View

PixelsOfView = tuple[View, Optional[Bool[Tensor, "height width"]]]
"""A view and those of its pixels that count; None: all."""


@torch.no_grad()
def collect(
    gaussians: Gaussians,
    views: Iterable[PixelsOfView],
    rasterizer: Rasterizer,
    sh_degree: int,
    background: Float[Tensor, "3"],
    *,
    wants: Collection[Sum] = SUMS,
    antialiased: bool = False,
    seed: int = 0,
    probes: int = 1,
) -> Contributions:
    """Sums the contributions over views: the sums over all training pixels of LightGaussian (arXiv 2311.17245, Eq. 4).

    Args:
        gaussians: The scene; its gradients stay untouched.
        views: Views with the pixels that count, on the Gaussians' device.
        rasterizer: What renders them.
        sh_degree: Degree up to which the spherical harmonics count.
        background: Colour behind everything.
        wants: Names of the sums; the fewer, the cheaper, see `Rasterizer.cheap`.
        antialiased: As the scene was trained.
        seed: Seed of random probes; each view draws from its own.
        probes: How many a view, where the rasteriser needs them.

    Returns:
        Sums in float64 on the Gaussians' device.

    Raises:
        ValueError: If there is no view, or the rasteriser gives contributions of another number of Gaussians.
    """
    gaussians, count = gaussians.detach(), len(gaussians)
    total, seen = Contributions.zeros(count, gaussians.means.device, wants=wants), 0
    for view, pixels in views:
        # Generators read the low 32 bits of a seed only: mix, do not add.
        own = zlib.crc32(f"{seed} {seen}".encode())
        part = rasterizer.contributions(
            gaussians, view, sh_degree, background, wants=wants, antialiased=antialiased, pixels=pixels, seed=own,
            probes=probes,
        )  # fmt: skip
        if part.count != count:
            raise ValueError(f"view {seen}: {rasterizer.name} gave {part.count} contributions for {count} Gaussians")
        total.add(part)
        seen += 1
    if not seen:
        raise ValueError("Gaussians are judged by what training views see of them, and there are no training views")
    return total
