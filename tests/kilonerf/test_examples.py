"""Examples for distilling: where points lie, from where they are seen, how much memory they take, and their order."""

from typing import Any

import pytest
import torch
from support.tiny_cells import CELL_SIZE, tiny_cells
from torch import Tensor

from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.examples import Batch, Examples, PointSampler, bytes_per_point
from nerfstudio_prune.occupancy import POINTS_AT_ONCE

CAMERAS = torch.tensor([[5.0, 0.0, 3.0], [-4.0, 2.0, 3.0]])


def teacher(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Values from which point and direction can be read again."""
    return points.sum(dim=1), directions * 10 + points[:, None]


def some_examples(memory: int = 10**6, seed: int = 0, **options: Any) -> Examples:
    options = {"points_per_network": 5, "directions": 3, "teacher": teacher, "live": tiny_cells(), **options}
    return Examples(cameras=CAMERAS, memory=memory, seed=seed, **options)


def world(examples: Examples, batch: Batch) -> Tensor:
    """Places of a batch in the scene."""
    return examples.live.corners[:, None] + (batch.positions + 1) / 2 * CELL_SIZE


def test_points_lie_in_occupied_voxels_of_their_own_cell() -> None:
    """A network that is shown empty space, or another cell, learns what it is never asked for."""
    live = tiny_cells()
    points, voxels = PointSampler(live).draw(2, 9, 50, torch.Generator().manual_seed(0))
    assert points.shape == (7, 50, 3)
    for i in range(7):
        assert bool(live.occupied.flatten()[voxels[i].long()].all())
        assert set(live.networks(voxels[i]).tolist()) == {2 + i}
        inside = (points[i] - live.grid.lower) / live.grid.voxel_size - live.grid.voxel_coordinates(voxels[i])
        assert float(inside.min()) >= -1e-4 and float(inside.max()) <= 1 + 1e-4


def test_points_are_uniform_over_what_is_occupied() -> None:
    """Voxels of a cell are drawn alike, and places within them: the mean of each is where it should be to four standard
    deviations."""
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[0, 0, 0] = occupied[3, 1, 2] = occupied[2, 2, 2] = True
    live = LiveCells(CellGrid(torch.zeros(3), 1.0, (1, 1, 1), 4), occupied)
    points, voxels = PointSampler(live).draw(0, 1, 6000, torch.Generator().manual_seed(0))
    counts = voxels.flatten().long().bincount(minlength=64)
    assert counts.nonzero()[:, 0].tolist() == occupied.flatten().nonzero()[:, 0].tolist()
    assert bool(((counts[occupied.flatten()] - 2000).abs() < 4 * 37).all())
    inside = points[0] * 4 - live.grid.voxel_coordinates(voxels[0])
    assert bool(((inside.mean(dim=0) - 0.5).abs() < 4 * 0.29 / 6000**0.5).all())


def test_points_behind_everything_are_told_from_the_others() -> None:
    """By the place of each in the scene, though only places in cells are kept. What is kept stays as large."""
    examples = some_examples(behind=lambda points: points[:, 2] > 3.0)
    for step in (0, 4):
        batch = examples.batch(step)
        places = world(examples, batch)
        sure = (places[..., 2] - 3.0).abs() > 1e-4
        assert batch.behind is not None and bool(batch.behind.any() and (~batch.behind).any())
        assert torch.equal(batch.behind[sure], (places[..., 2] > 3.0)[sure])
    plain = some_examples()
    assert plain.batch(0).behind is None and plain.batches_per_refresh == examples.batches_per_refresh
    assert plain.held_bytes == examples.held_bytes


def test_directions_are_those_in_which_cameras_see_the_points() -> None:
    """No other direction is ever asked for, and the colour belongs to the direction beside it. Both cameras are
    used."""
    examples, used = some_examples(), set()
    for step in range(examples.batches_per_refresh):
        batch = examples.batch(step)
        points = world(examples, batch)
        torch.testing.assert_close(batch.directions.norm(dim=-1), torch.ones(points.shape[:2]))
        towards = torch.nn.functional.normalize(points[..., None, :] - CAMERAS, dim=-1)
        off = (towards - batch.directions[..., None, :]).norm(dim=-1)
        assert float(off.amin(dim=-1).max()) < 1e-4
        used |= set(off.argmin(dim=-1).flatten().tolist())
        torch.testing.assert_close(batch.density, points.sum(dim=-1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(batch.rgb, batch.directions * 10 + points, atol=1e-4, rtol=1e-4)
        if step > 20:
            break
    assert used == {0, 1}


def test_directions_in_contracted_space_are_those_of_the_world() -> None:
    """Cells lie in contracted space there, cameras and directions do not."""
    examples = some_examples(to_world=lambda points: 3 * points)
    batch = examples.batch(0)
    towards = torch.nn.functional.normalize(3 * world(examples, batch)[..., None, :] - CAMERAS, dim=-1)
    assert float((towards - batch.directions[..., None, :]).norm(dim=-1).amin(dim=-1).max()) < 1e-4


def test_one_evaluation_of_the_trunk_serves_several_directions() -> None:
    """The trunk is most of the teacher's work: each point is asked for once, with all of its directions, and never more
    than fit the cache."""
    asked: list[tuple[int, int]] = []

    def watched(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        asked.append((len(points), directions.shape[1]))
        return teacher(points, directions)

    live = tiny_cells()
    examples = some_examples(memory=live.count * 2000 * bytes_per_point(3), teacher=watched, live=live)
    seen = [examples.batch(step).positions for step in range(examples.batches_per_refresh)]
    assert sum(count for count, _ in asked) == live.count * 2000
    assert {views for _, views in asked} == {3} and max(count for count, _ in asked) <= POINTS_AT_ONCE
    assert len(seen) == 1200 and torch.equal(seen[0], seen[400]) and not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("batches", [1, 2.5, 7])
def test_memory_is_bounded(batches: float) -> None:
    """KiloNeRF's public code draws a million examples for each network and runs out of memory; here the memory decides
    how many are drawn at once, and new ones come when they are used up."""
    live = tiny_cells()
    memory = int(live.count * 5 * bytes_per_point(3) * batches)
    examples = some_examples(memory=memory)
    for step in range(2 * examples.batches_per_refresh + 1):
        examples.batch(step)
        assert 0 < examples.held_bytes <= memory
    assert examples.batches_of_points == int(batches)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_examples_take_what_was_counted_whatever_the_cameras_are(dtype: torch.dtype) -> None:
    """The memory is counted in values of 32 bits. Cameras in 64 would double it, and in 16 the positions would be
    wrong by a voxel."""
    memory = tiny_cells().count * 10 * bytes_per_point(3)
    examples = Examples(tiny_cells(), CAMERAS.to(dtype), teacher, 5, memory, 0)
    expected = some_examples(memory).batch(3)
    batch = examples.batch(3)
    assert examples.held_bytes == memory
    for name in ("positions", "directions", "density", "rgb"):
        assert getattr(batch, name).dtype == torch.float32
        assert torch.equal(getattr(batch, name), getattr(expected, name))


@pytest.mark.parametrize("batches", [1, 4])
def test_a_batch_does_not_hold_the_other_examples(batches: int) -> None:
    """A trainer still has the last batch when new examples are drawn: as a view it would keep the old set beside the
    new one, and the memory would be twice what was asked for."""
    examples = some_examples(tiny_cells().count * 5 * bytes_per_point(3) * batches)
    batch = examples.batch(0)
    assert examples._store is not None
    for name, stored in examples._store.items():
        tensor = getattr(batch, name)
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()
        assert tensor.untyped_storage().data_ptr() != stored.untyped_storage().data_ptr()


def test_points_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few networks each has many points, whose random numbers and places take more memory than what is kept of
    them; each part goes to its own place in the store."""
    monkeypatch.setattr("nerfstudio_prune.kilonerf.examples.POINTS_AT_ONCE", 8)
    examples, drawn = some_examples(tiny_cells().count * 20 * bytes_per_point(3)), []
    draw = examples._sampler.draw

    def watched(first: int, last: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn.append((last - first) * count)
        return draw(first, last, count, generator)

    monkeypatch.setattr(examples._sampler, "draw", watched)
    batches = [examples.batch(step) for step in range(12)]
    assert max(drawn) == 8 and sum(drawn) == examples.live.count * 20
    places = torch.cat([world(examples, batch) for batch in batches[:4]], dim=1)
    assert all(len(of_network.unique(dim=0)) == 20 for of_network in places)
    for batch in batches:
        points = world(examples, batch)
        torch.testing.assert_close(batch.density, points.sum(dim=-1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(batch.rgb, batch.directions * 10 + points, atol=1e-4, rtol=1e-4)


def test_all_examples_are_new_after_a_refresh() -> None:
    """Networks of some thousand weights would learn a small set by heart."""
    examples = some_examples(memory=tiny_cells().count * 5 * bytes_per_point(3))
    first, again = examples.batch(0).positions.clone(), examples.batch(2).positions.clone()
    assert examples.batches_per_refresh == 3 and torch.equal(first, again)
    assert not bool((examples.batch(3).positions == first).any())


def test_examples_may_be_used_again_and_need_not_fill_the_memory() -> None:
    """Asking the teacher is most of a short distillation: what it needs is drawn, and each of it is used some times."""
    examples = some_examples(most_points=14, uses=2)
    assert examples.batches_of_points == 2 and examples.batches_per_refresh == 12
    batches = [examples.batch(step) for step in range(13)]
    for name in ("positions", "directions", "rgb"):
        values = [getattr(batch, name) for batch in batches]
        assert torch.equal(values[0], values[6]) and torch.equal(values[5], values[11])
        assert not torch.equal(values[0], values[12])
    for options in ({"most_points": 4}, {"uses": 0}):
        with pytest.raises(ValueError, match="used at least once and kept for at least one batch of 5 points"):
            some_examples(**options)


def test_a_batch_follows_from_seed_step_and_memory() -> None:
    """A resumed run trains on what the uninterrupted one would have, whatever was asked for before; the random state
    that photos are drawn by stays."""
    torch.manual_seed(9)
    state = torch.get_rng_state()
    memory = tiny_cells().count * 10 * bytes_per_point(3)
    straight, resumed, other = some_examples(memory), some_examples(memory), some_examples(memory, seed=2**32)
    batches = [straight.batch(step) for step in range(15)]
    for step in (14, 7):
        again = resumed.batch(step)
        for name in ("positions", "directions", "density", "rgb"):
            assert torch.equal(getattr(again, name), getattr(batches[step], name))
    assert not torch.equal(other.batch(7).positions, batches[7].positions)
    assert not torch.equal(some_examples(memory // 2).batch(0).positions, batches[0].positions)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 1000}, r"distil\.memory_mb 0\.001 is too small: \d+ networks with 5 points each need at least"),
        ({"points_per_network": 0}, r"distil\.points_per_network and directions must be at least 1, got 0 and 3"),
        ({"directions": 0}, r"got 5 and 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, Any], message: str) -> None:
    """Before the teacher is asked; the message names the option."""
    with pytest.raises(ValueError, match=message):
        some_examples(**options)


def test_no_cells_and_no_cameras_are_refused() -> None:
    """Both would give batches of nothing, or directions that are no numbers."""
    live = tiny_cells()
    with pytest.raises(ValueError, match="at least one live cell"):
        some_examples(live=live.restricted(torch.zeros_like(live.occupied)))
    for cameras in (torch.zeros(0, 3), torch.full((1, 3), torch.nan)):
        with pytest.raises(ValueError, match="at least one finite place"):
            Examples(live, cameras, teacher, 5, 10**6, 0)
