"""Renders Gaussians on CUDA, by gsplat 1.4 (Ye et al., arXiv 2409.06765)."""

from collections.abc import Collection
from importlib import import_module
from typing import Any, Optional

import torch
from gsplat import rasterization, rasterize_to_indices_in_range, spherical_harmonics
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nerfstudio_prune.raster.checks import check
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import SUMS, Contributions, Rendering, Sum, View
from nerfstudio_prune.raster.probes import BY_GRADIENTS, by_gradients

PIXELS_AT_ONCE = 1 << 16
"""Pixels whose pairs are held at once by `contributions`, about 400 bytes for each pair."""
_MISSING = (
    "rasterizer gsplat: gsplat's CUDA kernels are not there. gsplat compiles them at first use, for which the CUDA "
    "toolkit (nvcc) of the version of torch must be installed; or choose --pipeline.model.rasterizer cpu and "
    "--machine.device-type cpu"
)


class GsplatRasterizer:
    """gsplat's kernels, with the near plane, blur and tiles that splatfacto uses.

    Raises:
        ValueError: If the kernels cannot be loaded.
    """

    name = "gsplat"
    cheap = BY_GRADIENTS

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ValueError(
                "rasterizer gsplat needs CUDA, which torch does not find; choose --pipeline.model.rasterizer cpu"
            )
        try:
            kernels = import_module("gsplat.cuda._backend")._C
        except Exception as error:  # It is built at import: anything can go wrong there.
            raise ValueError(f"{_MISSING}: {error!r}") from error
        if kernels is None:
            raise ValueError(f"{_MISSING}: no nvcc was found")

    def render(
        self,
        gaussians: Gaussians,
        view: View,
        sh_degree: int,
        *,
        antialiased: bool = False,
        depth: bool = False,
        absgrad: bool = False,
        colors: Optional[Float[Tensor, "gaussians channels"]] = None,
    ) -> Rendering:
        """As in `Rasterizer`; `colors` have one to three channels."""
        check(gaussians, view, sh_degree, colors)
        picture, alphas, info = _rasterize(gaussians, view, sh_degree, antialiased, depth, absgrad, colors)
        depths = picture[0, ..., -1:] if depth else None
        picture = picture[0, ..., :-1] if depth else picture[0]
        return Rendering(picture, alphas[0], depths, info["means2d"], info["radii"][0])

    @torch.no_grad()
    def contributions(
        self,
        gaussians: Gaussians,
        view: View,
        sh_degree: int,
        background: Float[Tensor, "3"],
        *,
        wants: Collection[Sum] = SUMS,
        antialiased: bool = False,
        pixels: Optional[Bool[Tensor, "height width"]] = None,
        seed: int = 0,
        probes: int = 1,
    ) -> Contributions:
        """As in `Rasterizer`; `removal_l2` is an estimate, unless a sum is asked for that takes lists of pairs.

        With those everything is exact, and takes many times as long.
        """
        if set(wants) <= self.cheap:
            return by_gradients(
                self, gaussians, view, sh_degree, background, wants=wants, antialiased=antialiased, pixels=pixels,
                seed=seed, probes=probes,
            )  # fmt: skip
        check(gaussians, view, sh_degree)
        _, _, info = _rasterize(gaussians, view, sh_degree, antialiased, False, False, None)
        colors = _colors(gaussians, view, sh_degree, info["radii"][0])
        counted = torch.ones(view.height, view.width, dtype=torch.bool) if pixels is None else pixels
        counted = counted.to(colors.device).flatten()
        total = Contributions.zeros(len(gaussians), colors.device, wants=wants)
        rows = max(1, PIXELS_AT_ONCE // view.width)
        for top in range(0, view.height, rows):
            # No pair is listed for pixels through which nothing passes. All Gaussians are one range: gsplat does not
            # remember from one range to the next which pixels were done.
            passing = torch.zeros(1, view.height, view.width, device=colors.device)
            passing[:, top : top + rows] = 1
            ids, at = _pairs(info, passing)
            alpha = _alphas(info, ids, at, view.width)
            total.add(contributions_of_pairs(ids, at, alpha, colors, background.to(colors), counted, wants))
        return total


def _rasterize(
    gaussians: Gaussians,
    view: View,
    sh_degree: int,
    antialiased: bool,
    depth: bool,
    absgrad: bool,
    colors: Optional[Tensor],
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    if colors is None:
        harmonics = torch.cat((gaussians.features_dc[:, None], gaussians.features_rest), dim=1)
    return rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales.exp(),
        opacities=gaussians.opacities.squeeze(-1).sigmoid(),
        colors=harmonics if colors is None else colors,
        viewmats=view.viewmat.to(gaussians.means)[None],
        Ks=view.K.to(gaussians.means)[None],
        width=view.width,
        height=view.height,
        sh_degree=sh_degree if colors is None else None,
        packed=False,
        absgrad=absgrad,
        render_mode="RGB+ED" if depth else "RGB",
        rasterize_mode="antialiased" if antialiased else "classic",
    )


def _colors(gaussians: Gaussians, view: View, sh_degree: int, radii: Tensor) -> Float[Tensor, "gaussians 3"]:
    harmonics = torch.cat((gaussians.features_dc[:, None], gaussians.features_rest), dim=1)
    eye = torch.inverse(view.viewmat.to(gaussians.means))[:3, 3]
    colors = spherical_harmonics(sh_degree, gaussians.means - eye, harmonics, masks=radii > 0)
    # Those that are not seen are left as they were in memory.
    return torch.where(radii[:, None] > 0, (colors + 0.5).clamp(min=0), 0).double()


def _pairs(info: dict[str, Any], passing: Tensor) -> tuple[Tensor, Tensor]:
    gaussian_ids, pixel_ids, _ = rasterize_to_indices_in_range(
        0,
        2**31 - 1,
        passing,
        info["means2d"],
        info["conics"],
        info["opacities"],
        info["width"],
        info["height"],
        info["tile_size"],
        info["isect_offsets"],
        info["flatten_ids"],
    )
    return gaussian_ids, pixel_ids


def _alphas(info: dict[str, Any], ids: Tensor, at: Tensor, width: int) -> Tensor:
    centres = torch.stack((at % width, at // width), dim=-1) + 0.5
    dx, dy = (info["means2d"][0].double()[ids] - centres).unbind(-1)
    xx, xy, yy = info["conics"][0].double()[ids].unbind(-1)
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    return (info["opacities"][0].double()[ids] * torch.exp(-sigma)).clamp(max=0.999)


def contributions_of_pairs(
    ids: Int64[Tensor, " pairs"],
    at: Int64[Tensor, " pairs"],
    alpha: Float[Tensor, " pairs"],
    colors: Float[Tensor, "gaussians 3"],
    background: Float[Tensor, "3"],
    counted: Bool[Tensor, " pixels"],
    wants: Collection[Sum] = SUMS,
) -> Contributions:
    """What Gaussians do to pixels, from all their pairs.

    Args:
        ids: Gaussian of each pair; those of one pixel next to each other, front to back.
        at: Its pixel.
        alpha: Its alpha, in (0, 1); in float64, as sums run over all pairs.
        colors: Of the Gaussians.
        background: Colour behind all.
        counted: Pixels that count.
        wants: Names of the sums.
    """
    found = Contributions.zeros(len(colors), colors.device, wants=wants)
    sums = found.sums
    if len(ids) == 0:
        return found
    first = torch.ones_like(at, dtype=torch.bool)
    first[1:] = at[1:] != at[:-1]
    pixel = first.cumsum(0) - 1
    starts = first.nonzero().squeeze(-1)
    ends = torch.cat((starts[1:], starts.new_tensor([len(at)]))) - 1

    logs = torch.log1p(-alpha)
    behind = logs.cumsum(0)
    before = behind - logs
    through = torch.exp(before - before[starts][pixel])
    weights = alpha * through
    counts = counted[at].to(alpha)
    seen = weights * counts
    if "hits" in sums:
        sums["hits"].index_add_(0, ids, counts)
    if "weights" in sums:
        sums["weights"].index_add_(0, ids, seen)
    if "max_weights" in sums:
        sums["max_weights"].scatter_reduce_(0, ids, seen, "amax")
    if not {"removal_l1", "removal_l2"} & sums.keys():
        return found

    shares = weights[:, None] * colors[ids]
    inclusive = shares.cumsum(0)
    to_here = inclusive - (inclusive - shares)[starts][pixel]
    left = torch.exp(behind[ends] - before[starts])
    whole = to_here[ends] + left[:, None] * background
    # What reaches the pixel from behind, without the Gaussian, is more by 1 / (1 - alpha).
    change = shares - (alpha / (1 - alpha))[:, None] * (whole[pixel] - to_here)
    change = change * counts[:, None]
    if "removal_l1" in sums:
        sums["removal_l1"].index_add_(0, ids, change.abs().sum(-1))
    if "removal_l2" in sums:
        sums["removal_l2"].index_add_(0, ids, change.square().sum(-1))
    return found
