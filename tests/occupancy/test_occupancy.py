"""The grid of empty space: what it calls occupied, against plain loops and solids whose extent is known."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_prune.occupancy import (
    MAX_CELLS,
    REFRESH,
    OccupancyGrid,
    build_grid,
    density_threshold,
    refresh_grid,
)

BOX = torch.tensor([[-4.0, -3.0, -2.0], [4.0, 3.0, 2.0]])
POSITIONS = BOX[0] + torch.rand(200_000, 3, generator=torch.Generator().manual_seed(3)) * (BOX[1] - BOX[0])
"""Places all over the box."""


def some_grid(seed: int = 0) -> OccupancyGrid:
    generator = torch.Generator().manual_seed(seed)
    aabb = torch.tensor([[-1.0, -0.5, 0.25], [1.0, 1.0, 2.0]])
    return OccupancyGrid(aabb, torch.rand(5, 3, 7, generator=generator) < 0.5)


def ball(positions: Tensor, radius: float = 0.5) -> Tensor:
    """A solid ball around (1, -0.5, 0.25): dense inside, nothing outside."""
    return 100.0 * ((positions - torch.tensor([1.0, -0.5, 0.25])).norm(dim=-1) < radius)


def built(density_fn: Any, resolution: int = 128, seed: int = 0) -> OccupancyGrid:
    return build_grid(density_fn, BOX, 1.0, resolution, torch.Generator().manual_seed(seed), torch.zeros(0, 3))


def test_looks_agree_with_a_loop_over_single_places() -> None:
    """An index that is off by one, or two axes in the wrong order, would carve holes into scenes. Places lie inside,
    outside and far outside of the box, in front of the ray's origin and behind it."""
    grid = some_grid()
    generator = torch.Generator().manual_seed(1)
    origins, directions = (2 * torch.rand(40, 3, generator=generator) - 1 for _ in range(2))
    distances = 4 * torch.rand(40, 30, generator=generator) - 2
    distances[0, :3] = torch.tensor([1e9, -1e9, 1e30])
    found = grid.occupied(origins, directions, distances)
    low, high = grid.aabb.tolist()
    sides = [(b - a) / k for a, b, k in zip(low, high, grid.cells.shape, strict=True)]
    inside = 0
    for r in range(40):
        for n in range(30):
            place = (origins[r].double() + directions[r].double() * distances[r, n].double()).tolist()
            index = [math.floor((x - a) / side) for x, a, side in zip(place, low, sides, strict=True)]
            within = all(0 <= i < k for i, k in zip(index, grid.cells.shape, strict=True))
            inside += within
            assert bool(found[r, n]) == (within and bool(grid.cells[tuple(index)]))
    assert inside > 50


def test_places_that_are_no_numbers_are_empty() -> None:
    """An index made of them would read outside of the tensor."""
    grid = OccupancyGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), torch.ones(2, 2, 2, dtype=torch.bool))
    distances = torch.tensor([[math.nan, math.inf, -math.inf, 0.0]])
    assert grid.occupied(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 1.0]]), distances).tolist() == [
        [False] * 3 + [True]
    ]


def test_positions_are_looked_up_like_places_on_rays() -> None:
    """Contracted space has no straight rays, and is looked up by position."""
    grid = some_grid()
    positions = 3 * torch.rand(500, 3, generator=torch.Generator().manual_seed(2)) - 1.5
    apart = grid.occupied(torch.zeros(500, 3), positions, torch.ones(500, 1))[:, 0]
    assert torch.equal(grid.contains(positions), apart) and 20 < int(apart.sum()) < 480


def test_what_is_dense_is_occupied_and_what_is_far_from_it_is_empty() -> None:
    """The first is what pictures rest on: not one of the places in the ball may be skipped. The second is the gain: the
    box around the ball is tight, and cells further from it than two diagonals are empty."""
    grid = built(ball)
    inside, occupied = ball(POSITIONS) > 1, grid.contains(POSITIONS)
    assert int(inside.sum()) > 200 and bool(occupied[inside].all())
    sides = (grid.aabb[1] - grid.aabb[0]) / torch.tensor(grid.cells.shape)
    near = ball(POSITIONS, 0.5 + 2 * float(sides.norm())) > 1
    assert not bool(occupied[~near].any())
    assert float((grid.aabb[1] - grid.aabb[0]).max()) < 1.2
    assert abs(max(grid.cells.shape) - 128) < 32


