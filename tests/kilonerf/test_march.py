"""Marching: which samples lie where there is something, against a look at every step of every ray."""

import math

import pytest
import torch
from support.tiny_cells import rays_through, tiny_cells
from torch import Tensor

from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.march import Lattice, Marcher, Samples


def brute_force(
    live: LiveCells, lattice: Lattice, origins: Tensor, directions: Tensor, shift: Tensor
) -> tuple[list[int], list[int], list[int]]:
    """Ray, step and voxel of every occupied place, by one look at each."""
    grid = live.grid
    steps = torch.arange(lattice.steps)
    distances = lattice.near + (steps + shift[:, None]) * lattice.step_size
    starts, strides = (origins - grid.lower) / grid.voxel_size, directions / grid.voxel_size
    index = (starts[:, None] + strides[:, None] * distances[..., None]).floor()
    inside = ((index >= 0) & (index < torch.tensor(grid.voxel_shape))).all(dim=-1)
    x, y, z = index.nan_to_num(0.0).clamp(-1, 10_000).long().unbind(dim=-1)
    voxel = torch.where(inside, (x * grid.voxel_shape[1] + y) * grid.voxel_shape[2] + z, 0)
    ray, step = (inside & live.occupied.flatten()[voxel]).nonzero().unbind(dim=1)
    return ray.tolist(), step.tolist(), voxel[ray, step].tolist()


def lists(samples: Samples) -> tuple[list[int], list[int], list[int]]:
    return samples.ray.tolist(), samples.step.tolist(), samples.voxel.tolist()


@pytest.mark.parametrize(("steps", "interval"), [(150, 8), (60, 4), (25, 2), (12, 1)])
@pytest.mark.parametrize("share", [0.03, 0.3])
def test_marching_is_a_look_at_every_step(steps: int, interval: int, share: float) -> None:
    """Skipping is only allowed to save work: not one sample may be lost, added, or stand at another place. Rays begin
    outside and inside, run along axes, meet the box and miss it; steps are shifted ray by ray."""
    live = tiny_cells(share, seed=steps)
    lattice = Lattice(0.0, 7.0, steps)
    marcher = Marcher(live, lattice)
    assert marcher.interval == interval
    origins, directions = rays_through(live, 200, seed=steps)
    shift = torch.rand(200, generator=torch.Generator().manual_seed(2))
    found = marcher.occupied(origins, directions, shift)
    expected = brute_force(live, lattice, origins, directions, shift)
    assert lists(found) == expected and len(found) > 3
    assert len(set(expected[0])) < 200
    distances = lattice.near + (found.step + shift[found.ray.long()]) * lattice.step_size
    assert torch.equal(found.distance, distances)


def test_samples_come_by_ray_then_by_step() -> None:
    """Compositing goes along the rays in this order, without a sort of its own."""
    live = tiny_cells(0.2)
    lattice = Lattice(0.5, 7.0, 100)
    found = Marcher(live, lattice).occupied(*rays_through(live, 100))
    order = found.ray.long() * lattice.steps + found.step
    assert bool((order[1:] > order[:-1]).all()) and len(found) > 100


@pytest.mark.parametrize(("near", "far"), [(0.0, 0.01), (20.0, 30.0), (0.7, 0.9), (1.0, 1.4)])
def test_bounds_of_the_lattice_hold(near: float, far: float) -> None:
    """A camera may stand within the scene, or all of the scene beyond the far plane: nothing outside of the bounds is
    drawn, whatever the box says."""
    live = tiny_cells(0.3)
    lattice = Lattice(near, far, 13)
    origins, directions = rays_through(live, 100)
    found = Marcher(live, lattice).occupied(origins, directions)
    assert lists(found) == brute_force(live, lattice, origins, directions, torch.full((100,), 0.5))


def test_rays_along_faces_and_of_no_number_do_no_harm() -> None:
    """0 / 0 is met by every ray that runs within a face of the box; infinite and missing values come from broken
    cameras. They have no samples and leave those of the others alone."""
    live = LiveCells(CellGrid(torch.zeros(3), 1.0, (1, 1, 1), 4), torch.ones(4, 4, 4, dtype=torch.bool))
    origins = torch.tensor(
        [[0.0, 0.0, -1.0], [1.0, 1.0, -1.0], [math.nan, 0.5, -1.0], [math.inf, 0.5, -1.0], [0.5, 0.5, -1.0], [2, 0, 0]]
    )
    directions = torch.tensor([[0.0, 0.0, 1.0]] * 6)
    lattice = Lattice(0.0, 4.0, 40)
    found = Marcher(live, lattice).occupied(origins, directions)
    expected = brute_force(live, lattice, origins, directions, torch.full((6,), 0.5))
    assert lists(found) == expected
    assert set(found.ray.tolist()) == {0, 4} and len(found) == 20


def test_points_on_borders_of_cells_have_one_network() -> None:
    """Rays that run within the plane between two cells: which of the two has the point is for the voxel to say, once.
    The point lies in or on that cell, and nothing is asked of a cell without a network."""
    live = tiny_cells(1.0, dead=())
    border = live.grid.lower + torch.tensor([0.5, 0.5, 0.0])
    origins = torch.stack([border - torch.tensor([0.0, 0.0, 1.0]), border - torch.tensor([1.0, 0.0, -0.5])])
    directions = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    found = Marcher(live, Lattice(0.0, 4.0, 64)).occupied(origins, directions)
    networks = live.networks(found.voxel)
    assert torch.equal(live.grid.cells(found.voxel), live.cells[networks.long()])
    points = found.points(origins, directions)
    inside = points - live.corners[networks.long()]
    assert len(found) > 40 and float(inside.min()) > -1e-5 and float(inside.max()) < live.grid.cell_size + 1e-5
    assert float(live.local(points, networks).abs().max()) <= 1


