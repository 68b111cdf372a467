"""What renders Gaussians, whichever device they live on."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Optional, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians


class View(NamedTuple):
    """A pinhole camera, as gsplat sees it: x to the right, y down, z forward."""

    viewmat: Float[Tensor, "4 4"]
    """From world to camera."""
    K: Float[Tensor, "3 3"]
    """Intrinsics, in pixels; the centre of the first pixel lies at (0.5, 0.5)."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


@dataclass(eq=False)
class Rendering:
    """What a camera sees of Gaussians."""

    colors: Float[Tensor, "height width channels"]
    """What the Gaussians send, without a background: times their accumulated alpha."""
    alphas: Float[Tensor, "height width 1"]
    """Share of the light that does not come from the background."""
    depths: Optional[Float[Tensor, "height width 1"]]
    """Expected depth along the camera's z, in world units; 0 where nothing is. None if it was not asked for."""
    means2d: Float[Tensor, "1 gaussians 2"]
    """Projected centres in pixels, in the graph; with an axis for the camera, as gsplat's strategies read it. After a
    backward pass `means2d.absgrad`, if it was asked for, holds the sums over pixels of absolute gradients that
    densification goes by; `means2d.grad` needs `retain_grad()` before."""
    radii: Int[Tensor, " gaussians"]
    """Three standard deviations in pixels, rounded up; 0 for a Gaussian that is not seen."""
    pairs: Optional[int] = None
    """Pairs of a Gaussian and a pixel that were composited, where that is known; what the picture cost."""

    def strategy_info(self) -> dict[str, Any]:
        """What gsplat's strategies ask for as `info`, in `step_pre_backward` and, with `packed=False`, in
        `step_post_backward`."""
        height, width, _ = self.colors.shape
        return {
            "means2d": self.means2d,
            "radii": self.radii[None],
            "gaussian_ids": None,
            "width": width,
            "height": height,
            "n_cameras": 1,
        }


@dataclass(eq=False)
class Contributions:
    """What each Gaussian does to the pixels of some views, summed over them. All on the Gaussians' device."""

    hits: Float[Tensor, " gaussians"]
    """Pixels that it is composited into."""
    weights: Float[Tensor, " gaussians"]
    """Sum of T·alpha, its share of the pixels' light."""
    max_weights: Float[Tensor, " gaussians"]
    """Largest T·alpha of any pixel."""
    removal_l1: Float[Tensor, " gaussians"]
    """Sum over pixels and channels of what they change by when it leaves: |T·alpha·(c - B)|, B the colour behind it."""
    removal_l2: Float[Tensor, " gaussians"]
    """The same of the squares."""

    @classmethod
    def zeros(cls, count: int, device: torch.device, dtype: torch.dtype = torch.float64) -> "Contributions":
        """Those of no view.

        Args:
            count: Gaussians.
            device: Where they live.
            dtype: Sums over many views ask for more precision than pictures.
        """
        return cls(*(torch.zeros(count, device=device, dtype=dtype) for _ in fields(cls)))

    def add(self, other: "Contributions") -> None:
        """Adds those of other views."""
        for f in fields(self):
            mine, new = getattr(self, f.name), getattr(other, f.name)
            if f.name == "max_weights":
                torch.maximum(mine, new.to(mine), out=mine)
            else:
                mine += new.to(mine)


@runtime_checkable
class Rasterizer(Protocol):
    """Renders Gaussians with colours from their spherical harmonics."""

    name: str
    """As in the option `rasterizer`."""

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
        """Renders a view; differentiable in all parameters and in `colors`.

        Args:
            gaussians: The scene.
            view: The camera.
            sh_degree: Degree up to which the spherical harmonics count, at most that of the scene.
            antialiased: Whether opacities make up for the blur of small Gaussians (Mip-Splatting, arXiv 2311.16493).
            depth: Whether to render the depth.
            absgrad: Whether the backward pass gives `means2d.absgrad`.
            colors: Colours in place of those of the spherical harmonics.

        Raises:
            ValueError: If the scene cannot be rendered by this rasteriser; says why.
        """
        ...

    def contributions(
        self,
        gaussians: Gaussians,
        view: View,
        sh_degree: int,
        background: Float[Tensor, "3"],
        *,
        antialiased: bool = False,
        pixels: Optional[Bool[Tensor, "height width"]] = None,
        seed: int = 0,
    ) -> Contributions:
        """What each Gaussian does to the pixels of a view. No gradients.

        Args:
            gaussians: The scene.
            view: The camera.
            sh_degree: Degree up to which the spherical harmonics count.
            background: Colour behind everything.
            antialiased: As in `render`.
            pixels: The pixels that count. None: all.
            seed: Of random probes, where the rasteriser needs them.
        """
        ...
