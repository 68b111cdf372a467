"""Cells and voxels: whose point is whose, against loops over single points."""

import math
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from support.tiny_cells import CELL_SIZE, LOWER, REFINE, SHAPE, points_in, tiny_cells, tiny_grid

from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.occupancy import MAX_CELLS


def test_the_shape_check_is_on() -> None:
    """The room's signatures are held against every call of these tests; the hook lists the packages one by one."""
    with pytest.raises(TypeCheckError):
        tiny_grid().voxels(torch.zeros(3))


def test_voxels_agree_with_a_loop_over_single_points() -> None:
    """Two axes in the wrong order, or an index that is off by one, would give a point another network's weights."""
    grid = tiny_grid()
    generator = torch.Generator().manual_seed(1)
    low, high = grid.aabb
    points = low + (high - low) * (1.4 * torch.rand(500, 3, generator=generator) - 0.2)
    found = grid.voxels(points)
    side, counts, inside = CELL_SIZE / REFINE, [n * REFINE for n in SHAPE], 0
    for point, voxel in zip(points.double().tolist(), found.tolist(), strict=True):
        x, y, z = (math.floor((p - a) / side) for p, a in zip(point, LOWER, strict=True))
        within = all(0 <= i < n for i, n in zip((x, y, z), counts, strict=True))
        inside += within
        assert voxel == ((x * counts[1] + y) * counts[2] + z if within else -1)
    assert 100 < inside < 400


def test_what_lies_outside_or_is_no_number_has_no_voxel() -> None:
    """A number made of them would read another voxel, or outside of the tensor. The upper faces belong to the outside,
    where nothing is evaluated."""
    grid = tiny_grid()
    low, high = grid.aabb
    nan, inf = math.nan, math.inf
    points = torch.stack([low, high, low - 1e-3, torch.tensor([nan, 1.0, 3.0]), torch.tensor([-inf, inf, 1e30])])
    assert grid.voxels(points).tolist() == [0, -1, -1, -1, -1]
    assert grid.cells(torch.tensor([0, -1], dtype=torch.int32)).tolist() == [0, -1]


def test_coordinates_of_voxels_are_those_that_number_them() -> None:
    """Numbers and places along the axes are used side by side, in marching and in drawing points."""
    grid = tiny_grid()
    voxels = torch.arange(math.prod(grid.voxel_shape), dtype=torch.int32)
    places = grid.voxel_coordinates(voxels)
    assert places.tolist() == [list(index) for index in torch.ones(grid.voxel_shape).nonzero().tolist()]
    centres = grid.lower + (places + 0.5) * grid.voxel_size
    assert torch.equal(grid.voxels(centres), voxels)


