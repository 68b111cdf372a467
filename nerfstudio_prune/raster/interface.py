"""What renders Gaussians, whichever device they live on."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Optional, Protocol, get_args, runtime_checkable

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


Sum = Literal["hits", "weights", "max_weights", "removal_l1", "removal_l2"]
"""What is summed up of each Gaussian; meanings are those of the properties of `Contributions`."""
SUMS: frozenset[Sum] = frozenset(get_args(Sum))
"""All of them."""


@dataclass(eq=False)
class Contributions:
    """What each Gaussian does to the pixels of some views, summed over them. All on the Gaussians' device.

    Only sums that were asked for are there; to read another one is an error, and not zero.
    """

    count: int
    """Gaussians."""
    sums: dict[Sum, Float[Tensor, " gaussians"]]
    """Name -> the sums."""

    @classmethod
    def zeros(
        cls, count: int, device: torch.device, dtype: torch.dtype = torch.float64, wants: Collection[Sum] = SUMS
    ) -> "Contributions":
        """Those of no view.

        Args:
            count: Gaussians.
            device: Where they live.
            dtype: Sums over many views ask for more precision than pictures.
            wants: Names of the sums.
        """
        return cls(count, {name: torch.zeros(count, device=device, dtype=dtype) for name in wants})

    def __getitem__(self, name: Sum) -> Float[Tensor, " gaussians"]:
        """The sums of a name.

        Raises:
            ValueError: If they were not asked for.
        """
        if name not in self.sums:
            found = ", ".join(sorted(self.sums)) or "nothing"
            raise ValueError(f"{name} of the Gaussians was asked for, and what was collected is {found}")
        return self.sums[name]

    @property
    def hits(self) -> Float[Tensor, " gaussians"]:
        """Pixels that it is composited into."""
        return self["hits"]

    @property
    def weights(self) -> Float[Tensor, " gaussians"]:
        """Sum of T·alpha, its share of the pixels' light."""
        return self["weights"]

    @property
    def max_weights(self) -> Float[Tensor, " gaussians"]:
        """Largest T·alpha of any pixel."""
        return self["max_weights"]

    @property
    def removal_l1(self) -> Float[Tensor, " gaussians"]:
        """Sum over pixels and channels of what they change by when it leaves: |T·alpha·(c - B)|, B the colour behind
        it."""
        return self["removal_l1"]

    @property
    def removal_l2(self) -> Float[Tensor, " gaussians"]:
        """The same of the squares."""
        return self["removal_l2"]

    def add(self, other: "Contributions") -> None:
        """Adds those of other views.

        Raises:
            ValueError: If one of the sums is missing there.
        """
        for name, mine in self.sums.items():
            new = other[name].to(mine)
            if name == "max_weights":
                torch.maximum(mine, new, out=mine)
            else:
                mine.add_(new)


@runtime_checkable
class Rasterizer(Protocol):
    """Renders Gaussians with colours from their spherical harmonics."""

    name: str
    """As in the option `rasterizer`."""
    cheap: frozenset[Sum]
    """Sums whose contributions take no longer than a step of training; others may take many times as long."""

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
        wants: Collection[Sum] = SUMS,
        antialiased: bool = False,
        pixels: Optional[Bool[Tensor, "height width"]] = None,
        seed: int = 0,
        probes: int = 1,
    ) -> Contributions:
        """What each Gaussian does to the pixels of a view. No gradients.

        Args:
            gaussians: The scene.
            view: The camera.
            sh_degree: Degree up to which the spherical harmonics count.
            background: Colour behind everything.
            wants: Names of the sums; the result holds no others.
            antialiased: As in `render`.
            pixels: The pixels that count. None: all.
            seed: Of random probes, where the rasteriser needs them.
            probes: How many of them, at least 1.
        """
        ...