def test_a_thin_rod_is_found_as_a_whole() -> None:
    """Ropes and rods are much thinner than the cells of the first round: only neighbours, and places drawn in each of
    them, make sure that none of it is lost."""

    def rod(positions: Tensor) -> Tensor:
        return 100.0 * ((positions[:, :2].norm(dim=1) < 0.04) & (positions[:, 2].abs() < 1.5))

    along = torch.linspace(-1.4, 1.4, 1000)
    places = torch.stack([torch.zeros(1000), torch.zeros(1000), along], dim=1)
    shares = [float(built(rod, seed=seed).contains(places).float().mean()) for seed in range(5)]
    assert min(shares) > 0.97


def test_a_speck_on_a_ray_is_found_beside_a_scene_that_fills_the_box() -> None:
    """What is small and stands alone is missed by places at random in large cells, and would be missing in pictures.
    One place on a ray that meets it is enough, whatever else there is. Places outside of the box do no harm."""
    box = 100 * BOX
    speck = torch.tensor([[30.0, 20.0, 10.0]])

    def scene(positions: Tensor) -> Tensor:
        wall = positions[:, 0] > 390
        return 100.0 * (wall | ((positions - speck).norm(dim=1) < 0.3))

    places = torch.cat([speck, torch.rand(100, 3), 1000 * torch.ones(1, 3)])
    for seed in range(3):
        grid = build_grid(scene, box, 1.0, 128, torch.Generator().manual_seed(seed), places)
        assert bool(grid.contains(speck).all()) and grid.occupancy < 0.5


def test_the_same_seed_gives_the_same_grid() -> None:
    """A resumed run looks where the uninterrupted one would have, and an evaluation gives one number; the random state
    that batches are drawn from stays."""
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second, other = built(ball, seed=1), built(ball, seed=1), built(ball, seed=2)
    assert torch.equal(first.aabb, second.aabb) and torch.equal(first.cells, second.cells)
    assert first.cells.shape != other.cells.shape or not torch.equal(first.cells, other.cells)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_density_that_is_no_number_counts_as_occupied() -> None:
    """A broken network must show as broken, not as an empty scene."""
    assert built(lambda positions: torch.full((len(positions),), math.nan)).occupancy == 1.0


def test_nothing_anywhere_gives_an_empty_grid() -> None:
    """It is a grid like any other, and holds nothing."""
    grid = built(lambda positions: torch.zeros(len(positions)))
    assert not bool(grid.cells.any()) and not bool(grid.contains(torch.zeros(1, 3)).any())


def test_the_number_of_cells_is_bounded() -> None:
    """A resolution of 4,096 would take 64 GB."""
    asked: list[int] = []

    def fog(positions: Tensor) -> Tensor:
        asked.append(len(positions))
        return torch.zeros(len(positions))

    assert built(fog, resolution=4096).cells.numel() == 1
    cells = torch.zeros(64, 64, 64, dtype=torch.bool)
    corners = cells.clone()
    corners[0, 0, 0] = corners[-1, -1, -1] = True

    def far_apart(positions: Tensor) -> Tensor:
        return 100.0 * ((positions.abs() - BOX[1]).abs() < 0.1).all(dim=1)

    grid = built(far_apart, resolution=4096)
    assert 64**3 < grid.cells.numel() <= MAX_CELLS
    assert max(asked) <= 2**13


def test_the_number_of_looks_is_bounded_where_everything_is_fog() -> None:
    """A young field is fog all over: there is nothing to be skipped, and to look at each of two million cells takes as
    long as a hundred training steps. Where the fog clears, cells become small."""
    asked: list[int] = []
    fog = built(counted(lambda positions: torch.ones(len(positions)), asked))
    assert fog.occupancy == 1.0 and sum(asked) <= 3 * 64 * 48 * 32
    half = refreshed(fog, lambda positions: 100.0 * (positions[:, 0] < 0))
    assert bool(half.contains(POSITIONS[POSITIONS[:, 0] < 0]).all()) and half.aabb[1, 0] < 0.3
    clear = refreshed(fog, ball)
    for seed in range(3):
        clear = refreshed(clear, ball, seed=seed)
    assert max(clear.cells.shape) > 1.5 * max(fog.cells.shape)
    assert float((clear.aabb[1] - clear.aabb[0]).max()) < 1.2