def test_no_rays_and_empty_cells_give_no_samples() -> None:
    """The viewer asks for a frame before there is anything, and a batch may meet nothing."""
    live = tiny_cells(0.2)
    nothing = live.restricted(torch.zeros_like(live.occupied))
    lattice = Lattice(0.0, 5.0, 50)
    assert len(Marcher(live, lattice).occupied(torch.zeros(0, 3), torch.zeros(0, 3))) == 0
    assert len(Marcher(nothing, lattice).occupied(*rays_through(live, 20))) == 0
    piecewise = Marcher(live, Lattice(0.0, 5.0, 50, "piecewise"))
    assert len(piecewise.occupied(torch.zeros(0, 3), torch.zeros(0, 3))) == 0


def test_points_are_the_places_on_the_rays() -> None:
    """They are what the networks are asked for."""
    live = tiny_cells(0.2)
    origins, directions = rays_through(live, 20)
    found = Marcher(live, Lattice(0.0, 7.0, 100)).occupied(origins, directions)
    points = found.points(origins, directions)
    for i in range(0, len(found), 17):
        ray = int(found.ray[i])
        expected = origins[ray] + directions[ray] * found.distance[i]
        torch.testing.assert_close(points[i], expected)
    assert float((live.grid.voxels(points) == found.voxel).float().mean()) > 0.999


def test_directions_of_another_length_are_refused() -> None:
    """The dilated grid vouches for steps of the lattice's length; longer ones would jump over what is there."""
    live = tiny_cells()
    with pytest.raises(ValueError, match="length 1, got 1 of 2 that have not, the first of length 2"):
        Marcher(live, Lattice(0.0, 1.0, 4)).occupied(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1], [0, 0, 2.0]]))


@pytest.mark.parametrize(("near", "far"), [(0.05, 1000.0), (0.1, 0.8), (2.0, 50.0)])
def test_piecewise_steps_are_the_hosts(near: float, far: float) -> None:
    """Up to a distance of 1 steps are equal, beyond it they are equal in the inverse of the distance; the teacher of an
    unbounded scene was trained on these."""
    lattice = Lattice(near, far, 64, "piecewise")
    edges = lattice.edges(torch.arange(65, dtype=torch.int32)).double()
    assert float(edges[0]) == pytest.approx(near, abs=1e-6) and float(edges[-1]) == pytest.approx(far, rel=1e-3)
    squeezed = torch.where(edges < 1, edges / 2, 1 - 1 / (2 * edges))
    gaps = squeezed.diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(64), rtol=1e-3, atol=1e-6)
    steps = torch.arange(64, dtype=torch.int32)
    torch.testing.assert_close(lattice.lengths(steps).double(), edges.diff(), rtol=1e-4, atol=1e-6)
    middle = lattice.distances(steps, torch.full((64,), 0.5)).double()
    torch.testing.assert_close(middle, (edges[1:] + edges[:-1]) / 2, rtol=1e-4, atol=1e-6)


def test_contracted_space_is_looked_at_step_by_step() -> None:
    """There rays are curves, which no box can be cut with: each place is contracted and looked up alone."""
    grid = CellGrid(torch.full((3,), -1.0), 0.5, (4, 4, 4), 4)
    live = LiveCells(grid, torch.rand(grid.voxel_shape, generator=torch.Generator().manual_seed(3)) < 0.3)

    def contraction(points: Tensor) -> Tensor:
        return points / (1 + points.norm(dim=1, keepdim=True))

    lattice = Lattice(0.05, 100.0, 40, "piecewise")
    origins = torch.rand(10, 3, generator=torch.Generator().manual_seed(4)) - 0.5
    directions = torch.nn.functional.normalize(origins.roll(1, 0) - origins, dim=1)
    found = Marcher(live, lattice, contraction).occupied(origins, directions)
    expected = []
    for r in range(10):
        for k in range(40):
            step = torch.tensor([k], dtype=torch.int32)
            distance = lattice.distances(step, torch.full((1,), 0.5))
            voxel = int(grid.voxels(contraction(origins[r : r + 1] + directions[r : r + 1] * distance[:, None]))[0])
            if voxel >= 0 and bool(live.occupied.flatten()[voxel]):
                expected.append((r, k, voxel))
    assert list(zip(*lists(found), strict=True)) == expected and len(expected) > 40


def test_a_lattice_without_extent_is_refused() -> None:
    """Options come from people; the error says what was found."""
    with pytest.raises(ValueError, match=r"near 2\.0 and far 1\.0"):
        Lattice(2.0, 1.0, 10)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        Lattice(0.0, 1.0, 0)


def test_steps_of_one_length_have_that_length() -> None:
    """It is the length that opacity is computed with."""
    lattice = Lattice(2.0, 6.0, 96)
    assert lattice.step_size == pytest.approx(4 / 96)
    steps = torch.arange(96, dtype=torch.int32)
    torch.testing.assert_close(lattice.lengths(steps), torch.full((96,), 4 / 96))
    torch.testing.assert_close(lattice.edges(steps), torch.linspace(2, 6, 97)[:-1])
