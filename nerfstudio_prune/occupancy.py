"""Where in space a field has something to show: a grid of cells, so that the rest need not be evaluated.

Torch only; knows nothing of models. A cell is occupied if a step through it would be opaque to a given degree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log1p, prod
from typing import Any, Optional

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

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
REFRESH = 8
"""One of so many coarse cells and places is looked at again where a grid is known."""
SUITS = 0.6, 1.5
"""Cells along the longest side of a grid that is gone on with, as shares of those that are asked for."""
SAME = 0.01
"""By how much of a cell two lattices may differ that are the same but for rounding."""
FOG = 0.5
"""Share of a box from which what fills it has coarse cells only: there is little to be skipped, and much to look at."""
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
            more than `MAX_CELLS`, or where most of the box is occupied.
        generator: Random numbers, of the CPU.
        places: Further places to look at, of any number; on rays that views show, say.

    Returns:
        A grid around what is occupied.
    """
    look = _Look(density_fn, box, threshold, resolution, generator, dense_places(density_fn, places, threshold))
    everything = torch.ones(look.shape, dtype=torch.bool, device=box.device)
    first, coarse = _cropped(dilated(look.coarse(everything, ~everything)))
    parts = max(1, round(resolution / max(coarse.shape))) if coarse.sum() <= FOG * everything.numel() else 1
    while coarse.numel() * parts**3 > MAX_CELLS:
        parts -= 1
    return look.fine(first, parts, _in_parts(coarse, parts))


