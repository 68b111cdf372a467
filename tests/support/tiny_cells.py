"""Small grids of cells, and rays through them."""

import torch
from torch import Tensor

from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells

LOWER, CELL_SIZE, SHAPE, REFINE = (-1.0, 0.5, 2.0), 0.5, (3, 2, 4), 4


def tiny_grid() -> CellGrid:
    """Unequal sides, so that axes in the wrong order show."""
    return CellGrid(torch.tensor(LOWER), CELL_SIZE, SHAPE, REFINE)


def tiny_cells(share: float = 0.1, seed: int = 0, dead: tuple[int, ...] = (0, 7, 23)) -> LiveCells:
    """Voxels occupied at random; some cells are dead.

    Args:
        share: Share of occupied voxels.
        seed: Of the draw.
        dead: Numbers of cells without an occupied voxel.
    """
    grid = tiny_grid()
    occupied = torch.rand(grid.voxel_shape, generator=torch.Generator().manual_seed(seed)) < share
    for number in dead:
        x, y, z = number // 8, number // 4 % 2, number % 4
        occupied[4 * x : 4 * x + 4, 4 * y : 4 * y + 4, 4 * z : 4 * z + 4] = False
    return LiveCells(grid, occupied)


def points_in(live: LiveCells, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points in occupied voxels, and their voxels.

    Args:
        live: The cells.
        count: Number of points.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    voxels = live.occupied.flatten().nonzero()[:, 0].int()
    voxels = voxels[torch.randint(len(voxels), (count,), generator=generator)]
    inside = 0.01 + 0.98 * torch.rand(count, 3, generator=generator)
    points = live.grid.lower + (live.grid.voxel_coordinates(voxels) + inside) * live.grid.voxel_size
    return points, voxels


def rays_through(live: LiveCells, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays from around a grid, and from within it, towards places in and beside it; some along an axis.

    Args:
        live: The cells.
        count: Number of rays.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = live.grid.aabb
    middle, half = (low + high) / 2, (high - low) / 2
    origins = middle + half * (6 * torch.rand(count, 3, generator=generator) - 3)
    towards = middle + half * (2.4 * torch.rand(count, 3, generator=generator) - 1.2)
    directions = torch.nn.functional.normalize(towards - origins, dim=1)
    axes = torch.eye(3).repeat(count // 12 + 1, 1)[: count // 4]
    directions[: len(axes)] = axes * (1 - 2 * (torch.arange(len(axes)) % 2))[:, None]
    return origins, directions
