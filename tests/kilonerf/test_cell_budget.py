"""Cells and widths from a budget: exact counts, never exceeded, monotone, and errors that say what it would take."""

import math

import pytest
import torch
from support.single_networks import some_shape
from support.tiny_cells import tiny_cells

from nerfstudio_prune.kilonerf.budget import (
    ENOUGH_CELLS,
    WIDTHS,
    BudgetKind,
    Candidate,
    choose,
    fitting,
    live_counts,
    megabytes,
    recut,
)
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.shape import NetworkShape

SHAPE = NetworkShape()


def shell(voxels: int = 48) -> LiveCells:
    """A hollow ball, as scenes are: the smaller the cells, the smaller their live share."""
    axis = (torch.arange(voxels) + 0.5) / voxels * 2 - 1
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    cells = voxels // 4
    grid = CellGrid(torch.full((3,), -1.0), 2 / cells, (cells, cells, cells), 4)
    return LiveCells(grid, (radius - 0.9).abs() < 0.06)


@pytest.fixture(scope="module")
def ball() -> LiveCells:
    """Made once: 110,592 voxels."""
    return shell()


def test_live_cells_of_every_size_are_counted_exactly(ball: LiveCells) -> None:
    """Parameters are live cells times those of a network; an estimate would exceed the budget or waste it. Every size
    is counted anew by a loop over the occupied voxels, be the side a multiple or not."""
    live = tiny_cells(0.05)
    places = live.occupied.nonzero().tolist()
    for refine, count in live_counts(live, range(1, 17)).items():
        assert count == len({tuple(i // refine for i in place) for place in places})
        other = recut(live, refine)
        assert other.count == count and int(other.occupied.sum()) == len(places) and other.grid.refine == refine
    counts = list(live_counts(ball).values())
    assert counts[0] > 400 and counts[-1] == 1
    assert max(live_counts(ball)) == 48 and min(live_counts(ball)) == 4


def test_occupied_voxels_stay_where_they_are() -> None:
    """The choice is made on one grid of voxels, and rendering goes by the same: nothing is looked up again."""
    live = tiny_cells(0.05)
    centres = live.grid.lower + (live.occupied.nonzero() + 0.5) * live.grid.voxel_size
    for other in (recut(live, refine) for refine in (1, 5, 7)):
        voxels = other.grid.voxels(centres)
        assert bool(other.occupied.flatten()[voxels.long()].all())
        assert bool((other.networks(voxels) >= 0).all())


@pytest.mark.parametrize("kind", ["parameters", "mb"])
def test_a_budget_is_never_exceeded_and_more_of_it_never_gives_less(ball: LiveCells, kind: BudgetKind) -> None:
    """Whoever asks for 5 MB has 5 MB. With more to spend the result must not shrink, whichever way the rule decides
    between more cells and wider networks."""
    before = 0
    smallest = SHAPE.with_width(8).parameters
    for exponent in range(0, 40, 2):
        parameters = smallest * 1.28**exponent
        choice = choose(ball, SHAPE, kind, parameters if kind == "parameters" else 4 * parameters / 1e6)
        used = choice.live.count * choice.shape.parameters
        assert before <= used <= parameters * (1 + 1e-9)
        before = used
    assert before == max(live_counts(ball).values()) * SHAPE.parameters


def test_few_wide_networks_come_before_many_narrow_ones(ball: LiveCells) -> None:
    """At equal quality the former need half of the parameters (sketch: 8 cells of width 32 against 16 of width 16); but
    cells larger than an eighth of the scene are too much for one of them."""
    counts = live_counts(ball)
    eight = min(count for refine, count in counts.items() if math.ceil(48 / refine) >= ENOUGH_CELLS)
    enough = choose(ball, SHAPE, "parameters", eight * SHAPE.parameters)
    assert enough.shape.hidden_width == 32 and max(enough.live.grid.shape) >= ENOUGH_CELLS
    tight = choose(ball, SHAPE, "parameters", eight * SHAPE.parameters - 1)
    assert tight.shape.hidden_width == 24 and max(tight.live.grid.shape) >= ENOUGH_CELLS
    tiny = choose(ball, SHAPE, "parameters", 3 * SHAPE.with_width(8).parameters)
    best = max(
        count * SHAPE.with_width(width).parameters
        for count in counts.values()
        for width in WIDTHS
        if count * SHAPE.with_width(width).parameters <= 3 * SHAPE.with_width(8).parameters
    )
    assert tiny.live.count * tiny.shape.parameters == best


def test_errors_decide_where_they_are_known(ball: LiveCells) -> None:
    """The rule is a guess; a short distillation of the best of each width knows better. Each width is tried once, with
    as many networks as fit."""
    tried: list[Candidate] = []

    def error(candidate: Candidate) -> float:
        tried.append(candidate)
        return abs(candidate.shape.hidden_width - 16)

    choice = choose(ball, SHAPE, "parameters", 300_000, error=error)
    assert [candidate.shape.hidden_width for candidate in tried] == [32, 24, 16, 8]
    assert choice.shape.hidden_width == 16 and sorted(choice.tried.values()) == [0, 8, 8, 16]
    counts = set(live_counts(ball).values())
    for candidate in tried:
        each = candidate.shape.parameters
        assert candidate.networks == max(count for count in counts if count * each <= 300_000)
        assert candidate.parameters == candidate.networks * each


def test_large_grids_have_candidates_too() -> None:
    """A grid grows to whole cells: with most sizes of cells a fine one would have more voxels than there may be. The
    others are left, down to a few cells for all."""
    occupied = torch.zeros(256, 224, 192, dtype=torch.bool)
    occupied[::37, ::41, ::29] = True
    live = LiveCells(CellGrid(torch.zeros(3), 0.125, (16, 14, 12), 16), occupied)
    for most in (2_000_000, 20_000):
        found = choose(live, SHAPE, "parameters", most)
        assert 0.3 * most < found.live.count * found.shape.parameters <= most
        assert int(found.live.occupied.sum()) == int(occupied.sum())


def test_of_equally_many_cells_the_smaller_ones_are_taken() -> None:
    """Each has less to learn at the same cost."""
    occupied = torch.zeros(16, 16, 16, dtype=torch.bool)
    occupied[0, 0, 0] = occupied[15, 15, 15] = True
    live = LiveCells(CellGrid(torch.zeros(3), 0.25, (4, 4, 4), 4), occupied)
    assert [c.grid.refine for c in fitting(live, SHAPE, 2 * SHAPE.parameters, (32,))] == [4]


@pytest.mark.parametrize("kind", ["parameters", "mb"])
def test_less_than_one_network_for_each_live_cell_is_refused(ball: LiveCells, kind: BudgetKind) -> None:
    """The error says what the smallest of all would take: a single cell with one network of width 8."""
    least = SHAPE.with_width(8).parameters
    message = rf"grid\.target_{kind} .* below one network for each live cell.*width 8"
    with pytest.raises(ValueError, match=message) as raised:
        choose(ball, SHAPE, kind, (least - 1) if kind == "parameters" else 4 * (least - 1) / 1e6)
    text = f"{least:,} parameters" if kind == "parameters" else f"{4 * least / 1e6:.3g} MB"
    assert text in str(raised.value)
    choose(ball, SHAPE, kind, least if kind == "parameters" else 4 * least / 1e6)


def test_multiply_accumulates_decide_on_the_width_alone(ball: LiveCells) -> None:
    """A sample asks one network, however many there are."""
    for width in WIDTHS:
        macs = SHAPE.with_width(width).macs * 5.8
        choice = choose(ball, SHAPE, "macs", macs, samples_per_ray=5.8)
        assert choice.shape.hidden_width == width and choice.live is ball
    with pytest.raises(ValueError, match=r"grid\.target_macs 10 is below .* \(width 8\) at 5\.8 samples a ray"):
        choose(ball, SHAPE, "macs", 10, samples_per_ray=5.8)
    with pytest.raises(ValueError, match="needs a positive number of samples per ray, got None"):
        choose(ball, SHAPE, "macs", 1e9)


def test_a_budget_that_is_none_is_refused(ball: LiveCells) -> None:
    """Options come from people and from scripts."""
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"grid\.target_mb must be a positive number"):
            choose(ball, SHAPE, "mb", value)


def test_nothing_to_choose_from_is_refused() -> None:
    """No live cell, or no width, is a mistake further up."""
    live = tiny_cells()
    with pytest.raises(ValueError, match="needs live cells and widths"):
        choose(live.restricted(torch.zeros_like(live.occupied)), SHAPE, "mb", 1.0)
    with pytest.raises(ValueError, match="needs live cells and widths"):
        choose(live, SHAPE, "mb", 1.0, widths=())


def test_megabytes_are_millions_of_bytes() -> None:
    """As everywhere in this project; with 16 bits half of them."""
    assert megabytes(250_000) == 1.0 and megabytes(250_000, bits=16) == 0.5
    assert some_shape().parameters < SHAPE.parameters