def test_cells_follow_from_voxels_by_integer_division() -> None:
    """On the border of two cells a point has one network, the same in training and in pictures: its cell is never
    computed from coordinates a second time. Each cell has as many voxels as it should."""
    grid = tiny_grid()
    voxels = torch.arange(math.prod(grid.voxel_shape), dtype=torch.int32)
    x, y, z = (grid.voxel_coordinates(voxels) // REFINE).unbind(dim=1)
    cells = grid.cells(voxels)
    assert cells.tolist() == ((x * SHAPE[1] + y) * SHAPE[2] + z).tolist()
    assert cells.bincount().tolist() == [REFINE**3] * math.prod(SHAPE)


def test_live_cells_are_those_with_an_occupied_voxel() -> None:
    """A cell without one would have a network that nothing ever asks; one that is missed would have none."""
    live = tiny_cells(share=0.02)
    expected = sorted(set(live.grid.cells(live.occupied.flatten().nonzero()[:, 0].int()).tolist()))
    assert live.cells.tolist() == expected and live.count == len(expected) < 21
    assert live.ids[live.cells.long()].tolist() == list(range(live.count))
    assert int((live.ids < 0).sum()) == math.prod(SHAPE) - live.count
    assert live.share == pytest.approx(float(live.occupied.float().mean()))


def test_every_point_in_an_occupied_voxel_has_the_network_of_its_cell() -> None:
    """This is what training and rendering stand on. A voxel that is none has no network either."""
    live = tiny_cells()
    points, voxels = points_in(live, 300)
    networks = live.networks(voxels)
    corners = live.corners[networks.long()]
    assert bool(((points >= corners) & (points < corners + CELL_SIZE)).all())
    assert set(networks.tolist()) == set(range(live.count))
    assert live.networks(torch.tensor([-1], dtype=torch.int32)).tolist() == [-1]


def test_local_coordinates_reach_from_face_to_face() -> None:
    """Each network sees its own cell as the cube from -1 to 1; rounding must not put a point beyond, where no training
    point ever was."""
    live = tiny_cells()
    corner = live.corners[5]
    points = corner + CELL_SIZE * torch.tensor([[0.0, 0.5, 1.0], [0.25, 0.75, 0.5], [-1e-6, 1 + 1e-6, 0.0]])
    found = live.local(points, torch.full((3,), 5, dtype=torch.int32))
    expected = torch.tensor([[-1, 0, 1], [-0.5, 0.5, 0], [-1, 1, -1]], dtype=torch.float32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert float(found.abs().max()) <= 1


def test_other_cells_over_the_same_voxels_keep_every_voxel_in_place() -> None:
    """A budget chooses among sizes of cells; what is occupied must not move with the choice, and a side that is no
    multiple needs one cell more."""
    grid = tiny_grid()  # 12 x 8 x 16 voxels
    other = grid.with_refine(5)
    assert other.shape == (3, 2, 4) and other.voxel_shape == (15, 10, 20)
    assert other.voxel_size == pytest.approx(grid.voxel_size)
    points, _ = points_in(tiny_cells(), 50)
    places = grid.voxel_coordinates(grid.voxels(points))
    assert torch.equal(other.voxel_coordinates(other.voxels(points)), places)


def test_networks_that_stay_are_told_by_their_former_numbers() -> None:
    """Parameters and moments are sliced by these; one that is off gives every later cell its neighbour's network."""
    live = tiny_cells()
    mask = torch.ones_like(live.occupied)
    mask[:4] = False
    fewer = live.restricted(mask)
    kept = fewer.kept_of(live)
    assert live.cells[kept].tolist() == fewer.cells.tolist() and 0 < fewer.count < live.count
    with pytest.raises(ValueError, match="cells had no network before"):
        live.kept_of(fewer)
    lower, shape = torch.tensor(LOWER), SHAPE
    for grid in (
        CellGrid(lower, CELL_SIZE, (SHAPE[0], SHAPE[2], SHAPE[1]), REFINE),
        CellGrid(lower, CELL_SIZE, shape, 2),
        CellGrid(lower, CELL_SIZE * 1.01, shape, REFINE),
        CellGrid(lower + torch.tensor([0.0, 0.5, 0.0]), CELL_SIZE, shape, REFINE),
    ):
        with pytest.raises(ValueError, match="grid must stay"):
            LiveCells(grid, torch.ones(grid.voxel_shape, dtype=torch.bool)).kept_of(live)
    everything = LiveCells(CellGrid(lower, CELL_SIZE, shape, REFINE), torch.ones_like(live.occupied))
    assert fewer.kept_of(everything).tolist() == fewer.cells.tolist()


def test_cells_survive_their_own_description() -> None:
    """They stand in checkpoints, the voxels as bits; a mask that comes back shifted would hide parts of the scene."""
    live = tiny_cells()
    state = live.to_dict()
    again = LiveCells.from_dict(state)
    assert torch.equal(again.occupied, live.occupied) and torch.equal(again.cells, live.cells)
    assert torch.equal(again.grid.lower, live.grid.lower) and again.grid.cell_size == live.grid.cell_size
    assert state["voxels"].numel() == math.prod(live.grid.voxel_shape) // 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"lower": None},
        {"lower": torch.tensor([math.nan, 0, 0])},
        {"cell_size": -1.0},
        {"cell_size": math.inf},
        {"shape": [3, 2]},
        {"shape": [3, 2, True]},
        {"shape": [10**9] * 3},
        {"refine": 0},
        {"voxels": torch.zeros(3, dtype=torch.uint8)},
    ],
)
def test_a_broken_description_is_refused(wrong: dict[str, Any]) -> None:
    """Checkpoints come from disks and strangers; nothing large is made of what they claim."""
    with pytest.raises(ValueError, match=r"cell|voxels|shape"):
        LiveCells.from_dict({**tiny_cells().to_dict(), **wrong})


def test_sizes_out_of_range_are_refused_by_name() -> None:
    """A grid of 4,096 voxels a side would take 64 GB before anybody is told."""
    with pytest.raises(ValueError, match=f"{MAX_CELLS:,} voxels.*lower grid.resolution or occupancy.refine"):
        CellGrid(torch.zeros(3), 1.0, (256, 256, 256), 16)
    with pytest.raises(ValueError, match="cell_size must be a positive number"):
        CellGrid(torch.zeros(3), 0.0, (1, 1, 1), 1)
    with pytest.raises(ValueError, match="shape and refine must be at least 1"):
        CellGrid(torch.zeros(3), 1.0, (1, 0, 1), 1)
    with pytest.raises(ValueError, match="shape of the grid's voxels"):
        LiveCells(tiny_grid(), torch.ones(1, 2, 3, dtype=torch.bool))
