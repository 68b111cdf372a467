"""Which cells are live: against solids whose extent is known."""

import math
from typing import Any

import pytest
import torch
from support.tiny_cells import tiny_cells
from torch import Tensor

from nerfstudio_prune.kilonerf.building import _cubes, build_cells, tighten, visible, visible_behind
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.march import Lattice, Marcher
from nerfstudio_prune.occupancy import POINTS_AT_ONCE, dilated

BOX = torch.tensor([[-4.0, -3.0, -2.0], [4.0, 3.0, 2.0]])
CENTRE = torch.tensor([1.0, -0.5, 0.25])


def ball(positions: Tensor, radius: float = 0.8) -> Tensor:
    """A solid ball, dense inside, nothing outside."""
    return 100.0 * ((positions - CENTRE).norm(dim=-1) < radius)


def built(density_fn: Any, resolution: int = 8, refine: int = 4, seed: int = 0, **options: Any) -> LiveCells:
    options = {"alpha_threshold": 0.02, "places": torch.zeros(0, 3), **options}
    return build_cells(density_fn, BOX, resolution, refine, generator=torch.Generator().manual_seed(seed), **options)


def test_dilation_is_a_look_at_all_neighbours() -> None:
    """A cell is grown along the diagonals too, since rays go that way, and never around the end of an axis."""
    cells = torch.rand(5, 9, 2, generator=torch.Generator().manual_seed(0)) < 0.03
    cells[0, 0, 0] = True
    for radius in (0, 1, 3):
        expected = torch.zeros_like(cells)
        for x, y, z in cells.nonzero().tolist():
            low = [max(0, i - radius) for i in (x, y, z)]
            expected[low[0] : x + radius + 1, low[1] : y + radius + 1, low[2] : z + radius + 1] = True
        assert torch.equal(dilated(cells, radius), expected)


def test_cells_are_cubes_around_what_there_is() -> None:
    """Nothing about a scene is typed in: the resolution counts along the longest side of the occupied part, not of the
    box, in which the scene may be small."""
    live = built(ball)
    grid = live.grid
    assert max(grid.shape) == 8 and grid.shape == (8, 8, 8)
    assert 1.6 <= 8 * grid.cell_size < 1.85
    torch.testing.assert_close(grid.aabb.mean(dim=0), CENTRE, atol=0.1, rtol=0)
    flat = built(lambda p: 100.0 * ((p - CENTRE).abs() < torch.tensor([1.6, 0.4, 0.8])).all(dim=-1))
    assert flat.grid.shape[0] == 8 and flat.grid.shape[1] in (2, 3) and flat.grid.shape[2] in (4, 5)


def test_the_box_holds_what_it_is_told_to() -> None:
    """What is behind everything is nowhere dense: the grid has to reach it all the same."""
    far = torch.tensor([[-1.7, 0.1, 0.2], [1.2, 1.3, -0.9]])
    live = built(ball, around=far)
    assert bool((live.grid.voxels(far) >= 0).all()) and not bool(
        live.occupied.flatten()[live.grid.voxels(far).long()].any()
    )
    inside = CENTRE + torch.tensor([[0.0, 0.0, 0.1]])
    assert torch.equal(built(ball, around=inside).grid.aabb, built(ball).grid.aabb)


def test_no_sample_of_a_solid_is_skipped_and_what_is_far_is_empty() -> None:
    """The first is what pictures rest on, the second is the gain."""
    live = built(ball, refine=8)
    positions = BOX[0] + torch.rand(100_000, 3, generator=torch.Generator().manual_seed(3)) * (BOX[1] - BOX[0])
    voxels = live.grid.voxels(positions)
    occupied = (voxels >= 0) & live.occupied.flatten()[voxels.clamp(min=0).long()]
    inside = ball(positions) > 1
    assert int(inside.sum()) > 1000 and bool(occupied[inside].all())
    far = (positions - CENTRE).norm(dim=-1) > 0.8 + 3 * math.sqrt(3) * live.grid.voxel_size
    assert not bool(occupied[far].any())
    assert live.count < math.prod(live.grid.shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plate_of_half_a_voxel_is_found_as_a_whole(axis: int) -> None:
    """Thin things are what occupancy grids lose. The plate lies across one axis, somewhere within its voxels; along
    rays that meet it there has to be an occupied sample in front of all of it."""
    thickness = 0.5 * 3.0 / 32

    def plate(positions: Tensor) -> Tensor:
        across = (positions[:, axis] - 0.3).abs() < thickness / 2
        others = [i for i in range(3) if i != axis]
        return 1000.0 * (across & (positions[:, others].abs() < 1.5).all(dim=1))

    live = built(plate)
    points = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(5)) * 2.9 - 1.45
    points[:, axis] = 0.3 + thickness * 0.99 * (torch.rand(20_000, generator=torch.Generator().manual_seed(6)) - 0.5)
    voxels = live.grid.voxels(points)
    assert bool((voxels >= 0).all()) and bool(live.occupied.flatten()[voxels.long()].all())


