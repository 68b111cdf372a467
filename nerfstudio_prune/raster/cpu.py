"""Renders Gaussians on the CPU."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Optional, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nerfstudio_prune.raster import kernels
from nerfstudio_prune.raster.checks import check
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.harmonics import colors_of
from nerfstudio_prune.raster.interface import SUMS, Contributions, Rendering, Sum, View
from nerfstudio_prune.raster.projection import Projection, project
from nerfstudio_prune.raster.threads import in_threads

BAND_HEIGHT = 16
"""Rows of pixels that one thread works on at a time. Fixed: sums must not depend on the number of threads."""


class CpuRasterizer:
    """Exact compositing in the order of depths; memory goes with Gaussians and pixels, not with their pairs.

    Every pixel whose alpha is at least 1/255 counts, also outside of gsplat's tiles; otherwise the rules are those of
    gsplat 1.4. Works in the precision of the scene, with as many threads as torch does; the result is the same bit for
    bit with any number of them. Safe to be called from several threads at once.
    """

    name = "cpu"
    cheap = SUMS

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
        """As in `Rasterizer`; `colors` have one to three channels.

        Raises:
            ValueError: If the scene is not on the CPU, or its colours have other shapes.
        """
        check(gaussians, view, sh_degree, colors)
        view = _prepared(gaussians, view)
        projection = project(gaussians, view, antialiased)
        if colors is None:
            colors = colors_of(gaussians, view, sh_degree, projection.radii)
        means2d = projection.means2d[None]
        picture, alphas, summed, pairs = _Compositing.apply(
            means2d,
            projection.conics,
            projection.opacities,
            colors,
            projection.depths,
            projection.radii,
            (view.width, view.height),
            depth,
            absgrad,
        )  # type: ignore[misc]
        depths = summed / alphas.clamp(min=1e-10) if depth else None
        return Rendering(picture, alphas, depths, means2d, projection.radii, pairs)

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
        """As in `Rasterizer`; all sums in one sweep, exact for one Gaussian that leaves, so without random probes.

        Raises:
            ValueError: If the scene is not on the CPU.
        """
        check(gaussians, view, sh_degree)
        view = _prepared(gaussians, view)
        projection = project(gaussians, view, antialiased)
        colors = colors_of(gaussians, view, sh_degree, projection.radii)
        sweep = _Sweep.of(projection, colors, view.width, view.height)
        sweep.forward(depth=False)
        counted = sweep.plane(1.0 if pixels is None else pixels.to(colors).numpy())
        behind = [sweep.plane(value) for value in background.tolist()]
        parts = np.empty((len(sweep.members), 5), sweep.dtype)

        def one(band: int) -> None:
            part = sweep.members_of(band)
            kernels.contribute(*sweep.arguments(band), sweep.passing, sweep.last, *behind, counted, parts[part])

        sweep.in_bands(one)
        sums = np.zeros((len(gaussians), 5))
        kernels.gather_contributions(sweep.members, sweep.indices, parts, sums)
        found = zip(get_args(Sum), torch.from_numpy(sums).T.contiguous(), strict=True)
        return Contributions(len(gaussians), {name: values for name, values in found if name in wants})


def _prepared(gaussians: Gaussians, view: View) -> View:
    """The view in the scene's precision.

    Raises:
        ValueError: If the scene is not on the CPU.
    """
    means = gaussians.means
    if means.device.type != "cpu":
        raise ValueError(
            f"rasterizer cpu renders on the CPU, but the Gaussians live on {means.device}; "
            "train with --machine.device-type cpu, or with --pipeline.model.rasterizer gsplat"
        )
    return View(view.viewmat.to(means), view.K.to(means), view.width, view.height)


@dataclass(eq=False)
class _Sweep:
    """Gaussians of a picture in the order of their depth, by bands of rows, and what the pixels hold."""

    width: int
    height: int
    stride: int
    """Numbers from one row of a buffer to the next; those after the width are no pixels."""
    packed: np.ndarray
    rows: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    members: np.ndarray
    passing: np.ndarray = field(init=False)
    last: np.ndarray = field(init=False)
    planes: list[np.ndarray] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.passing = self.plane(1.0)
        self.last = np.full(self.height * self.stride, -1, np.int32)

    @classmethod
    def of(cls, projection: Projection, colors: Tensor, width: int, height: int) -> "_Sweep":
        """Nothing composited yet.

        Args:
            projection: Gaussians in the picture.
            colors: One to three channels.
            width: Of the picture, in pixels.
            height: The same.
        """
        depths = projection.depths.detach().numpy()
        seen = np.flatnonzero(projection.radii.numpy())
        dtype = depths.dtype
        order = kernels.sort(depths.view(f"u{dtype.itemsize}"), seen)
        packed = np.empty((len(order), kernels.COLUMNS), dtype)
        rows = np.empty((len(order), 2), np.int32)
        indices = np.empty(len(order), np.int64)
        tensors = (projection.means2d, projection.conics, projection.opacities, colors)
        arrays = [t.detach().contiguous().numpy() for t in tensors]
        kept = kernels.prepare(order, *arrays, depths, width, height, packed, rows, indices)
        packed, rows, indices = packed[:kept], rows[:kept], indices[:kept]
        starts = np.empty(-(-height // BAND_HEIGHT) + 1, np.int64)
        kernels.count_members(rows, BAND_HEIGHT, starts)
        members = np.empty(starts[-1], np.int32)
        kernels.list_members(rows, BAND_HEIGHT, starts, members)
        return cls(width, height, width + kernels.LANES, packed, rows, indices, starts, members)

    @property
    def dtype(self) -> Any:
        """Precision."""
        return self.packed.dtype

    def plane(self, values: np.ndarray | float = 0.0) -> np.ndarray:
        """A buffer of the picture's size with room for lanes that hang over; 0 there.

        Args:
            values: What the pixels hold.
        """
        plane = np.zeros((self.height, self.stride), self.dtype)
        plane[:, : self.width] = values
        return plane.reshape(-1)

    def picture(self, plane: np.ndarray) -> np.ndarray:
        """The pixels of a buffer."""
        return plane.reshape(self.height, self.stride)[:, : self.width]

    def members_of(self, band: int) -> slice:
        """Where those of a band lie."""
        return slice(self.starts[band], self.starts[band + 1])

    def arguments(self, band: int) -> tuple[Any, ...]:
        """What all kernels begin with."""
        top = band * BAND_HEIGHT
        bottom = min(top + BAND_HEIGHT, self.height)
        return (self.packed, self.rows, self.members[self.members_of(band)], top, bottom, self.width, self.stride)

    def in_bands(self, work: Callable[[int], Any]) -> list[Any]:
        """Does something for every band."""
        return in_threads(work, len(self.starts) - 1)

    def forward(self, depth: bool) -> int:
        """Composites, and drops members that were hidden everywhere.

        Args:
            depth: Whether depths are asked for.

        Returns:
            Pairs of a Gaussian and a pixel.
        """
        self.planes = [self.plane() for _ in range(3 + depth)]
        red, green, blue, *deep = self.planes
        summed = deep[0] if deep else None

        def one(band: int) -> tuple[int, int]:
            return kernels.composite(*self.arguments(band), self.passing, self.last, red, green, blue, summed)

        pairs, kept = np.array(self.in_bands(one)).T
        self.members = np.concatenate([self.members[start:][:n] for start, n in zip(self.starts, kept, strict=False)])
        self.starts[1:] = np.cumsum(kept)
        np.abs(self.passing, out=self.passing)
        return int(pairs.sum())


class _Compositing(torch.autograd.Function):
    """Picture, alphas, summed depths and pairs of Gaussians in a picture."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        colors: Tensor,
        depths: Tensor,
        radii: Tensor,
        size: tuple[int, int],
        depth: bool,
        absgrad: bool,
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        width, height = size
        sweep = _Sweep.of(Projection(means2d[0], conics, opacities, depths, radii), colors, width, height)
        pairs = sweep.forward(depth)
        channels = colors.shape[1]
        picture = torch.from_numpy(np.stack([sweep.picture(p) for p in sweep.planes[:channels]], axis=-1))
        alphas = torch.from_numpy(1 - sweep.picture(sweep.passing)[..., None])
        summed = torch.from_numpy(sweep.picture(sweep.planes[3])[..., None].copy()) if depth else alphas.new_zeros(0)
        sweep.planes = []
        ctx.sweep, ctx.depth, ctx.absgrad, ctx.count, ctx.channels = sweep, depth, absgrad, means2d.shape[1], channels
        ctx.save_for_backward(means2d)
        return picture, alphas, summed, pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_picture: Tensor, d_alphas: Tensor, d_summed: Tensor, _: None) -> Any:  # type: ignore[override]
        sweep: _Sweep = ctx.sweep
        d_colors = [sweep.plane(d_picture[..., k].numpy()) for k in range(ctx.channels)]
        d_colors += [sweep.plane()] * (3 - ctx.channels)
        d_alpha = sweep.plane(d_alphas[..., 0].numpy())
        d_depth = sweep.plane(d_summed[..., 0].numpy()) if ctx.depth else None
        passing, behind = sweep.passing.copy(), sweep.plane()
        parts = np.empty((len(sweep.members), kernels.COLUMNS), sweep.dtype)

        def one(band: int) -> None:
            kernels.composite_backward(
                *sweep.arguments(band),
                passing, sweep.last, behind, *d_colors, d_alpha, d_depth, True if ctx.absgrad else None,
                parts[sweep.members_of(band)],
            )  # fmt: skip

        sweep.in_bands(one)
        sums = np.zeros((ctx.count, kernels.COLUMNS), sweep.dtype)
        kernels.gather(sweep.members, sweep.indices, parts, sums)
        gradients = torch.from_numpy(sums)
        if ctx.absgrad:
            (means2d,) = ctx.saved_tensors
            means2d.absgrad = gradients[None, :, kernels.ABS_X :].contiguous()
        return (
            gradients[None, :, kernels.X : kernels.XX].contiguous(),
            gradients[:, kernels.XX : kernels.OPACITY],
            gradients[:, kernels.OPACITY],
            gradients[:, kernels.RED : kernels.RED + ctx.channels],
            gradients[:, kernels.DEPTH] if ctx.depth else None,
            None,
            None,
            None,
            None,
        )
