"""Which part of space belongs to which tiny network.

Space is cut twice: into cubic cells, each of which has one network if there is anything in it, and each cell into
voxels, which say where there is something. KiloNeRF (Reiser et al. 2021, arXiv 2103.13744, sections 3.1 and 3.3).

A point's voxel is found once; its cell follows from the voxel by integer division. Derived from the coordinates a
second time it would be another one about once in a million points, by rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.occupancy import MAX_CELLS, OccupancyGrid


@dataclass(frozen=True, eq=False)
class CellGrid:
    """Cubic cells of a box, and cubic voxels within them. Both are numbered with z running fastest.

    Raises:
        ValueError: If a size is out of range, or there are more than `MAX_CELLS` voxels.
    """

    lower: Float[Tensor, " 3"]
    """Lower corner of the box, in units of the scene."""
    cell_size: float
    """Side of a cell, > 0, in units of the scene."""
    shape: tuple[int, int, int]
    """Cells along x, y and z, >= 1."""
    refine: int
    """Voxels along the side of a cell, >= 1."""

    def __post_init__(self) -> None:
        if not (isfinite(self.cell_size) and self.cell_size > 0):
            raise ValueError(f"cell_size must be a positive number, got {self.cell_size}")
        if min(self.shape) < 1 or self.refine < 1:
            raise ValueError(f"shape and refine must be at least 1, got {self.shape} and {self.refine}")
        if prod(self.voxel_shape) > MAX_CELLS:
            raise ValueError(
                f"a grid has at most {MAX_CELLS:,} voxels, got {' x '.join(map(str, self.voxel_shape))} = "
                f"{prod(self.voxel_shape):,}; lower grid.resolution or occupancy.refine"
            )

    @property
    def voxel_size(self) -> float:
        """Side of a voxel, in units of the scene."""
        return self.cell_size / self.refine

    @property
    def voxel_shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.shape
        return x * self.refine, y * self.refine, z * self.refine

    @property
    def aabb(self) -> Float[Tensor, "2 3"]:
        """Lower and upper corner of the box."""
        extent = torch.tensor(self.shape, device=self.lower.device, dtype=self.lower.dtype) * self.cell_size
        return torch.stack([self.lower, self.lower + extent])

    def voxels(self, points: Float[Tensor, "points 3"]) -> Int32[Tensor, " points"]:
        """Number of the voxel that each point lies in; -1 outside of the box and for what is no number.

        Args:
            points: Points, in units of the scene. The upper faces of the box lie outside.
        """
        index = ((points - self.lower) / self.voxel_size).floor()
        shape = torch.tensor(self.voxel_shape, device=points.device)
        inside = ((index >= 0) & (index < shape)).all(dim=1)
        x, y, z = index.nan_to_num_(0.0).clamp_(-1, MAX_CELLS).int().unbind(dim=1)
        _, height, depth = self.voxel_shape
        return torch.where(inside, (x * height + y) * depth + z, -1).int()

    def voxel_coordinates(self, voxels: Int32[Tensor, " points"]) -> Int32[Tensor, "points 3"]:
        """Place of voxels along x, y and z.

        Args:
            voxels: Numbers of voxels, >= 0.
        """
        _, height, depth = self.voxel_shape
        z, rest = voxels % depth, voxels // depth
        return torch.stack([rest // height, rest % height, z], dim=1)

    def cells(self, voxels: Int32[Tensor, " points"]) -> Int32[Tensor, " points"]:
        """Number of the cell that each voxel lies in, by integer division; -1 stays -1.

        Args:
            voxels: Numbers of voxels, or -1.
        """
        x, y, z = (self.voxel_coordinates(voxels) // self.refine).unbind(dim=1)
        _, height, depth = self.shape
        return torch.where(voxels >= 0, (x * height + y) * depth + z, -1).int()

    def corners(self, cells: Int32[Tensor, " points"]) -> Float[Tensor, "points 3"]:
        """Lower corners of cells, in units of the scene.

        Args:
            cells: Numbers of cells, >= 0.
        """
        _, height, depth = self.shape
        z, rest = cells % depth, cells // depth
        place = torch.stack([rest // height, rest % height, z], dim=1)
        return self.lower + place.to(self.lower) * self.cell_size

    def with_refine(self, refine: int) -> "CellGrid":
        """Other cells over the same voxels; the box grows at its upper end to whole cells.

        Args:
            refine: Voxels along the side of the new cells, >= 1.
        """
        x, y, z = (-(-count // refine) for count in self.voxel_shape)
        return CellGrid(self.lower, self.voxel_size * refine, (x, y, z), refine)


@dataclass(frozen=True, eq=False)
class LiveCells:
    """Cells in which there is something: each has a network. Networks are numbered as their cells are.

    Raises:
        ValueError: If the mask has another shape than the grid's voxels.
    """

    grid: CellGrid
    """The cells."""
    occupied: Bool[Tensor, "width height depth"]
    """Whether there is something in a voxel, along x, y and z."""

    def __post_init__(self) -> None:
        if tuple(self.occupied.shape) != self.grid.voxel_shape:
            raise ValueError(
                f"occupied must have the shape of the grid's voxels {self.grid.voxel_shape}, got "
                f"{tuple(self.occupied.shape)}"
            )

    @cached_property
    def cells(self) -> Int32[Tensor, " networks"]:
        """Number of each network's cell, ascending."""
        (x, y, z), r = self.grid.shape, self.grid.refine
        live = self.occupied.view(x, r, y, r, z, r).any(dim=5).any(dim=3).any(dim=1)
        return live.flatten().nonzero()[:, 0].int()

    @cached_property
    def ids(self) -> Int32[Tensor, " cells"]:
        """Network of each cell; -1 for a cell without one."""
        ids = torch.full((prod(self.grid.shape),), -1, dtype=torch.int32, device=self.occupied.device)
        ids[self.cells.long()] = torch.arange(self.count, dtype=torch.int32, device=ids.device)
        return ids

    @cached_property
    def corners(self) -> Float[Tensor, "networks 3"]:
        """Lower corner of each network's cell."""
        return self.grid.corners(self.cells)

    @property
    def count(self) -> int:
        """Number of networks."""
        return len(self.cells)

    @property
    def share(self) -> float:
        """Share of the box's voxels that is occupied, in [0, 1]."""
        return int(self.occupied.sum()) / self.occupied.numel()

    def networks(self, voxels: Int32[Tensor, " points"]) -> Int32[Tensor, " points"]:
        """Network of each voxel; -1 where there is none.

        Args:
            voxels: Numbers of voxels, or -1.
        """
        cells = self.grid.cells(voxels)
        return torch.where(cells >= 0, self.ids[cells.clamp(min=0).long()], -1).int()

    def local(self, points: Float[Tensor, "points 3"], networks: Int32[Tensor, " points"]) -> Float[Tensor, "points 3"]:
        """Coordinates in the cells of given networks: -1 and 1 at their faces.

        Points that rounding puts beyond a face are put onto it.

        Args:
            points: Points, in units of the scene.
            networks: Network of each, >= 0.
        """
        inside = (points - self.corners.index_select(0, networks)) * (2 / self.grid.cell_size)
        return inside.sub_(1).clamp_(-1, 1)

    def restricted(self, to: Bool[Tensor, "width height depth"]) -> "LiveCells":
        """Fewer occupied voxels, and perhaps fewer networks.

        Args:
            to: Voxels that may stay occupied.
        """
        return LiveCells(self.grid, self.occupied & to)

    def kept_of(self, former: "LiveCells") -> Int64[Tensor, " kept"]:
        """Former numbers of these networks, sorted: what stays when the former cells become these.

        Args:
            former: Cells of the same grid, all of these among them.

        Raises:
            ValueError: If the grids differ, or a cell had no network before.
        """
        was, now = ((grid.shape, grid.refine, grid.cell_size, grid.lower.tolist()) for grid in (former.grid, self.grid))
        if was != now:
            raise ValueError(f"the grid must stay as it is, (shape, refine, cell_size, lower) = {was}, got {now}")
        kept = former.ids[self.cells.long()].long()
        if bool((kept < 0).any()):
            raise ValueError(f"{int((kept < 0).sum())} cells had no network before; networks are only ever removed")
        return kept

    def to(self, device: torch.device | str) -> "LiveCells":
        """The same cells on another device.

        Args:
            device: The device.
        """
        grid = CellGrid(self.grid.lower.to(device), self.grid.cell_size, self.grid.shape, self.grid.refine)
        return LiveCells(grid, self.occupied.to(device))

    def to_dict(self) -> dict[str, Any]:
        """Corner, sizes and voxels as plain values and tensors, the voxels as bits."""
        return {
            "lower": self.grid.lower.cpu(),
            "cell_size": self.grid.cell_size,
            "shape": list(self.grid.shape),
            "refine": self.grid.refine,
            "voxels": OccupancyGrid(self.grid.aabb, self.occupied).to_dict()["cells"],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], device: torch.device | str = "cpu") -> "LiveCells":
        """The cells that `to_dict` described.

        Args:
            state: What it gave.
            device: Where they are to live.

        Raises:
            ValueError: If it describes no cells.
        """
        found: Any = [state.get(name) for name in ("lower", "cell_size", "shape", "refine", "voxels")]
        lower, cell_size, shape, refine, voxels = found
        fits = (
            isinstance(lower, Tensor)
            and lower.shape == (3,)
            and lower.is_floating_point()
            and bool(lower.isfinite().all())
            and isinstance(cell_size, float)
            and isinstance(shape, list)
            and len(shape) == 3
            and all(type(side) is int and 0 < side <= MAX_CELLS for side in (*shape, refine))
        )
        if not fits:
            raise ValueError(f"cells must have a corner, a size, a shape and voxels, got {shown(dict(state))}")
        x, y, z = shape
        grid = CellGrid(lower.to(device), cell_size, (x, y, z), refine)
        # The class of the shared grid knows how voxels become bits, and what to refuse.
        occupancy = {"aabb": grid.aabb, "shape": list(grid.voxel_shape), "cells": voxels}
        return cls(grid, OccupancyGrid.from_dict(occupancy, device).cells)
