"""What is behind everything where that is the colour of a ray's last sample: a sky, with nothing dense in it.

Density says nothing of it. Cells are laid there because light comes through to it, and it is learnt as if it were
opaque.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.kilo.space import pixels_of_views
from nerfstudio_prune.kilo.spaces import Space
from nerfstudio_prune.kilo.teacher import Teacher
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.composite import render
from nerfstudio_prune.kilonerf.examples import BehindFn
from nerfstudio_prune.kilonerf.march import Lattice, Marcher
from nerfstudio_prune.occupancy import POINTS_AT_ONCE, dilated

LEAST_LIGHT = 0.01
"""Share of a ray's light from which it shows what is behind everything: what KiloNeRF follows no ray for."""
MOST_RAYS = 2**16
"""Rays that are followed through all training views, about."""
RAYS_AT_ONCE = 2**14
SAMPLES_AT_ONCE = 8
"""Samples of a ray that the teacher is asked for between two looks at what light is left."""


def shows_ends(space: Space, background: str) -> bool:
    """Whether what is behind everything lies in cells, at the ends of rays.

    Args:
        space: The space of the cells.
        background: Colour behind the scene, as the host names it.
    """
    return space.holds_ends and background == "last_sample"


def places_behind(space: Space, background: str, lattice: Lattice) -> Optional[BehindFn]:
    """Which places show what is behind everything; None: none does.

    Args:
        space: The space of the cells.
        background: Colour behind the scene, as the host names it.
        lattice: Steps of rays.
    """
    return partial(space.ends, lattice) if shows_ends(space, background) else None


@dataclass(frozen=True, eq=False)
class OpenRays:
    """Rays of training views that let light through to what is behind everything."""

    cameras: Cameras
    """The views."""
    space: Space
    """The space of the cells."""
    pixels: Sequence[Float[Tensor, "pixels 2"]]
    """Row and column of the pixels of each view; each stands for all around it, up to halfway to the next."""
    every: int
    """Rows and columns between two pixels that were looked at."""
    share: float
    """Share of these among those, in [0, 1]."""

    def ends(self, lattice: Lattice, apart: float) -> Iterator[Float[Tensor, "places 3"]]:
        """Places of the last steps of these rays and of those between them, in the space of the cells, a view at a
        time.

        Args:
            lattice: Steps of rays.
            apart: Distance between two neighbours of them, at most.
        """
        # Begin, middle and end, for a step is hardly longer than a voxel: in training a sample may lie anywhere in it.
        distance = lattice.edges(lattice.steps - torch.tensor([1.0, 0.5, 0.0]))
        for view, pixels in enumerate(self.pixels):
            if not len(pixels):
                continue
            angle = float(self.cameras.generate_rays(view, coords=pixels).pixel_area.max().sqrt())
            # Where the rays end they are as far apart as their directions: the ball has a radius of 1.
            count = max(1, ceil(self.every * angle / apart))
            beside = torch.linspace(-0.5, 0.5, count + 1) * self.every
            size = torch.cat([self.cameras.height[view], self.cameras.width[view]])
            around = (pixels[:, None] + torch.cartesian_prod(beside, beside)).flatten(0, 1)
            rays = self.cameras.generate_rays(view, coords=around.clamp(min=0).minimum(size))
            places = rays.origins[:, None] + rays.directions[:, None] * distance[:, None]
            yield self.space.from_world(places[places.isfinite().all(dim=-1)])

    def corners(self, lattice: Lattice, box: Float[Tensor, "2 3"]) -> Float[Tensor, "corners 3"]:
        """Lower and upper corner of all of these places; none where there are none.

        Args:
            lattice: Steps of rays.
            box: Lower and upper corner of something as large.
        """
        longest = float((box[1] - box[0]).max())
        found = [corner for ends in self.ends(lattice, longest) for corner in (ends.amin(dim=0), ends.amax(dim=0))]
        if not found:
            return box.new_zeros(0, 3)
        every = torch.stack(found).to(box)
        return torch.stack([every.amin(dim=0), every.amax(dim=0)])

    def with_ends(self, live: LiveCells, lattice: Lattice) -> LiveCells:
        """Cells with the voxels that the last steps lie in; the same object where there are none.

        Args:
            live: The cells.
            lattice: Steps of rays.
        """
        grid, found = live.grid, torch.zeros_like(live.occupied)
        for ends in self.ends(lattice, grid.voxel_size):
            voxels = grid.voxels(ends.to(grid.lower))
            found.view(-1)[voxels[voxels >= 0].long()] = True
        if not bool(found.any()):
            return live
        # A ray between two of them may cut the corner of a voxel that neither lies in, and would be black.
        voxels = dilated(found).flatten().nonzero()[:, 0].int()
        middles = grid.lower + (grid.voxel_coordinates(voxels) + 0.5) * grid.voxel_size
        occupied = live.occupied.flatten().clone()
        occupied[voxels[self.space.ends(lattice, middles, grid.voxel_size)].long()] = True
        return LiveCells(grid, occupied.view_as(found) | found)


@torch.no_grad()
def open_rays(teacher: Teacher, live: LiveCells, cameras: Cameras) -> OpenRays:
    """Follows rays of training views through what the teacher shows; those that reach the end of everything.

    Args:
        teacher: The teacher.
        live: Cells of all that is dense.
        cameras: Training cameras.

    Returns:
        The rays; none where what is behind everything is no matter of cells.
    """
    space, (views, every) = teacher.space, pixels_of_views(cameras, MOST_RAYS)
    if not shows_ends(space, teacher.background):
        return OpenRays(cameras, space, [], every, 0.0)
    lattice = Lattice(teacher.near, teacher.far, teacher.samples, space.spacing)
    marcher = Marcher(live, lattice, space.contraction)
    passes = [SAMPLES_AT_ONCE] * (lattice.steps // SAMPLES_AT_ONCE)

    def left(origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, " rays"]:
        samples = marcher.occupied(origins, directions)
        points = space.from_world(samples.points(origins, directions))

        def values(which: Tensor) -> tuple[Tensor, Tensor]:
            density = torch.cat([teacher.density(part) for part in points[which].split(POINTS_AT_ONCE)])
            return density, density.new_zeros(len(density), 3)

        length = space.lengths(lattice, samples.step, points)
        return render(values, samples.ray, samples.distance, length, len(origins), LEAST_LIGHT, passes).transmittance

    found, looked_at = [], 0
    for view, pixels in views:
        rays = cameras.generate_rays(view, coords=pixels).to(live.grid.lower.device)
        parts = zip(rays.origins.split(RAYS_AT_ONCE), rays.directions.split(RAYS_AT_ONCE), strict=True)
        light = torch.cat([left(*part) for part in parts])
        found.append(pixels[(light > LEAST_LIGHT).to(pixels.device)])
        looked_at += len(pixels)
    return OpenRays(cameras, space, found, every, sum(map(len, found)) / max(1, looked_at))