def refreshed(known: OccupancyGrid, density_fn: Any, resolution: int = 128, seed: int = 0) -> OccupancyGrid:
    generator = torch.Generator().manual_seed(seed)
    return refresh_grid(known, density_fn, BOX, 1.0, resolution, generator, torch.zeros(0, 3))


def counted(density_fn: Any, asked: list[int]) -> Any:
    """The density, and how many places it is asked for."""

    def density(positions: Tensor) -> Tensor:
        asked.append(len(positions))
        return density_fn(positions)

    return density


def moved(to: tuple[float, float, float], radius: float = 0.5) -> Any:
    """A solid ball elsewhere."""
    return lambda positions: ball(positions - torch.tensor(to) + torch.tensor([1.0, -0.5, 0.25]), radius)


def test_a_look_at_what_is_known_costs_a_fraction_and_finds_as_much() -> None:
    """Looks were a quarter of a training's time: of all the space, what was empty 500 steps ago mostly still is."""

    def shell(positions: Tensor) -> Tensor:
        return ball(positions) - ball(positions, 0.4)

    whole: list[int] = []
    again: list[int] = []
    known = built(counted(shell, whole), 64)
    grid = refreshed(known, counted(shell, again), 64)
    assert sum(again) < sum(whole) / 4
    for seed in range(5):
        grid = refreshed(grid, shell, 64, seed)
    inside = POSITIONS[shell(POSITIONS) > 1]
    assert len(inside) > 100 and bool(grid.contains(inside).all())
    # Looked at again and again, it neither grows nor moves.
    sides = (known.aabb[1] - known.aabb[0]) / torch.tensor(known.cells.shape)
    assert bool(((grid.aabb - known.aabb).abs() < 2 * sides).all())
    assert grid.occupancy == pytest.approx(known.occupancy, rel=0.1)


def test_a_surface_that_moves_is_followed() -> None:
    """Training moves surfaces by less than a cell between two looks; what it leaves is given up, and where it goes it
    must not be cut off, or the network could not move it there."""
    grid = built(ball, 32)
    side = float((grid.aabb[1, 0] - grid.aabb[0, 0]) / grid.cells.shape[0])
    to = (1.0, -0.5, 0.25)
    for step in range(1, 31):
        to = (1.0 + 0.8 * step * side, -0.5, 0.25)
        grid = refreshed(grid, moved(to), 32, seed=step)
    inside = POSITIONS[moved(to)(POSITIONS) > 1]
    assert len(inside) > 100 and bool(grid.contains(inside).all())
    assert float((grid.aabb[1] - grid.aabb[0]).max()) < 1.3


def test_what_appears_in_empty_space_is_found_in_some_looks_and_what_vanishes_is_dropped() -> None:
    """Only a part of the empty space is looked at each time, another one every time."""

    def other(positions: Tensor) -> Tensor:
        return torch.maximum(ball(positions), moved((-2.5, 1.5, -1.0), 0.3)(positions))

    centre = torch.tensor([[-2.5, 1.5, -1.0]])
    looks = []
    for seed in range(10):
        grid, count = built(ball, 32, seed), 0
        while not bool(grid.contains(centre).all()):
            grid, count = refreshed(grid, other, 32, 100 * seed + count), count + 1
            assert count <= 3 * REFRESH
        looks.append(count)
        assert bool(grid.contains(torch.tensor([[1.0, -0.5, 0.25]])).all())
    # A ball of several coarse cells is met sooner than a single one.
    assert sum(looks) / len(looks) < REFRESH / 2
    gone = refreshed(grid, ball, 32)
    assert not bool(gone.contains(centre).any())


def test_what_appears_beside_something_known_is_found_too() -> None:
    """In the coarse cell of a surface, but further from it than a cell: empty space there is looked at like any."""

    def plate(positions: Tensor, x: float) -> Tensor:
        inside = ((positions - torch.tensor([x, 0.0, 0.0])).abs() < torch.tensor([0.01, 0.5, 0.5])).all(dim=1)
        return 100.0 * inside

    grid = built(lambda positions: plate(positions, 1.02))
    places = torch.cat([torch.full((5000, 1), 1.1), POSITIONS[:5000, 1:] / 8], dim=1)
    assert not bool(grid.contains(places).any())
    for seed in range(3 * REFRESH):
        grid = refreshed(grid, lambda positions: plate(positions, 1.02) + plate(positions, 1.1), seed=seed)
    assert float(grid.contains(places).float().mean()) > 0.99


