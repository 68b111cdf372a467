"""What Gaussians do to pixels, from gradients of ordinary pictures: for rasterisers that do not tell it themselves."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from math import log
from typing import Optional

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import Contributions, Rasterizer, Sum, View

BY_GRADIENTS: frozenset[Sum] = frozenset({"weights", "removal_l2"})
"""Sums that gradients tell."""
LARGEST_OPACITY = 0.9989
"""Rasterisers cut alpha off at 0.999, and from there on a picture has no gradient by the opacity."""
_LARGEST_LOGIT = log(LARGEST_OPACITY / (1 - LARGEST_OPACITY))


def by_gradients(
    rasterizer: Rasterizer,
    gaussians: Gaussians,
    view: View,
    sh_degree: int,
    background: Float[Tensor, "3"],
    *,
    wants: Collection[Sum],
    antialiased: bool = False,
    pixels: Optional[Bool[Tensor, "height width"]] = None,
    seed: int = 0,
    probes: int = 1,
) -> Contributions:
    """The sums of `BY_GRADIENTS`: `weights` exactly, `removal_l2` by random probes. For each a picture and its
    gradient.

    Args:
        rasterizer: What renders.
        gaussians: The scene; its gradients stay untouched.
        view: The camera.
        sh_degree: Degree up to which the spherical harmonics count.
        background: Colour behind everything.
        wants: Names of the sums.
        antialiased: As in `Rasterizer.render`.
        pixels: The pixels that count. None: all.
        seed: Of the probes.
        probes: How many, at least 1.

    Raises:
        ValueError: If a gradient does not tell one of the sums, or there is no probe.
    """
    unknown = set(wants) - BY_GRADIENTS
    if unknown:
        raise ValueError(f"gradients tell {', '.join(sorted(BY_GRADIENTS))}, and not {', '.join(sorted(unknown))}")
    if probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    means = gaussians.means
    counted = torch.ones(view.height, view.width, 1, device=means.device, dtype=means.dtype)
    if pixels is not None:
        counted = pixels.to(counted)[..., None]
    sums: dict[Sum, Tensor] = {}
    if "weights" in wants:
        sums["weights"] = weights(rasterizer, gaussians, view, counted, antialiased=antialiased)
    if "removal_l2" in wants:
        generator = torch.Generator(means.device).manual_seed(seed)
        drawn = (random_signs(counted, generator) for _ in range(probes))
        sums["removal_l2"] = removal_l2(
            rasterizer, gaussians, view, sh_degree, background, drawn, antialiased=antialiased
        )
    return Contributions(len(gaussians), sums)


def random_signs(
    counted: Float[Tensor, "height width 1"], generator: torch.Generator
) -> Float[Tensor, "height width 3"]:
    """A probe: -1 or 1 with equal chances, for each pixel and channel on its own; 0 for pixels that do not count.

    Args:
        counted: 1 for pixels that count, 0 for others.
        generator: On the same device.
    """
    height, width, _ = counted.shape
    signs = torch.randint(0, 2, (height, width, 3), generator=generator, device=counted.device)
    return (2 * signs - 1) * counted


def weights(
    rasterizer: Rasterizer,
    gaussians: Gaussians,
    view: View,
    counted: Float[Tensor, "height width 1"],
    *,
    antialiased: bool = False,
) -> Float[Tensor, " gaussians"]:
    """Sums of T·alpha: the gradient of a picture of one channel by the Gaussians' colours. In float64.

    Args:
        rasterizer: What renders.
        gaussians: The scene.
        view: The camera.
        counted: 1 for pixels that count, 0 for others.
        antialiased: As in `Rasterizer.render`.
    """
    with torch.enable_grad():
        colors = torch.ones_like(gaussians.means[:, :1]).requires_grad_()
        rendering = rasterizer.render(gaussians.detach(), view, 0, antialiased=antialiased, colors=colors)
        (gradient,) = torch.autograd.grad(rendering.colors, colors, counted)
    return gradient[:, 0].double()


def removal_l2(
    rasterizer: Rasterizer,
    gaussians: Gaussians,
    view: View,
    sh_degree: int,
    background: Float[Tensor, "3"],
    probes: Iterable[Float[Tensor, "height width 3"]],
    *,
    antialiased: bool = False,
) -> Float[Tensor, " gaussians"]:
    """Sums over pixels and channels of the squares of what they change by when a Gaussian leaves, estimated.

    A picture is affine in each opacity o, so it changes by o·∂picture/∂o. The square of o·∂⟨probe, picture⟩/∂o has the
    sum of the squares as its mean over probes whose entries are uncorrelated and of mean square 1 (Hutchinson, 1989).
    Its standard deviation is at most √2 times that sum for one probe of random signs. Opacities count as
    `LARGEST_OPACITY` at most.

    Args:
        rasterizer: What renders.
        gaussians: The scene.
        view: The camera.
        sh_degree: Degree up to which the spherical harmonics count.
        background: Colour behind everything.
        probes: At least one; 0 for pixels that do not count.
        antialiased: As in `Rasterizer.render`.

    Returns:
        Mean over the probes, in float64.
    """
    total, count = torch.zeros(len(gaussians), device=gaussians.means.device, dtype=torch.float64), 0
    with torch.enable_grad():
        logits = gaussians.opacities.detach().clamp(max=_LARGEST_LOGIT).requires_grad_()
        probed = replace(gaussians.detach(), opacities=logits)
        rendering = rasterizer.render(probed, view, sh_degree, antialiased=antialiased)
        picture = rendering.colors + (1 - rendering.alphas) * background.to(rendering.colors)
        # ∂/∂logit is o·(1 - o)·∂/∂o. The largest opacity keeps 1 - o away from 0.
        passing = 1 - logits.detach().sigmoid()
        for probe in probes:
            (gradient,) = torch.autograd.grad(picture, logits, probe, retain_graph=True)
            total += (gradient / passing)[:, 0].double().square()
            count += 1
    # Antialiasing leaves the factors of those that are not seen as they were in memory.
    return torch.where(rendering.radii > 0, total / count, 0)
