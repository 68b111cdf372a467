"""Where in space a field has something to show: a grid of cells, so that the rest need not be evaluated.

Torch only; knows nothing of models. A cell is occupied if a step through it would be opaque to a given degree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log1p, prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool3d, pad

from nerfstudio_prune.core.plain import shown

DensityFn = Callable[[Float[Tensor, "points 3"]], Float[Tensor, " points"]]
"""Positions -> density, per unit of length, >= 0."""

POINTS_AT_ONCE = 2**13
"""Positions of one evaluation while a grid is built: few enough for the cache of a processor."""
COARSE_CELLS = 64
"""Most cells along the longest side of the box that the first round looks at."""
COARSE_PLACES, NEIGHBOUR_PLACES, FINE_PLACES = 2, 16, 1
"""Random places that are looked at in each coarse cell, again in each neighbour of one that is occupied, and in each
fine cell. Few in most: things hang together, and neighbours vouch for each other."""
CAUTION = 0.5
"""Factor on the threshold of the first round, which sees little of each of its cells."""
MAX_CELLS = 2**24
"""Most cells of a grid, a byte each; as many as float32 counts exactly."""


def density_threshold(alpha_thre: float, render_step_size: float) -> float:
    """Density at which a step has a given opacity, by 1 - exp(-density * step) = opacity.

    Args:
        alpha_thre: The opacity, in [0, 1).
        render_step_size: Length of the step, > 0.
    """
    return -log1p(-alpha_thre) / render_step_size


@dataclass(frozen=True, eq=False)
class OccupancyGrid:
    """Cells of a box; all of space outside of it is empty."""

    aabb: Float[Tensor, "2 3"]
    """Lower and upper corner of the box."""
    cells: Bool[Tensor, "width height depth"]
    """Whether a cell is occupied, along x, y and z."""

    @cached_property
    def _padded(self) -> Bool[Tensor, " padded"]:
        """Cells with an empty margin of one, so that no look needs a test of bounds."""
        return pad(self.cells, (1, 1) * 3).flatten()

    @property
    def occupancy(self) -> float:
        """Share of the cells that is occupied, in [0, 1]."""
        return float(self.cells.float().mean())

    def occupied(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        distances: Float[Tensor, "rays places"],
    ) -> Bool[Tensor, "rays places"]:
        """Whether places on rays lie in occupied cells; those at a distance that is not finite do not.

        Args:
            origins: Where the rays begin.
            directions: Where they go; distances count in their lengths.
            distances: Places on each ray.
        """
        shape = self.cells.shape
        scale = torch.tensor(shape, device=origins.device) / (self.aabb[1] - self.aabb[0])
        starts, strides = (origins - self.aabb[0]) * scale + 1, directions * scale
        index: Any = None
        for axis, count in enumerate(shape):
            place = torch.addcmul(starts[:, axis : axis + 1], strides[:, axis : axis + 1], distances)
            place = place.clamp_(0, count + 1).floor_()
            index = place if index is None else torch.add(place, index, alpha=count + 2)
        # What is no number lies in the margin.
        return self._padded.index_select(0, index.nan_to_num_(0.0).int().view(-1)).view(distances.shape)

    def to_dict(self) -> dict[str, Any]:
        """Corners, shape, and the cells as bits, eight a byte."""
        bits = torch.zeros(ceil(self.cells.numel() / 8) * 8, dtype=torch.uint8)
        bits[: self.cells.numel()] = self.cells.flatten().cpu()
        packed = (bits.view(-1, 8) << torch.arange(8, dtype=torch.uint8)).sum(dim=1).to(torch.uint8)
        return {"aabb": self.aabb.cpu(), "shape": list(self.cells.shape), "cells": packed}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], device: torch.device | str = "cpu") -> "OccupancyGrid":
        """The grid that `to_dict` described.

        Args:
            state: What it gave.
            device: Where the grid is to live.

        Raises:
            ValueError: If it describes no grid.
        """
        found: Any = [state.get(name) for name in ("aabb", "shape", "cells")]
        aabb, shape, packed = found
        fits = (
            isinstance(aabb, Tensor)
            and aabb.shape == (2, 3)
            and aabb.is_floating_point()
            and bool(aabb.isfinite().all() and (aabb[0] < aabb[1]).all())
            and isinstance(shape, list)
            and len(shape) == 3
            and all(isinstance(side, int) and 0 < side <= MAX_CELLS for side in shape)
            and isinstance(packed, Tensor)
            and packed.dtype == torch.uint8
            and packed.shape == (ceil(prod(shape) / 8),)
        )
        if not fits:
            raise ValueError(f"occupancy must have corners, a shape and its cells, got {shown(dict(state))}")
        bits = (packed.to(device)[:, None] >> torch.arange(8, dtype=torch.uint8, device=device)) & 1
        return cls(aabb.to(device), bits.flatten()[: prod(shape)].bool().view(shape))

    def contains(self, positions: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Whether positions lie in occupied cells.

        Args:
            positions: The positions.
        """
        return self.occupied(positions, torch.zeros_like(positions), positions.new_zeros(len(positions), 1))[:, 0]


Grids = Mapping[str, OccupancyGrid]
"""Name of a field -> where it has something to show."""


def grids_to_dict(grids: Grids) -> dict[str, Any]:
    """Grids as plain values and tensors.

    Args:
        grids: The grids.
    """
    return {name: grid.to_dict() for name, grid in grids.items()}


