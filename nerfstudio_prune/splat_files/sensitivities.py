"""Evidence from views: how much pictures change with each number of each Gaussian.

The sum over pixels of squared derivatives is what one backward pass gives for random signs at the pixels, squared: its
expectation has no other terms (Hutchinson 1990). Each view draws its own signs.
"""

import zlib
from collections.abc import Iterable
from typing import Optional

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import Rasterizer, View
from nerfstudio_prune.splat_files.evidence import Evidence

THIN = 0.05
"""Sizes that are told apart, as a share of a pixel."""


def evidence_from_views(
    gaussians: Gaussians,
    views: Iterable[tuple[View, Optional[Bool[Tensor, "height width"]]]],
    rasterizer: Rasterizer,
    background: Float[Tensor, "3"],
    *,
    antialiased: bool = False,
    seed: int = 0,
) -> Evidence:
    """Looks at a scene from all views.

    Args:
        gaussians: The scene, with coefficients of spherical harmonics as colours.
        views: Views with the pixels that count, on the Gaussians' device.
        rasterizer: What renders them.
        background: Colour behind everything.
        antialiased: As the scene was trained.
        seed: Of the random signs.

    Raises:
        ValueError: If there is no view.
    """
    parameters = {name: values.detach().clone().requires_grad_() for name, values in gaussians.items()}
    own = Gaussians.of(parameters)
    device, count = own.means.device, (own.sh_degree + 1) ** 2
    sums = {name: torch.zeros_like(values, dtype=torch.float64) for name, values in parameters.items()}
    products = torch.zeros(count, count, dtype=torch.float64, device=device)
    sizes: list[Tensor] = []
    numbers = seen = 0
    for view, pixels in views:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {seen}".encode()))
        rendering = rasterizer.render(own, view, own.sh_degree, antialiased=antialiased)
        picture = rendering.colors + (1 - rendering.alphas) * background
        signs = (torch.randint(0, 2, picture.shape, generator=generator) * 2 - 1).to(picture)
        # Where a picture is clipped, a small change is not seen.
        signs = signs * ((picture > 0) & (picture < 1))
        if pixels is not None:
            signs = signs * pixels[..., None]
        found = torch.autograd.grad((picture * signs).sum(), list(parameters.values()))
        by_name = dict(zip(parameters, found, strict=True))
        for name, part in by_name.items():
            sums[name] += part.double().square()
        # The derivative by a coefficient is that by the colour times the harmonic in the direction of the view.
        together = torch.cat([by_name["features_dc"][:, None], by_name["features_rest"]], dim=1).double()
        products += torch.einsum("nkc,nlc->kl", together, together)
        sizes.append(_pixel_sizes(own.means.detach(), view, rendering.radii))
        numbers += picture.numel()
        seen += 1
    if not seen:
        raise ValueError("what errors do is seen in views, and there are none")
    means = {name: (part / numbers).cpu() for name, part in sums.items()}
    lengths = gaussians.quats.detach().double().square().sum(dim=1).cpu()
    pixel = torch.cat(sizes)
    first = float(products[0, 0])
    return Evidence(
        positions=means["means"].mean(dim=1).numpy(),
        scales=means["scales"].numpy(),
        rotations=(means["quats"].sum(dim=1) / 3 * lengths).numpy(),
        opacities=means["opacities"][:, 0].numpy(),
        colors=means["features_dc"].mean(dim=1).numpy(),
        smallest_scale=max(THIN * float(pixel.median()) if len(pixel) else 1.0, 1e-20),
        directions=(products / first).cpu().numpy() if first > 0 else None,
    )


def _pixel_sizes(means: Float[Tensor, "gaussians 3"], view: View, radii: Tensor) -> Float[Tensor, " seen"]:
    """Width of a pixel where each Gaussian is that a view sees, in world units."""
    depths = means @ view.viewmat[2, :3] + view.viewmat[2, 3]
    return depths[(radii > 0) & (depths > 0)] / view.K[0, 0]
