"""What tiny networks learn from a teacher before they see a photo: points of their cells, directions, values.

KiloNeRF (arXiv 2103.13744, section 3.2) draws points and directions at random; here directions are those in which
cameras see the points, for no others are ever asked for.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.kilonerf.budget import MEGABYTE
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.occupancy import POINTS_AT_ONCE

TeacherFn = Callable[
    [Float[Tensor, "points 3"], Float[Tensor, "points directions 3"]],
    tuple[Float[Tensor, " points"], Float[Tensor, "points directions 3"]],
]
"""Points and several directions for each -> density and the colour in each direction; the trunk of a network has to be
evaluated only once for a point."""

BehindFn = Callable[[Float[Tensor, "points 3"]], Bool[Tensor, " points"]]
"""Points -> whether their colour is what is behind everything, however transparent they are."""

BYTES_PER_VALUE = 4


@dataclass(frozen=True, eq=False)
class Batch:
    """As many examples for each network."""

    positions: Float[Tensor, "networks points 3"]
    """Coordinates in the networks' own cells, in [-1, 1]."""
    directions: Float[Tensor, "networks points 3"]
    """Directions in which the points are seen, of length 1."""
    density: Float[Tensor, "networks points"]
    """The teacher's density, per unit of length."""
    rgb: Float[Tensor, "networks points 3"]
    """The teacher's colour."""
    behind: Optional[Bool[Tensor, "networks points"]] = None
    """Points whose colour is what is behind everything; None: there are none."""


def bytes_per_point(directions: int) -> int:
    """Bytes of memory that a point takes.

    Args:
        directions: Directions in which it is seen.
    """
    return BYTES_PER_VALUE * (3 + 1 + directions * (3 + 3))


class PointSampler:
    """Draws points that are uniform over the occupied voxels of each cell.

    Args:
        live: The cells.
    """

    def __init__(self, live: LiveCells) -> None:
        self.live = live
        voxels = live.occupied.flatten().nonzero()[:, 0].int()
        network = live.networks(voxels)
        order = network.argsort(stable=True)
        self._voxels = voxels[order]
        self.counts = network.long().bincount(minlength=live.count)
        """Occupied voxels of each network's cell."""
        self._starts = self.counts.cumsum(dim=0) - self.counts

    def draw(
        self, first: int, last: int, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "networks count 3"], Int32[Tensor, "networks count"]]:
        """Points in the cells of some networks, in units of the scene, and their voxels.

        Args:
            first: Number of the first network.
            last: Number behind the last one.
            count: Points for each.
            generator: Random numbers, of the CPU.
        """
        grid, device = self.live.grid, self._voxels.device
        share = torch.rand((last - first, count, 4), generator=generator, dtype=torch.float32).to(device)
        counts, starts = self.counts[first:last, None], self._starts[first:last, None]
        # float32 may round a share up to the whole.
        which = (share[..., 3] * counts).long().minimum(counts - 1)
        voxels = self._voxels[starts + which]
        corners = grid.voxel_coordinates(voxels.flatten()).view(last - first, count, 3)
        return grid.lower + (corners + share[..., :3]) * grid.voxel_size, voxels


@dataclass(frozen=True, eq=False)
class Seen:
    """Points of some networks' cells, as many of each, one network after the other."""

    points: Float[Tensor, "points 3"]
    """Where they are, in units of the scene."""
    positions: Float[Tensor, "points 3"]
    """Coordinates in the networks' own cells, in [-1, 1]."""
    directions: Float[Tensor, "points directions 3"]
    """Directions in which cameras see them, of length 1."""


def draw_seen(
    sampler: PointSampler,
    cameras: Float[Tensor, "cameras 3"],
    first: int,
    last: int,
    count: int,
    directions: int,
    generator: torch.Generator,
    to_world: Optional[Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]] = None,
) -> Seen:
    """Points of the cells of some networks, with directions in which they are seen.

    Args:
        sampler: Draws points.
        cameras: Places of the training cameras, each of which is as likely as any other.
        first: Number of the first network.
        last: Number behind the last one.
        count: Points for each.
        directions: Directions for each point.
        generator: Random numbers, of the CPU.
        to_world: As for `Examples`.
    """
    drawn, _ = sampler.draw(first, last, count, generator)
    points = drawn.flatten(0, 1)
    network = torch.arange(first, last, dtype=torch.int32, device=points.device).repeat_interleave(count)
    which = torch.randint(len(cameras), (len(points), directions), generator=generator).to(points.device)
    seen = points if to_world is None else to_world(points)
    towards = normalize(seen[:, None] - cameras[which], dim=-1)
    return Seen(points, sampler.live.local(points, network), towards)