def test_a_speck_on_a_ray_is_found() -> None:
    """What is small and stands alone is missed by random places; one place on a ray that meets it is enough."""
    speck = torch.tensor([[-2.0, 1.0, 0.5]])

    def scene(positions: Tensor) -> Tensor:
        return ball(positions) + 1000.0 * ((positions - speck).norm(dim=-1) < 0.01)

    live = built(scene, places=torch.cat([speck, torch.full((1, 3), 1000.0)]))
    assert bool(live.occupied.flatten()[live.grid.voxels(speck).long()].all())
    far = built(scene)
    assert int(far.grid.voxels(speck)) < 0


def test_the_threshold_is_an_opacity_over_a_voxel() -> None:
    """A fog is occupied or not by what a voxel of it hides, whatever the scene's unit: the same scene ten times as
    large, with a tenth of the density, gives the same grid."""

    def fog(positions: Tensor) -> Tensor:
        return torch.where(ball(positions) > 1, 100.0, 0.05)

    assert built(fog).share < 1
    everything = built(fog, alpha_threshold=1e-4)
    assert everything.share == 1.0 and max(everything.grid.shape) == 8
    small, large = (
        built(ball),
        build_cells(
            lambda p: ball(p / 10) / 10, 10 * BOX, 8, 4, 0.02, torch.Generator().manual_seed(0), torch.zeros(0, 3)
        ),
    )
    assert torch.equal(small.occupied, large.occupied)


def test_nothing_to_see_is_an_error_that_says_how_little() -> None:
    """An empty occupancy would train for an hour and render nothing. The largest opacity tells whether the threshold
    was missed or the teacher never trained."""
    with pytest.raises(ValueError, match=r"occupancy.alpha_threshold: .*0\.02 .*largest opacity seen is 0\b.*teacher"):
        built(lambda positions: torch.zeros(len(positions)))
    with pytest.raises(ValueError, match=r"largest opacity seen is 0\.0124"):
        built(lambda positions: torch.full((len(positions),), 0.05))


def test_there_are_never_more_voxels_than_allowed() -> None:
    """Memory is asked for after this check, and the error names a resolution that does."""
    with pytest.raises(ValueError, match=r"grid.resolution 64 with occupancy.refine 8 .* fits is (\d+)") as raised:
        built(ball, resolution=64, refine=8, max_voxels=10**6)
    fits = int(str(raised.value).split()[-1])
    assert 10**6 / 2 < built(ball, resolution=fits, refine=8, max_voxels=10**6).occupied.numel() <= 10**6


@pytest.mark.parametrize("sides", [(1.0, 1.0, 1.0), (1.0, 0.26, 0.51), (0.001, 1.0, 0.3), (1.0, 1 / 3, 2 / 3)])
def test_the_resolution_that_is_said_to_fit_is_the_largest(sides: tuple[float, float, float]) -> None:
    """Whoever follows the message must neither fail again nor get less than there is room for; all are tried. Where
    not even one cell fits it is the voxels in it that are too many."""
    aabb = torch.tensor([[0.0, 0.0, 0.0], sides])
    for refine, most in ((1, 5), (2, 1000), (4, 5000), (3, 27)):

        def voxels(resolution: int, refine: int = refine) -> int:
            return math.prod(_cubes(aabb, resolution, refine, 10**8).voxel_shape)

        with pytest.raises(ValueError, match=r"largest resolution that fits is \d+") as raised:
            _cubes(aabb, 50, refine, most)
        assert int(str(raised.value).split()[-1]) == max(r for r in range(1, 51) if voxels(r) <= most)
    with pytest.raises(ValueError, match=r"needs 64 voxels, and 63 are allowed; none fits: lower occupancy\.refine"):
        _cubes(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.1, 0.1]]), 1, 4, 63)


@pytest.mark.parametrize(
    "corners", [((0, 0, 0), (1, math.inf, 1)), ((math.nan, 0, 0), (1, 1, 1)), ((0, 0, 2), (1, 1, 1)), ((0, 0, 0),) * 2]
)
def test_a_box_that_is_none_is_refused(corners: tuple[tuple[float, ...], ...]) -> None:
    """Its corners come from a data set; later they would be sizes that make no grid, and an error that names none."""
    arguments = (8, 4, 0.02, torch.Generator(), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="the box must be finite, its lower corner below its upper one, got"):
        build_cells(ball, torch.tensor(corners, dtype=torch.float32), *arguments)


def test_the_field_is_asked_in_parts_and_the_random_state_stays() -> None:
    """A teacher has wide layers: all voxels at once would take gigabytes. Photo batches must not depend on how the
    occupancy was built, and a resumed run builds the same one."""
    asked: list[int] = []

    def watched(positions: Tensor) -> Tensor:
        asked.append(len(positions))
        return ball(positions)

    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second, other = built(watched), built(watched), built(ball, seed=1)
    assert max(asked) <= POINTS_AT_ONCE and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.occupied, second.occupied) and torch.equal(first.grid.lower, second.grid.lower)
    assert first.occupied.shape != other.occupied.shape or not torch.equal(first.occupied, other.occupied)


