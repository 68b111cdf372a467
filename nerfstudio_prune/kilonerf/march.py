"""Which samples of a ray lie where there is something: all places of a lattice along the ray whose voxel is occupied.

Three looks, each at what the one before it left: the box around all that is occupied; every few steps, a grid that is
dilated by half of such an interval; single steps. The result is that of the last look alone at every step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, Literal, Optional

import torch
from jaxtyping import Bool, Float, Int32, Int64, Num
from torch import Tensor
from torch.nn.functional import pad

from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.occupancy import dilated

Spacing = Literal["uniform", "piecewise"]
"""uniform: steps of one length; piecewise: up to a distance of 1, then uniform in the inverse of the distance."""
Contraction = Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]
"""Places in the world -> places in the space that the cells lie in."""

INTERVALS = (8, 4, 2)
"""Steps between two looks into the dilated grid that are considered."""
MAX_RADIUS = 2
"""Voxels by which it may be dilated: more, and most looks would find something."""
SLACK = 0.01
"""Voxels that the first two looks allow for rounding."""
PLACES_AT_ONCE = 2**20
"""Places that are looked at at once where every step is."""
TOLERATED_LENGTH = 1e-3
"""By how much the length of a direction may differ from 1."""


@dataclass(frozen=True)
class Lattice:
    """Places along a ray at which a field may be evaluated.

    Raises:
        ValueError: If the bounds are none, or there is no step.
    """

    near: float
    """Where the first step begins, >= 0, in units of the scene."""
    far: float
    """Where the last step ends, > near."""
    steps: int
    """Number of steps, >= 1."""
    spacing: Spacing = "uniform"
    """How long the steps are."""

    def __post_init__(self) -> None:
        if not 0 <= self.near < self.far < float("inf"):
            raise ValueError(f"a lattice needs 0 <= near < far, got near {self.near} and far {self.far}")
        if self.steps < 1:
            raise ValueError(f"a lattice needs at least one step, got {self.steps}")

    @property
    def step_size(self) -> float:
        """Mean length of a step; that of each where they are uniform."""
        return (self.far - self.near) / self.steps

    def edges(self, steps: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Distances at which steps begin.

        Args:
            steps: Numbers of steps; the last edge is that of `self.steps`.
        """
        if self.spacing == "uniform":
            return self.near + steps * self.step_size
        first, last = squeezed(self.near), squeezed(self.far)
        shares = first + steps * ((last - first) / self.steps)
        return torch.where(shares < 0.5, 2 * shares, 1 / (2 - 2 * shares).clamp(min=1e-9))

    def distances(self, steps: Int32[Tensor, "*shape"], shift: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
        """Distances of the samples.

        Args:
            steps: Numbers of steps, in [0, self.steps).
            shift: Where in its step a sample lies, in [0, 1].
        """
        if self.spacing == "uniform":
            return self.near + (steps + shift) * self.step_size
        return torch.lerp(self.edges(steps), self.edges(steps + 1), shift.expand(steps.shape))

    def lengths(self, steps: Int32[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Lengths of steps, in units of the scene.

        Args:
            steps: Numbers of steps.
        """
        if self.spacing == "uniform":
            return torch.full(steps.shape, self.step_size, device=steps.device)
        return self.edges(steps + 1) - self.edges(steps)


def squeezed(distance: float) -> float:
    """Half the distance up to 1, then what approaches 1 with its inverse: steps of `piecewise` are even in it.

    Args:
        distance: Distance from the camera, >= 0.
    """
    return distance / 2 if distance < 1 else 1 - 1 / (2 * distance)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of some rays, sorted by ray, then by step."""

    ray: Int32[Tensor, " samples"]
    """Number of the ray."""
    step: Int32[Tensor, " samples"]
    """Number of the step."""
    voxel: Int32[Tensor, " samples"]
    """Number of the voxel, which is occupied."""
    distance: Float[Tensor, " samples"]
    """Distance from the ray's origin, in units of the scene."""

    def __len__(self) -> int:
        return len(self.ray)

    def of(self, which: Int64[Tensor, " some"]) -> "Samples":
        """Some of the samples.

        Args:
            which: Their numbers, ascending.
        """
        return Samples(*(x.index_select(0, which) for x in (self.ray, self.step, self.voxel, self.distance)))

    def points(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> Float[Tensor, "samples 3"]:
        """Places of the samples in the world.

        Args:
            origins: Where the rays begin.
            directions: Where they go.
        """
        return torch.addcmul(
            origins.index_select(0, self.ray), directions.index_select(0, self.ray), self.distance[:, None]
        )


class Marcher:
    """Finds the samples of rays that lie in occupied voxels.

    Args:
        live: The cells.
        lattice: Places along the rays.
        contraction: Into the space of the cells; None where they lie in the world. In contracted space rays are curves:
            every step is looked at.
    """

    def __init__(self, live: LiveCells, lattice: Lattice, contraction: Optional[Contraction] = None) -> None:
        self.live = live
        self.lattice = lattice
        self.contraction = contraction

    @cached_property
    def interval(self) -> int:
        """Steps between two looks into the dilated grid; 1: there is none, the steps are too long for it."""
        return next((n for n in INTERVALS if self._radius(n) <= MAX_RADIUS), 1)

    def _radius(self, interval: int) -> int:
        """Voxels along an axis between the middle of an interval and any of its samples, at most."""
        half = (interval - 1) / 2 * self.lattice.step_size * (1 + TOLERATED_LENGTH) / self.live.grid.voxel_size
        return ceil(half + SLACK)

    @cached_property
    def _single(self) -> "_Table":
        return _Table(self.live.occupied, 0)

    @cached_property
    def _coarse(self) -> "_Table":
        return _Table(self.live.occupied, self._radius(self.interval))

    @cached_property
    def _bounds(self) -> Float[Tensor, "2 3"]:
        """The box around the occupied voxels, in voxels."""
        places = self.live.occupied.nonzero()
        if not len(places):
            return torch.zeros(2, 3, device=places.device)
        return torch.stack([places.amin(dim=0) - SLACK, places.amax(dim=0) + 1 + SLACK])

    @torch.no_grad()
    def occupied(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        shift: Optional[Float[Tensor, " rays"]] = None,
    ) -> Samples:
        """Samples in occupied voxels.

        Args:
            origins: Where the rays begin, in the world. A ray with a value that is no number has no samples.
            directions: Where they go, of length 1.
            shift: Where in their steps the samples of each ray lie, in [0, 1). None: in the middle.

        Raises:
            ValueError: If a direction has another length.
        """
        lengths = directions.norm(dim=1)
        wrong = (lengths - 1).abs() > TOLERATED_LENGTH
        if bool(wrong.any()):
            raise ValueError(
                f"directions must have length 1, got {int(wrong.sum())} of {len(wrong)} that have not, the first of "
                f"length {float(lengths[wrong][0]):g}"
            )
        if shift is None:
            shift = torch.full_like(lengths, 0.5)
        if self.contraction is not None or self.lattice.spacing != "uniform":
            return self._every_step(origins, directions, shift)
        grid = self.live.grid
        starts, strides = (origins - grid.lower) / grid.voxel_size, directions / grid.voxel_size
        ray, interval = self._in_box(starts, strides, shift)
        if self.interval > 1:
            middle = interval * self.interval + (self.interval - 1) / 2
            distance = self.lattice.near + (middle + shift.index_select(0, ray)) * self.lattice.step_size
            found, _ = self._coarse.look(starts, strides, ray, distance)
            ray, interval = ray[found], interval[found]
            within = torch.arange(self.interval, dtype=torch.int32, device=ray.device)
            step = (interval[:, None] * self.interval + within).flatten()
            ray = ray.repeat_interleave(self.interval)
            real = step < self.lattice.steps
            ray, step = ray[real], step[real]
        else:
            step = interval
        distance = self.lattice.distances(step, shift.index_select(0, ray))
        found, voxel = self._single.look(starts, strides, ray, distance)
        return Samples(ray[found], step[found], voxel[found], distance[found])

    def _in_box(
        self, starts: Float[Tensor, "rays 3"], strides: Float[Tensor, "rays 3"], shift: Float[Tensor, " rays"]
    ) -> tuple[Int32[Tensor, " intervals"], Int32[Tensor, " intervals"]]:
        """Ray and number of each interval that may have a sample in the box around what is occupied."""
        low, high = ((bound - starts) / strides for bound in self._bounds)
        along = strides == 0
        beside = along & ((starts < self._bounds[0]) | (starts > self._bounds[1]))
        enter = torch.minimum(low, high).masked_fill(along, -torch.inf).amax(dim=1)
        leave = torch.maximum(low, high).masked_fill(along, torch.inf).amin(dim=1)
        # In steps; one more on either side for rounding.
        scale, last_step = 1 / self.lattice.step_size, self.lattice.steps - 1
        first = ((enter - self.lattice.near) * scale - shift).floor() - 1
        last = ((leave - self.lattice.near) * scale - shift).ceil() + 1
        meets = (leave >= enter) & (last >= 0) & (first <= last_step) & ~beside.any(dim=1)
        meets &= (starts.isfinite() & strides.isfinite()).all(dim=1)
        ends = torch.stack([first, last]).nan_to_num(0.0).clamp(0, last_step)
        first, last = (ends // self.interval).int()
        counts = torch.where(meets, last - first + 1, 0)
        ray = torch.arange(len(starts), dtype=torch.int32, device=starts.device).repeat_interleave(counts)
        offsets = (first - (counts.cumsum(dim=0) - counts)).int()
        interval = torch.arange(len(ray), dtype=torch.int32, device=ray.device) + offsets.index_select(0, ray)
        return ray, interval

    def _every_step(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], shift: Float[Tensor, " rays"]
    ) -> Samples:
        """Looks at every step of every ray, some rays at a time."""
        steps = torch.arange(self.lattice.steps, dtype=torch.int32, device=origins.device)
        flat, found = self.live.occupied.flatten(), []
        per_chunk = max(1, PLACES_AT_ONCE // self.lattice.steps)
        for begin in range(0, len(origins), per_chunk):
            part = slice(begin, begin + per_chunk)
            rays = len(origins[part])
            distance = self.lattice.distances(steps.expand(rays, -1), shift[part, None])
            points = (origins[part, None] + directions[part, None] * distance[..., None]).flatten(0, 1)
            if self.contraction is not None:
                points = self.contraction(points)
            voxel = self.live.grid.voxels(points)
            index = ((voxel >= 0) & flat[voxel.clamp(min=0).long()]).nonzero()[:, 0]
            ray = (begin + index // self.lattice.steps).int()
            step = (index % self.lattice.steps).int()
            found.append(Samples(ray, step, voxel[index], distance.flatten()[index]))
        if not found:
            none = torch.zeros(0, dtype=torch.int32, device=origins.device)
            return Samples(none, none, none, origins.new_zeros(0))
        parts: Any = zip(*((s.ray, s.step, s.voxel, s.distance) for s in found), strict=True)
        return Samples(*(torch.cat(part) for part in parts))


class _Table:
    """Voxels with a margin of empty ones, so that no look needs a test of bounds.

    Args:
        occupied: The voxels.
        radius: By how many voxels they are dilated, beyond the box too.
    """

    def __init__(self, occupied: Bool[Tensor, "width height depth"], radius: int) -> None:
        self.margin = radius + 1
        self.shape = tuple(occupied.shape)
        self.flat = dilated(pad(occupied, (self.margin,) * 6), radius).flatten()

    def look(
        self,
        starts: Float[Tensor, "rays 3"],
        strides: Float[Tensor, "rays 3"],
        ray: Int32[Tensor, " places"],
        distance: Float[Tensor, " places"],
    ) -> tuple[Int64[Tensor, " found"], Int32[Tensor, " places"]]:
        """Places that are occupied, and the number of each one's voxel, which has a meaning for those in the box.

        Args:
            starts: Where the rays begin, in voxels.
            strides: Where they go, in voxels for a unit of length.
            ray: Ray of each place.
            distance: Distance of each place.
        """
        index: Any = 0
        voxel: Any = 0
        for axis, count in enumerate(self.shape):
            start, stride = starts[:, axis].index_select(0, ray), strides[:, axis].index_select(0, ray)
            place = (start + stride * distance).clamp_(-self.margin, count + self.margin - 1).floor_().int()
            index = index * (count + 2 * self.margin) + (place + self.margin)
            voxel = voxel * count + place
        return self.flat.index_select(0, index).nonzero()[:, 0], voxel
