"""Which cells have something in them: looked up in a trained field once, and in the tiny networks themselves later."""

from bisect import bisect_right
from collections.abc import Callable
from math import ceil, expm1, prod
from typing import Optional

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.occupancy import (
    MAX_CELLS,
    POINTS_AT_ONCE,
    DensityFn,
    OccupancyGrid,
    build_grid,
    cells_of,
    dense_places,
    density_threshold,
    dilated,
    reached,
    spread,
)

VoxelDensityFn = Callable[[Float[Tensor, "points 3"], Int32[Tensor, " points"]], Float[Tensor, " points"]]
"""Points and their voxels -> density, per unit of length, >= 0."""

SURVEY_CELLS = 64
"""Cells along the longest side of the box while its tight part is searched."""
SURVEYS, ENOUGH = 3, 0.95
"""Most searches for the tight part, and the share of the longest side above which the last one changed nothing: small
voxels have a high threshold, and how small they are follows from the part."""
NEIGHBOUR_PLACES = 4
"""Random places that are looked at in each voxel beside an occupied one; in the others one."""


class _Watched:
    """A density that remembers the largest value it gave."""

    def __init__(self, density_fn: DensityFn) -> None:
        self.density_fn = density_fn
        self.largest = 0.0

    def __call__(self, positions: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        density = self.density_fn(positions)
        if len(density):
            self.largest = max(self.largest, float(density.max()))
        return density


@torch.no_grad()
def build_cells(
    density_fn: DensityFn,
    box: Float[Tensor, "2 3"],
    resolution: int,
    refine: int,
    alpha_threshold: float,
    generator: torch.Generator,
    places: Float[Tensor, "places 3"],
    dilate: int = 1,
    max_voxels: int = MAX_CELLS,
    around: Optional[Float[Tensor, "held 3"]] = None,
) -> LiveCells:
    """Looks where a field has something to show, and cuts the tight box around it into cubic cells.

    First the tight box is searched, coarsely; then every voxel in it that the search did not call empty is looked at,
    in one random place, and those beside occupied ones in `NEIGHBOUR_PLACES`. KiloNeRF (arXiv 2103.13744, section 3.3)
    looks at a subgrid of each voxel and compares with a density, which depends on the scene's unit; an opacity does
    not.

    Args:
        density_fn: The density, per unit of length; is asked for `POINTS_AT_ONCE` positions at most.
        box: Lower and upper corner of the space to look at.
        resolution: Cells along the longest side of the tight box, >= 1.
        refine: Voxels along the side of a cell, >= 1.
        alpha_threshold: Opacity of a path as long as a voxel's side from which the voxel counts as occupied, in (0, 1).
        generator: Random numbers, of the CPU.
        places: Further places to look at, of any number; on rays that views show, say.
        dilate: By how many voxels what is found is grown, >= 0.
        max_voxels: Most voxels that the grid may have, in [1, `MAX_CELLS`].
        around: Places that the box is to hold as well, whatever is there. None: no others.

    Returns:
        The cells, in a box whose longest side has `resolution` cells.

    Raises:
        ValueError: If an argument is out of range, nothing is found (names the largest opacity that was seen), or there
            would be more than `max_voxels` (names the largest resolution that fits into the same tight box).
    """
    if not 0 < alpha_threshold < 1:
        raise ValueError(f"occupancy.alpha_threshold must be in (0, 1), got {alpha_threshold}")
    for name, value, least in (("grid.resolution", resolution, 1), ("occupancy.refine", refine, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not bool(box.isfinite().all()) or not bool((box[0] < box[1]).all()):
        raise ValueError(f"the box must be finite, its lower corner below its upper one, got {box.tolist()}")
    if dilate < 0:
        raise ValueError(f"occupancy.dilate must be at least 0, got {dilate}")
    watched, voxels_along = _Watched(density_fn), resolution * refine
    survey = _survey(watched, box, voxels_along, alpha_threshold, generator, places)
    grid = _cubes(survey.aabb if around is None else holding(survey.aabb, around), resolution, refine, max_voxels)
    sides = torch.full((3,), grid.voxel_size, device=box.device, dtype=box.dtype)
    threshold = density_threshold(alpha_threshold, grid.voxel_size)
    asked = _overlapping(grid, survey)
    found = reached(watched, grid.lower, sides, asked, 1, threshold, generator)
    found = found | cells_of(dense_places(watched, places, threshold), grid.lower, sides, found)
    if not bool(found.any()):
        raise _nothing_found(watched.largest, alpha_threshold, grid.voxel_size)
    found = spread(watched, grid.lower, sides, found, torch.zeros_like(found), NEIGHBOUR_PLACES, threshold, generator)
    return LiveCells(grid, dilated(found, dilate))


def holding(box: Float[Tensor, "2 3"], places: Float[Tensor, "places 3"]) -> Float[Tensor, "2 3"]:
    """The smallest box that holds a box, and places.

    Args:
        box: Its lower and upper corner.
        places: The places.
    """
    every = torch.cat([box, places.to(box)])
    return torch.stack([every.amin(dim=0), every.amax(dim=0)])


def _survey(
    watched: _Watched,
    box: Float[Tensor, "2 3"],
    voxels_along: int,
    alpha_threshold: float,
    generator: torch.Generator,
    places: Float[Tensor, "places 3"],
) -> OccupancyGrid:
    """A coarse grid of the tight box."""
    for _ in range(SURVEYS):
        side = float((box[1] - box[0]).max())
        threshold = density_threshold(alpha_threshold, side / voxels_along)
        survey = build_grid(watched, box, threshold, min(SURVEY_CELLS, voxels_along), generator, places)
        if not bool(survey.cells.any()):
            raise _nothing_found(watched.largest, alpha_threshold, side / voxels_along)
        box = survey.aabb
        if float((box[1] - box[0]).max()) > ENOUGH * side:
            break
    return survey


def _nothing_found(density: float, alpha_threshold: float, voxel_size: float) -> ValueError:
    return ValueError(
        f"occupancy.alpha_threshold: nothing is as opaque as {alpha_threshold:g} over the side of a voxel "
        f"({voxel_size:g}); the largest opacity seen is {-expm1(-density * voxel_size):.3g}. Is the teacher trained, "
        "and does the scene box hold the scene?"
    )


def _cubes(aabb: Float[Tensor, "2 3"], resolution: int, refine: int, max_voxels: int) -> CellGrid:
    """Cubic cells around a box, which lies in their middle."""
    extent, most = (aabb[1] - aabb[0]).tolist(), min(max_voxels, MAX_CELLS)

    def shape(resolution: int) -> tuple[int, int, int]:
        # Not one cell more for what is rounded.
        x, y, z = (max(1, ceil(side / (max(extent) / resolution) - 1e-3)) for side in extent)
        return x, y, z

    def voxels(resolution: int) -> int:
        return prod(shape(resolution)) * refine**3

    if voxels(resolution) > most:
        # No side has fewer cells at a higher resolution.
        fits = bisect_right(range(1, resolution), most, key=voxels)
        raise ValueError(
            f"grid.resolution {resolution} with occupancy.refine {refine} needs {voxels(resolution):,} voxels, and "
            f"{most:,} are allowed; "
            + (f"the largest resolution that fits is {fits}" if fits else "none fits: lower occupancy.refine")
        )
    (x, y, z), cell_size = shape(resolution), max(extent) / resolution
    middle = (aabb[0] + aabb[1]) / 2
    lower = middle - torch.tensor([x, y, z], device=aabb.device, dtype=aabb.dtype) * (cell_size / 2)
    return CellGrid(lower, cell_size, (x, y, z), refine)


def _overlapping(grid: CellGrid, survey: OccupancyGrid) -> Bool[Tensor, "width height depth"]:
    """Voxels that lie in, or beside, occupied cells of a survey."""
    found = torch.nn.functional.pad(survey.cells, (1, 1) * 3)
    for axis, count in enumerate(grid.voxel_shape):
        centres = grid.lower[axis] + (torch.arange(count, device=grid.lower.device) + 0.5) * grid.voxel_size
        low, high, cells = survey.aabb[0, axis], survey.aabb[1, axis], survey.cells.shape[axis]
        place = ((centres - low) / (high - low) * cells).floor().clamp(-1, cells).long() + 1
        found = found.index_select(axis, place)
    # A voxel whose centre lies outside may still reach into an occupied cell.
    return dilated(found)


@torch.no_grad()
def tighten(
    live: LiveCells,
    density_fn: VoxelDensityFn,
    alpha_threshold: float,
    generator: torch.Generator,
    places: int = 4,
) -> LiveCells:
    """Looks again at the occupied voxels, and at no others: what is empty by now leaves.

    Args:
        live: The cells as they are.
        density_fn: Density of points in given voxels, of the tiny networks; is asked for `POINTS_AT_ONCE` at most.
        alpha_threshold: As `build_cells`.
        generator: Random numbers, of the CPU.
        places: Random places that are looked at in each voxel, >= 1.

    Returns:
        Cells with fewer occupied voxels, and fewer networks where none is left. `LiveCells.kept_of` tells which.

    Raises:
        ValueError: If an argument is out of range, or nothing would be left.
    """
    if not 0 < alpha_threshold < 1:
        raise ValueError(f"occupancy.alpha_threshold must be in (0, 1), got {alpha_threshold}")
    if places < 1:
        raise ValueError(f"places must be at least 1, got {places}")
    grid, largest = live.grid, 0.0
    threshold = density_threshold(alpha_threshold, grid.voxel_size)
    voxels = live.occupied.flatten().nonzero()[:, 0].int()
    if not len(voxels):
        raise ValueError("there must be at least one occupied voxel to look at, got none")
    stays = torch.zeros(len(voxels), dtype=torch.bool, device=voxels.device)
    start = 0
    for part in voxels.split(max(1, POINTS_AT_ONCE // places)):
        inside = torch.rand((len(part), places, 3), generator=generator).to(grid.lower)
        corners = grid.voxel_coordinates(part).to(grid.lower)[:, None]
        points = grid.lower + (corners + inside) * grid.voxel_size
        density = density_fn(points.flatten(0, 1), part.repeat_interleave(places)).view(len(part), places)
        # What is no number stays, to be seen.
        stays[start : start + len(part)] = ~(density < threshold).all(dim=1)
        largest, start = max(largest, float(density.max())), start + len(part)
    if not bool(stays.any()):
        raise _nothing_found(largest, alpha_threshold, grid.voxel_size)
    occupied = torch.zeros_like(live.occupied).flatten()
    occupied[voxels[stays].long()] = True
    return LiveCells(grid, occupied.view_as(live.occupied))


def visible(
    live: LiveCells,
    voxels: Int32[Tensor, " samples"],
    weights: Float[Tensor, " samples"],
    least: float,
) -> Bool[Tensor, "width height depth"]:
    """Voxels that a sample contributes to a pixel from, for `LiveCells.restricted`.

    Args:
        live: The cells.
        voxels: Voxel of each sample, >= 0.
        weights: Contribution of each sample to its pixel, in [0, 1]; one that is no number counts.
        least: Contribution that counts.
    """
    seen = torch.zeros(live.occupied.numel(), dtype=torch.bool, device=live.occupied.device)
    seen[voxels[~(weights <= least)].long()] = True
    return seen.view_as(live.occupied)


def visible_behind(
    live: LiveCells,
    voxels: Int32[Tensor, " samples"],
    ray: Int32[Tensor, " samples"],
    left: Float[Tensor, " rays"],
    least: float,
) -> Bool[Tensor, "width height depth"]:
    """Voxels of the last samples of rays, where the colour of these is what is behind everything; as `visible`.

    Args:
        live: The cells.
        voxels: Voxel of each sample, >= 0.
        ray: Ray of each sample, ascending.
        left: Share of the light of each ray that comes through to what is behind everything, in [0, 1].
        least: Share that counts.
    """
    last = torch.ones_like(ray, dtype=torch.bool)
    last[:-1] = ray[1:] != ray[:-1]
    return visible(live, voxels[last], left[ray[last].long()], least)