class Examples:
    """Examples from a teacher, drawn anew when they are used up.

    A batch follows from the arguments and the step alone. The memory is one of them: it says how many examples are
    drawn in a row.

    Args:
        live: The cells, one network each.
        cameras: Places of the training cameras.
        teacher: The trained field; is asked for `POINTS_AT_ONCE` points at most.
        points_per_network: Points of each network in a batch, >= 1.
        memory: Largest number of bytes that examples are kept in.
        seed: Seed of all draws.
        directions: Directions from which each point is seen, >= 1; each is a batch of its own.
        most_points: Most points of each network that are kept at once, whatever the memory, for a short distillation
            needs no more. None: as many as fit.
        uses: How often each example is used before new ones are drawn, >= 1.
        to_world: From the space of the cells to that of the cameras, which directions are those of. None: it is one
            space.
        behind: Points whose colour is what is behind everything. None: there are none.

    Raises:
        ValueError: If there is no network or no camera, an argument is out of range, or not even a single batch fits
            into the memory.
    """

    def __init__(
        self,
        live: LiveCells,
        cameras: Float[Tensor, "cameras 3"],
        teacher: TeacherFn,
        points_per_network: int,
        memory: int,
        seed: int,
        directions: int = 3,
        most_points: Optional[int] = None,
        uses: int = 1,
        to_world: Optional[Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]] = None,
        behind: Optional[BehindFn] = None,
    ) -> None:
        if not live.count:
            raise ValueError("there must be at least one live cell to draw examples for, got none")
        if not len(cameras) or not bool(cameras.isfinite().all()):
            raise ValueError(f"cameras must be at least one finite place, got {len(cameras)}")
        if points_per_network < 1 or directions < 1:
            raise ValueError(
                "distil.points_per_network and directions must be at least 1, got "
                f"{points_per_network} and {directions}"
            )
        if uses < 1 or (most_points is not None and most_points < points_per_network):
            raise ValueError(
                f"examples must be used at least once and kept for at least one batch of {points_per_network} points, "
                f"got {uses} uses and {most_points} points"
            )
        batch_bytes = live.count * points_per_network * bytes_per_point(directions)
        if batch_bytes > memory:
            raise ValueError(
                f"distil.memory_mb {memory / MEGABYTE:g} is too small: {live.count} networks with {points_per_network} "
                f"points each need at least {batch_bytes / MEGABYTE:.3g}; lower distil.points_per_network or "
                "grid.resolution"
            )
        self.live, self.cameras, self.teacher = live, cameras.float(), teacher
        self.points_per_network, self.directions, self.seed = points_per_network, directions, seed
        self.uses, self.to_world, self.behind = uses, to_world, behind
        self.batches_of_points = memory // batch_bytes
        """Batches of new points that are kept at once."""
        if most_points is not None:
            self.batches_of_points = min(self.batches_of_points, most_points // points_per_network)
        self._sampler = PointSampler(live)
        self._refresh = -1
        self._store: Optional[dict[str, Tensor]] = None

    @property
    def batches_per_refresh(self) -> int:
        """Batches until all are used up."""
        return self.batches_of_points * self.directions * self.uses

    @property
    def held_bytes(self) -> int:
        """Bytes of the examples that are kept now."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self._store or {}).values())

    def batch(self, step: int) -> Batch:
        """Examples for a training step; those of a resumed run are those of an uninterrupted one.

        Args:
            step: Number of the step, >= 0.
        """
        refresh, index = divmod(step, self.batches_per_refresh)
        if refresh != self._refresh or self._store is None:
            # Old examples leave before new ones come: only one set is ever held.
            self._store = None
            self._store = self._drawn(refresh)
            self._refresh = refresh
        # First every point from one direction, then from the next; then all over again.
        direction, part = divmod(index, self.batches_of_points)
        direction %= self.directions
        points = slice(part * self.points_per_network, (part + 1) * self.points_per_network)
        store = self._store
        # Copies: a view would hold all examples for as long as the batch lives.
        positions = store["positions"][:, points].clone(memory_format=torch.contiguous_format)
        return Batch(
            positions,
            store["directions"][:, points, direction].clone(memory_format=torch.contiguous_format),
            store["density"][:, points].clone(memory_format=torch.contiguous_format),
            store["rgb"][:, points, direction].clone(memory_format=torch.contiguous_format),
            self._behind(positions),
        )

    def _behind(self, positions: Float[Tensor, "networks points 3"]) -> Optional[Bool[Tensor, "networks points"]]:
        """Which points show what is behind everything: looked up anew, for it takes less than to keep it."""
        if self.behind is None:
            return None
        places = self.live.corners[:, None] + (positions + 1) * (self.live.grid.cell_size / 2)
        return self.behind(places.flatten(0, 1)).view(positions.shape[:2])

    @torch.no_grad()
    def _drawn(self, refresh: int) -> dict[str, Tensor]:
        """Points, directions and the teacher's values, at most `POINTS_AT_ONCE` points at a time."""
        # The generator of the CPU looks at the lower 32 bits of its seed only.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} examples {refresh}".encode()))
        networks, views = self.live.count, self.directions
        count = self.batches_of_points * self.points_per_network
        shapes = {
            "positions": (networks, count, 3),
            "directions": (networks, count, views, 3),
            "density": (networks, count),
            "rgb": (networks, count, views, 3),
        }
        device = self.cameras.device
        store = {name: torch.empty(shape, dtype=torch.float32, device=device) for name, shape in shapes.items()}
        at_once = max(1, POINTS_AT_ONCE // count)
        for first in range(0, networks, at_once):
            last = min(first + at_once, networks)
            for begin in range(0, count, POINTS_AT_ONCE):
                self._draw_into(store, first, last, begin, min(begin + POINTS_AT_ONCE, count), generator)
        return store

    def _draw_into(
        self, store: dict[str, Tensor], first: int, last: int, begin: int, end: int, generator: torch.Generator
    ) -> None:
        """Draws the examples from `begin` to `end` of the networks from `first` to `last`."""
        count, to_world = end - begin, self.to_world
        seen = draw_seen(self._sampler, self.cameras, first, last, count, self.directions, generator, to_world)
        density, rgb = self.teacher(seen.points, seen.directions)
        found = {"positions": seen.positions, "directions": seen.directions, "density": density, "rgb": rgb}
        for name, values in found.items():
            store[name][first:last, begin:end] = values.unflatten(0, (last - first, count))