def grids_from_dict(state: Any, device: torch.device | str = "cpu") -> dict[str, OccupancyGrid]:
    """The grids that `grids_to_dict` described.

    Args:
        state: What it gave.
        device: Where the grids are to live.

    Raises:
        ValueError: If it describes no grids.
    """
    if not isinstance(state, dict) or not all(isinstance(grid, dict) for grid in state.values()):
        raise ValueError(f"occupancy must have a grid for each field, got {shown(state)}")
    return {str(name): OccupancyGrid.from_dict(grid, device) for name, grid in state.items()}


def build_grid(
    density_fn: DensityFn,
    box: Float[Tensor, "2 3"],
    threshold: float,
    resolution: int,
    generator: torch.Generator,
    places: Float[Tensor, "places 3"],
) -> OccupancyGrid:
    """Looks where in a box the density reaches a threshold: in coarse cells first, then in their parts.

    A cell counts as occupied if the density reaches the threshold at a random place in it or in a neighbour, or at one
    of the places that are given: something small and alone is likely to be missed by the former.

    Args:
        density_fn: The density; is asked for `POINTS_AT_ONCE` positions at most, on the device of the box.
        box: Lower and upper corner of the space to look at.
        threshold: Density, > 0.
        resolution: Cells along the longest side of what turns out to be occupied, >= 1; fewer where the grid would have
            more than `MAX_CELLS`.
        generator: Random numbers, of the CPU.
        places: Further places to look at, of any number; on rays that views show, say.

    Returns:
        A grid around what is occupied.
    """
    parts_of_places = places.split(POINTS_AT_ONCE) if len(places) else ()
    dense = [part[~(density_fn(part.contiguous()) < threshold)] for part in parts_of_places]
    seen = torch.cat([places[:0], *dense])
    edge = float((box[1] - box[0]).max()) / min(COARSE_CELLS, resolution)
    shape = [max(1, ceil(float(side) / edge - 1e-3)) for side in box[1] - box[0]]
    everything = torch.ones(shape, dtype=torch.bool, device=box.device)
    sides = (box[1] - box[0]) / torch.tensor(shape, device=box.device)
    found = _reached(density_fn, box[0], sides, everything, COARSE_PLACES, CAUTION * threshold, generator)
    found = found | _cells_of(seen, box[0], sides, found)
    looked_at = found
    while bool((shell := _dilated(found) & ~looked_at).any()):
        found = found | _reached(density_fn, box[0], sides, shell, NEIGHBOUR_PLACES, CAUTION * threshold, generator)
        looked_at = looked_at | shell
    lower, coarse = _cropped(box[0], sides, _dilated(found))
    parts = max(1, round(resolution / max(coarse.shape)))
    while coarse.numel() * parts**3 > MAX_CELLS:
        parts -= 1
    fine = coarse
    for axis in range(3):
        fine = fine.repeat_interleave(parts, dim=axis)
    sides = sides / parts
    found = _reached(density_fn, lower, sides, fine, FINE_PLACES, threshold, generator)
    found = found | _cells_of(seen, lower, sides, found)
    lower, cells = _cropped(lower, sides, _dilated(found))
    upper = lower + sides * torch.tensor(cells.shape, device=box.device)
    return OccupancyGrid(torch.stack([lower, upper]), cells)


def _reached(
    density_fn: DensityFn,
    lower: Float[Tensor, " 3"],
    sides: Float[Tensor, " 3"],
    cells: Bool[Tensor, "width height depth"],
    places: int,
    threshold: float,
    generator: torch.Generator,
) -> Bool[Tensor, "width height depth"]:
    """Whether the density reaches the threshold at random places of each of the cells that are asked for."""
    indices: Int[Tensor, "asked 3"] = cells.nonzero()
    found = torch.zeros_like(cells)
    if not len(indices):
        return found
    for part in indices.split(max(1, POINTS_AT_ONCE // places)):
        inside = torch.rand((len(part), places, 3), generator=generator).to(lower)
        positions = (lower + (part[:, None] + inside) * sides).contiguous()
        densities = density_fn(positions.flatten(0, 1)).view(len(part), places)
        # A density that is no number is looked at again wherever the grid is used.
        found[tuple(part.T)] = ~(densities < threshold).all(dim=1)
    return found


def _cells_of(
    places: Float[Tensor, "places 3"],
    lower: Float[Tensor, " 3"],
    sides: Float[Tensor, " 3"],
    cells: Bool[Tensor, "width height depth"],
) -> Bool[Tensor, "width height depth"]:
    """The cells that places lie in, of as many as these; those outside lie in none."""
    index = ((places - lower) / sides).floor().long()
    inside = ((index >= 0) & (index < torch.tensor(cells.shape, device=index.device))).all(dim=1)
    found = torch.zeros_like(cells)
    found[tuple(index[inside].T)] = True
    return found


def _dilated(cells: Bool[Tensor, "width height depth"]) -> Bool[Tensor, "width height depth"]:
    """Cells, and their 26 neighbours."""
    return max_pool3d(cells[None].float(), 3, stride=1, padding=1)[0] > 0


def _cropped(
    lower: Float[Tensor, " 3"], sides: Float[Tensor, " 3"], cells: Bool[Tensor, "width height depth"]
) -> tuple[Float[Tensor, " 3"], Bool[Tensor, "width height depth"]]:
    """Lower corner and cells of the smallest box around the occupied ones; of one cell where none is."""
    indices: Int[Tensor, "occupied 3"] = cells.nonzero()
    if not len(indices):
        return lower, cells[:1, :1, :1]
    first, last = indices.amin(dim=0), indices.amax(dim=0) + 1
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return lower + first * sides, cells[x, y, z]