def refresh_grid(
    known: OccupancyGrid,
    density_fn: DensityFn,
    box: Float[Tensor, "2 3"],
    threshold: float,
    resolution: int,
    generator: torch.Generator,
    places: Float[Tensor, "places 3"],
) -> OccupancyGrid:
    """Brings a grid up to date with a density that has changed a little: for a fraction of the price of `build_grid`.

    Looks at all cells that were occupied, which their neighbours are among, and at a random part of the rest of space
    and of the places. Where the grid has become too coarse or too fine for what is occupied, or is one of another box,
    `build_grid` makes another.

    Args:
        known: The grid; `build_grid` made it, or this function.
        density_fn: As for `build_grid`, like the rest.
        box: Lower and upper corner of the space to look at.
        threshold: Density, > 0.
        resolution: Cells along the longest side of what is occupied, >= 1.
        generator: Random numbers, of the CPU.
        places: Further places to look at.

    Returns:
        A grid around what is occupied now.
    """
    first_place = int(torch.randint(REFRESH, (), generator=generator))
    seen = dense_places(density_fn, places[first_place::REFRESH], threshold)
    look = _Look(density_fn, box, threshold, resolution, generator, seen)
    lattice = look.lattice_of(known)
    if lattice is None:
        return build_grid(density_fn, box, threshold, resolution, generator, places)
    parts, occupied = lattice
    inside = torch.zeros(look.shape, dtype=torch.bool, device=box.device)
    inside[tuple((occupied // parts).T)] = True
    drawn = torch.randint(REFRESH, look.shape, generator=generator).to(box.device) == 0
    new = dilated(look.coarse(drawn & ~inside, inside))
    first, coarse = _cropped(new | inside)
    if coarse.numel() * parts**3 > MAX_CELLS:
        return build_grid(density_fn, box, threshold, resolution, generator, places)
    x, y, z = (slice(int(a), int(a) + count) for a, count in zip(first, coarse.shape, strict=True))
    fine = _in_parts((new | (drawn & inside))[x, y, z], parts)
    fine[tuple((occupied - first * parts).T)] = True
    return look.fine(first, parts, fine)


@dataclass(frozen=True, eq=False)
class _Look:
    """One look at a box, and the coarse cells of it."""

    density_fn: DensityFn
    box: Float[Tensor, "2 3"]
    threshold: float
    resolution: int
    generator: torch.Generator
    seen: Float[Tensor, "seen 3"]
    """Places that are known to be dense."""

    @cached_property
    def shape(self) -> list[int]:
        """Coarse cells along x, y and z."""
        edge = float((self.box[1] - self.box[0]).max()) / min(COARSE_CELLS, self.resolution)
        return [max(1, ceil(float(side) / edge - 1e-3)) for side in self.box[1] - self.box[0]]

    @cached_property
    def sides(self) -> Float[Tensor, " 3"]:
        """Sides of a coarse cell."""
        return (self.box[1] - self.box[0]) / torch.tensor(self.shape, device=self.box.device)

    def coarse(
        self, asked: Bool[Tensor, "width height depth"], known: Bool[Tensor, "width height depth"]
    ) -> Bool[Tensor, "width height depth"]:
        """Occupied ones of the coarse cells that are asked for, and of those around them; none that are known."""
        lower, sides, threshold = self.box[0], self.sides, CAUTION * self.threshold
        found = reached(self.density_fn, lower, sides, asked, COARSE_PLACES, threshold, self.generator)
        found = (found | cells_of(self.seen, lower, sides, found)) & ~known
        return spread(self.density_fn, lower, sides, found, known, NEIGHBOUR_PLACES, threshold, self.generator)

    def fine(self, first: Int[Tensor, " 3"], parts: int, asked: Bool[Tensor, "width height depth"]) -> OccupancyGrid:
        """The grid of those parts of coarse cells that are asked for, from the first coarse cell on."""
        lower, sides = self.box[0] + first * self.sides, self.sides / parts
        found = reached(self.density_fn, lower, sides, asked, FINE_PLACES, self.threshold, self.generator)
        first, cells = _cropped(dilated(found | cells_of(self.seen, lower, sides, found)))
        lower = lower + first * sides
        upper = lower + sides * torch.tensor(cells.shape, device=lower.device)
        return OccupancyGrid(torch.stack([lower, upper]), cells)

    def lattice_of(self, known: OccupancyGrid) -> Optional[tuple[int, Int[Tensor, "occupied 3"]]]:
        """How many parts of a coarse cell's side the cells of a grid are, and where in the box those lie that are
        occupied, counted in these parts; None where they are no such parts, or not of a size that suits."""
        shape = torch.tensor(known.cells.shape, device=self.box.device)
        sides = (known.aabb[1] - known.aabb[0]) / shape
        first = (known.aabb[0] - self.box[0]) / sides
        parts = self.sides / sides
        count = max(1, round(float(parts[0])))
        ends = torch.tensor(self.shape, device=self.box.device) * count
        suits = (
            bool(((parts - count).abs() < SAME).all() and ((first - first.round()).abs() < SAME).all())
            and bool((first.round() >= 0).all() and (first.round() + shape <= ends).all())
            and SUITS[0] * self.resolution <= max(known.cells.shape) <= SUITS[1] * self.resolution
        )
        return (count, known.cells.nonzero() + first.round().long()) if suits else None


def dense_places(
    density_fn: DensityFn, places: Float[Tensor, "places 3"], threshold: float
) -> Float[Tensor, "dense 3"]:
    """Those of the places at which the density reaches the threshold.

    Args:
        density_fn: The density; is asked for `POINTS_AT_ONCE` positions at most.
        places: The places.
        threshold: Density, > 0; one that is no number counts as reached.
    """
    parts = places.split(POINTS_AT_ONCE) if len(places) else ()
    dense = [part[~(density_fn(part.contiguous()) < threshold)] for part in parts]
    return torch.cat([places[:0], *dense])


def _in_parts(cells: Bool[Tensor, "width height depth"], parts: int) -> Bool[Tensor, "wide high deep"]:
    """The parts of cells, as many along each side of a cell."""
    for axis in range(3):
        cells = cells.repeat_interleave(parts, dim=axis)
    return cells


def reached(
    density_fn: DensityFn,
    lower: Float[Tensor, " 3"],
    sides: Float[Tensor, " 3"],
    cells: Bool[Tensor, "width height depth"],
    places: int,
    threshold: float,
    generator: torch.Generator,
) -> Bool[Tensor, "width height depth"]:
    """Whether the density reaches the threshold at random places of each of the cells that are asked for.

    Args:
        density_fn: The density; is asked for `POINTS_AT_ONCE` positions at most.
        lower: Lower corner of the cells.
        sides: Sides of a cell.
        cells: The cells that are asked for.
        places: Random places in each, in [1, `POINTS_AT_ONCE`].
        threshold: Density, > 0; one that is no number counts as reached.
        generator: Random numbers, of the CPU.
    """
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


def spread(
    density_fn: DensityFn,
    lower: Float[Tensor, " 3"],
    sides: Float[Tensor, " 3"],
    found: Bool[Tensor, "width height depth"],
    known: Bool[Tensor, "width height depth"],
    places: int,
    threshold: float,
    generator: torch.Generator,
) -> Bool[Tensor, "width height depth"]:
    """Looks into the neighbours of occupied cells, into the neighbours of what is found there, and so on.

    Args:
        density_fn: The density.
        lower: Lower corner of the cells.
        sides: Sides of a cell.
        found: Cells that are known to be occupied; those are not looked at.
        known: Others that are not to be looked at.
        places: Random places that are looked at in each neighbour, >= 1.
        threshold: Density, > 0.
        generator: Random numbers, of the CPU.

    Returns:
        All that is occupied.
    """
    looked_at = found | known
    while bool((shell := dilated(found) & ~looked_at).any()):
        more = reached(density_fn, lower, sides, shell, places, threshold, generator)
        found, looked_at = found | more, looked_at | shell
    return found


def cells_of(
    places: Float[Tensor, "places 3"],
    lower: Float[Tensor, " 3"],
    sides: Float[Tensor, " 3"],
    cells: Bool[Tensor, "width height depth"],
) -> Bool[Tensor, "width height depth"]:
    """The cells that places lie in, of as many as these; those outside lie in none.

    Args:
        places: The places.
        lower: Lower corner of the cells.
        sides: Sides of a cell.
        cells: Tells how many cells there are; its values are not looked at.
    """
    index = ((places - lower) / sides).floor().long()
    inside = ((index >= 0) & (index < torch.tensor(cells.shape, device=index.device))).all(dim=1)
    found = torch.zeros_like(cells)
    found[tuple(index[inside].T)] = True
    return found


def dilated(cells: Bool[Tensor, "width height depth"], radius: int = 1) -> Bool[Tensor, "width height depth"]:
    """Cells, and those that are at most so many cells away along each axis; with radius 1 their 26 neighbours.

    Args:
        cells: The cells.
        radius: How many cells, >= 0.
    """
    for axis in range(3):
        grown = cells.clone()
        count = cells.shape[axis]
        for shift in range(1, min(radius, count - 1) + 1):
            grown.narrow(axis, shift, count - shift).logical_or_(cells.narrow(axis, 0, count - shift))
            grown.narrow(axis, 0, count - shift).logical_or_(cells.narrow(axis, shift, count - shift))
        cells = grown
    return cells


def _cropped(
    cells: Bool[Tensor, "width height depth"],
) -> tuple[Int[Tensor, " 3"], Bool[Tensor, "wide high deep"]]:
    """Index of the first cell, and the cells, of the smallest box around the occupied ones; one cell where none is."""
    indices: Int[Tensor, "occupied 3"] = cells.nonzero()
    if not len(indices):
        return indices.new_zeros(3), cells[:1, :1, :1]
    first, last = indices.amin(dim=0), indices.amax(dim=0) + 1
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return first, cells[x, y, z]