def test_a_place_that_is_given_is_occupied_after_some_looks() -> None:
    """A speck in the empty space that views see: no place at random meets it."""
    speck = torch.tensor([[-2.5, 1.5, -1.0]])

    def scene(positions: Tensor) -> Tensor:
        return torch.maximum(ball(positions), 100.0 * ((positions - speck).norm(dim=1) < 0.01))

    grid, places = built(ball, 32), speck.repeat(REFRESH, 1)
    grid = refresh_grid(grid, scene, BOX, 1.0, 32, torch.Generator().manual_seed(0), places)
    assert bool(grid.contains(speck).all())


@pytest.mark.parametrize("change", ["finer", "coarser", "other box", "smaller scene", "larger scene"])
def test_a_grid_of_another_size_is_made_anew(change: str) -> None:
    """Cells that suited the fog of a young field are too coarse for the scene that comes out of it; and a grid of
    another box has cells that lie across those of this one."""
    scenes = {"smaller scene": moved((1.0, -0.5, 0.25), 0.2), "larger scene": moved((0.0, 0.0, 0.0), 1.9)}
    scene, resolution = scenes.get(change, ball), {"finer": 64, "coarser": 8}.get(change, 32)
    known = built(ball, 32)
    if change == "other box":
        known = OccupancyGrid(known.aabb + 0.3 * (known.aabb[1] - known.aabb[0]) / 36, known.cells)
    grid = refreshed(known, scene, resolution)
    for seed in range(REFRESH):
        grid = refreshed(grid, scene, resolution, seed)
    found, expected = ((g.aabb[1] - g.aabb[0]) / torch.tensor(g.cells.shape) for g in (grid, built(scene, resolution)))
    assert torch.allclose(found, expected, rtol=1e-3)
    inside = POSITIONS[scene(POSITIONS) > 1]
    assert len(inside) and bool(grid.contains(inside).all())


def test_a_grid_that_fills_the_box_is_gone_on_with() -> None:
    """Fog reaches to every side of the box; its cells end there."""
    known = built(lambda positions: torch.ones(len(positions)), 32)
    grid = refreshed(known, lambda positions: torch.ones(len(positions)), 32)
    assert known.occupancy == grid.occupancy == 1.0 and torch.equal(known.aabb, grid.aabb)
    empty = refreshed(known, lambda positions: torch.zeros(len(positions)), 32)
    assert not bool(empty.cells.any())


@pytest.mark.parametrize("step", [0.01, 0.0625, 3.0])
def test_the_threshold_is_on_the_opacity_of_a_step(step: float) -> None:
    """Scenes of other units have other densities; a step of the threshold is opaque to the given degree in all."""
    assert 1 - math.exp(-density_threshold(0.01, step) * step) == pytest.approx(0.01)


def test_a_grid_survives_its_own_description() -> None:
    """It stands in checkpoints as bits; a mask that comes back turned or shifted would hide parts of the scene."""
    grid = some_grid()
    state = grid.to_dict()
    again = OccupancyGrid.from_dict(state)
    assert torch.equal(again.aabb, grid.aabb) and torch.equal(again.cells, grid.cells)
    assert state["cells"].dtype == torch.uint8 and len(state["cells"]) == math.ceil(5 * 3 * 7 / 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"aabb": None},
        {"aabb": torch.zeros(2, 3)},
        {"aabb": torch.tensor([[-torch.inf] * 3, [torch.inf] * 3])},
        {"aabb": torch.tensor([[0] * 3, [1] * 3])},
        {"shape": [5, 3]},
        {"shape": [5, 3, -7]},
        {"shape": [10**9, 10**9, 10**9]},
        {"cells": torch.zeros(3, dtype=torch.uint8)},
        {"cells": torch.zeros(14)},
    ],
)
def test_a_broken_description_is_refused(wrong: Mapping[str, Any]) -> None:
    """Checkpoints come from disks and strangers; the error names what is wrong, and nothing large is made."""
    with pytest.raises(ValueError, match="occupancy must have corners, a shape and its cells"):
        OccupancyGrid.from_dict({**some_grid().to_dict(), **wrong})