def test_dilation_covers_half_an_interval_of_a_ray() -> None:
    """Samples of the student shift by up to half a step: what is right beside something seen has to be evaluated."""
    bare, grown = built(ball, dilate=0), built(ball, dilate=1)
    assert torch.equal(dilated(bare.occupied), grown.occupied)
    origins = CENTRE + 3 * torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)))
    directions = torch.nn.functional.normalize(CENTRE - origins, dim=1)
    lattice = Lattice(0.0, 6.0, int(6.0 / grown.grid.voxel_size))
    near, exact = Marcher(grown, lattice), Marcher(bare, lattice)
    for shift in (0.0, 0.99):
        found = near.occupied(origins, directions, torch.full((50,), shift))
        middle = exact.occupied(origins, directions)
        pairs = set(zip(found.ray.tolist(), found.step.tolist(), strict=True))
        assert pairs >= set(zip(middle.ray.tolist(), middle.step.tolist(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha_threshold": 0.0}, "occupancy.alpha_threshold must be in"),
        ({"resolution": 0}, "grid.resolution must be at least 1, got 0"),
        ({"refine": 0}, "occupancy.refine must be at least 1, got 0"),
        ({"dilate": -1}, "occupancy.dilate must be at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    """The message is all that a user sees."""
    with pytest.raises(ValueError, match=message):
        built(ball, **options)


def test_tightening_only_removes() -> None:
    """What is empty by now leaves, be it a whole cell with its network; nothing that was empty is asked for or comes
    back. The density is told the voxel, which rounding may not change."""
    live = tiny_cells(0.3)
    half = live.grid.aabb.mean(dim=0)[0]

    def left_half(points: Tensor, voxels: Tensor) -> Tensor:
        assert bool(live.occupied.flatten()[voxels.long()].all()) and len(points) <= POINTS_AT_ONCE
        low = live.grid.lower + live.grid.voxel_coordinates(voxels) * live.grid.voxel_size
        assert bool(((points >= low - 1e-5) & (points <= low + live.grid.voxel_size + 1e-5)).all())
        return 100.0 * (points[:, 0] < half)

    fewer = tighten(live, left_half, 0.02, torch.Generator().manual_seed(0))
    expected = live.occupied.clone()
    expected[6:] = False
    assert torch.equal(fewer.occupied, expected)
    assert live.cells[fewer.kept_of(live)].tolist() == fewer.cells.tolist() and fewer.count < live.count


def test_tightening_that_would_leave_nothing_is_refused() -> None:
    """The run goes on with what it had. A network that gives no numbers is kept, to be seen."""
    live = tiny_cells(0.3)
    with pytest.raises(ValueError, match="largest opacity seen is 0"):
        tighten(live, lambda points, voxels: torch.zeros(len(points)), 0.02, torch.Generator())
    broken = tighten(live, lambda points, voxels: torch.full((len(points),), math.nan), 0.02, torch.Generator())
    assert torch.equal(broken.occupied, live.occupied)
    empty = live.restricted(torch.zeros_like(live.occupied))
    with pytest.raises(ValueError, match="at least one occupied voxel"):
        tighten(empty, lambda points, voxels: torch.zeros(len(points)), 0.02, torch.Generator())
    for options in ({"alpha_threshold": 1.0}, {"places": 0}):
        with pytest.raises(ValueError, match="must be"):
            arguments: dict[str, Any] = {"alpha_threshold": 0.02, "generator": torch.Generator(), **options}
            tighten(live, lambda points, voxels: torch.zeros(len(points)), **arguments)


def test_voxels_that_no_ray_shows_can_be_left_out() -> None:
    """The inside of solid things is occupied and never seen; a network there is work for nothing."""
    live = tiny_cells(0.3)
    voxels = live.occupied.flatten().nonzero()[:6, 0].int()
    weights = torch.tensor([0.5, 0.0, 0.002, 0.001, 1.0, 0.0009])
    seen = live.restricted(visible(live, voxels, weights, 0.001))
    assert seen.occupied.flatten().nonzero()[:, 0].tolist() == voxels[[0, 2, 4]].tolist()


def test_what_the_last_samples_of_rays_show_counts() -> None:
    """Where it is the background: it is seen by the light that all of the ray lets through, opaque or not."""
    live = tiny_cells(0.3)
    voxels = live.occupied.flatten().nonzero()[:7, 0].int()
    ray = torch.tensor([0, 0, 2, 3, 3, 3, 5], dtype=torch.int32)
    left = torch.tensor([0.5, 1.0, 0.009, 0.02, 1.0, 1.0])
    found = visible_behind(live, voxels, ray, left, 0.01)
    assert found.flatten().nonzero()[:, 0].tolist() == voxels[[1, 5, 6]].tolist()
    assert not bool(visible_behind(live, voxels[:0], ray[:0], left, 0.01).any())
