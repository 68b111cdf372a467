"""How large cells and networks are, from a budget: all sizes of cells over one and the same fine grid of voxels.

Cells are whole numbers of voxels wide, so that the number of live cells of each size is counted, not estimated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite, prod
from typing import Literal, Optional

import torch

from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.shape import NetworkShape
from nerfstudio_prune.occupancy import MAX_CELLS

BudgetKind = Literal["parameters", "mb", "macs"]
"""parameters: of all networks; mb: millions of bytes of these; macs: multiply-accumulates per ray."""

MEGABYTE = 10**6
WIDTHS = (8, 16, 24, 32)
"""Hidden widths to choose from."""
LEAST_REFINE = 4
"""Fewest voxels along the side of a cell: its border is then a small part of it."""
ENOUGH_CELLS = 8
"""Cells along the longest side from which wider networks are worth more than more of them."""


def megabytes(parameters: int, bits: int = 32) -> float:
    """Size of networks in units of 1,000,000 bytes.

    Args:
        parameters: Weights and biases of all of them.
        bits: Bits of each.
    """
    return parameters * bits / 8 / MEGABYTE


@dataclass(frozen=True)
class Candidate:
    """A size of cells and a width of networks."""

    grid: CellGrid
    """The cells."""
    shape: NetworkShape
    """The networks."""
    networks: int
    """Live cells."""

    @property
    def resolution(self) -> int:
        """Cells along the longest side."""
        return max(self.grid.shape)

    @property
    def parameters(self) -> int:
        """Weights and biases of all networks."""
        return self.networks * self.shape.parameters


Number = int | float

Error = Callable[[Candidate], float]
"""Error of a candidate after a short distillation; the lower the better."""
Frequencies = Callable[[float], int]
"""Side of a cell -> frequencies that places in it are encoded by."""


def live_counts(live: LiveCells, refines: Optional[Sequence[int]] = None) -> dict[int, int]:
    """Number of live cells of every size over the same voxels, exactly.

    Args:
        live: Cells of any size over the voxels.
        refines: Voxels along the side of a cell. None: from `LEAST_REFINE` to a single cell for all.

    Returns:
        Voxels along the side of a cell -> live cells.
    """
    longest = max(live.grid.voxel_shape)
    if refines is None:
        refines = range(min(LEAST_REFINE, longest), longest + 1)
    places = live.occupied.nonzero().int().unbind(dim=1)
    counts = {}
    for refine in refines:
        along = [-(-count // refine) for count in live.grid.voxel_shape]
        x, y, z = (place // refine for place in places)
        found = torch.zeros(prod(along), dtype=torch.bool, device=live.occupied.device)
        found[((x * along[1] + y) * along[2] + z).long()] = True
        counts[refine] = int(found.sum())
    return counts


def recut(live: LiveCells, refine: int) -> LiveCells:
    """Other cells over the same voxels.

    Args:
        live: Cells of any size over the voxels.
        refine: Voxels along the side of the new cells, >= 1.
    """
    grid = live.grid.with_refine(refine)
    occupied = live.occupied.new_zeros(grid.voxel_shape)
    x, y, z = live.grid.voxel_shape
    occupied[:x, :y, :z] = live.occupied
    return LiveCells(grid, occupied)


@dataclass(frozen=True)
class Choice:
    """What a budget came to."""

    live: LiveCells
    """The cells."""
    shape: NetworkShape
    """The networks."""
    tried: Mapping[Candidate, float]
    """Error of each candidate that was distilled for the choice."""


def _refines(live: LiveCells) -> list[int]:
    """Voxels along the side of a cell for which the grid, which grows to whole cells, has not too many of them."""
    longest = max(live.grid.voxel_shape)
    return [
        refine
        for refine in range(min(LEAST_REFINE, longest), longest + 1)
        if prod(-(-count // refine) * refine for count in live.grid.voxel_shape) <= MAX_CELLS
    ]


def _candidates(
    live: LiveCells, shape: NetworkShape, widths: Sequence[int], frequencies: Optional[Frequencies]
) -> Iterator[list[Candidate]]:
    """All sizes of cells, for each width; widest first."""
    cells = [(live.grid.with_refine(refine), count) for refine, count in live_counts(live, _refines(live)).items()]
    for width in sorted(set(widths), reverse=True):
        found = []
        for grid, count in cells:
            octaves = shape.position_frequencies if frequencies is None else frequencies(grid.cell_size)
            sized = replace(shape, hidden_width=width, position_frequencies=octaves)
            found.append(Candidate(grid, sized, count))
        yield found


def fitting(
    live: LiveCells,
    shape: NetworkShape,
    most_parameters: Number,
    widths: Sequence[int] = WIDTHS,
    frequencies: Optional[Frequencies] = None,
) -> list[Candidate]:
    """For each width the largest number of networks that fits; widest first.

    Args:
        live: Cells of any size over the voxels.
        shape: The rest of the networks' shape.
        most_parameters: Most weights and biases.
        widths: Hidden widths to choose from.
        frequencies: Those of a place, by the side of a cell. None: those of the shape.

    Returns:
        At most one candidate a width, none where not even one cell for all fits.
    """
    found = []
    for sizes in _candidates(live, shape, widths, frequencies):
        fits = [candidate for candidate in sizes if candidate.parameters <= most_parameters]
        if fits:
            # Of equally many cells the smaller ones: each of them has less to learn.
            found.append(max(fits, key=lambda candidate: (candidate.parameters, -candidate.grid.refine)))
    return found


def choose(
    live: LiveCells,
    shape: NetworkShape,
    kind: BudgetKind,
    value: Number,
    *,
    widths: Sequence[int] = WIDTHS,
    samples_per_ray: Optional[Number] = None,
    frequencies: Optional[Frequencies] = None,
    error: Optional[Error] = None,
) -> Choice:
    """Chooses the size of cells and the width of networks for a budget, which is never exceeded.

    Few wide networks come before many narrow ones as long as there are `ENOUGH_CELLS` along the longest side; below
    that, whatever uses most of the budget. By this rule, and with frequencies that do not depend on the cells, a larger
    budget never gives fewer parameters. With `error` the best candidate of each width is tried instead.

    A budget of multiply-accumulates decides on the width alone, since each sample asks one network however many there
    are; the cells stay as they are.

    Args:
        live: Cells of any size; their voxels stay.
        shape: The rest of the networks' shape.
        kind: What the budget is of.
        value: Its value, > 0.
        widths: Hidden widths to choose from.
        samples_per_ray: Occupied samples of a ray, for a budget of multiply-accumulates.
        frequencies: As for `fitting`; a budget of multiply-accumulates goes by the shape's.
        error: Error of a candidate after a short distillation.

    Raises:
        ValueError: If the budget is no positive number, is below one network per live cell (names what that takes), or
            counts multiply-accumulates without samples per ray.
    """
    option = f"grid.target_{kind}"
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{option} must be a positive number, got {value}")
    if not live.count or not widths:
        raise ValueError(f"{option} needs live cells and widths to choose from, got {live.count} and {list(widths)}")
    if kind == "macs":
        return _choose_width(live, shape, value, widths, samples_per_ray)
    most = value if kind == "parameters" else floor(value * MEGABYTE + 1e-6) // 4  # whole bytes
    candidates = fitting(live, shape, most, widths, frequencies)
    if not candidates:
        sizes = _candidates(live, shape, widths, frequencies)
        least = min(candidate.parameters for found in sizes for candidate in found)
        needed = f"{least:,} parameters" if kind == "parameters" else f"{megabytes(least):.3g} MB"
        raise ValueError(
            f"{option} {value:g} is below one network for each live cell: the smallest grid, of the narrowest networks "
            f"(width {min(widths)}) need {needed}"
        )
    tried: dict[Candidate, float] = {}
    if error is not None:
        tried = {candidate: float(error(candidate)) for candidate in candidates}
        chosen = min(candidates, key=lambda candidate: (tried[candidate], candidate.parameters))
    else:
        enough = [candidate for candidate in candidates if candidate.resolution >= ENOUGH_CELLS]
        chosen = enough[0] if enough else max(candidates, key=lambda candidate: candidate.parameters)
    return Choice(recut(live, chosen.grid.refine), chosen.shape, tried)


def _choose_width(
    live: LiveCells,
    shape: NetworkShape,
    value: Number,
    widths: Sequence[int],
    samples_per_ray: Optional[Number],
) -> Choice:
    """The widest networks whose evaluation fits."""
    if samples_per_ray is None or not (isfinite(samples_per_ray) and samples_per_ray > 0):
        raise ValueError(f"grid.target_macs needs a positive number of samples per ray, got {samples_per_ray}")
    shapes = [shape.with_width(width) for width in sorted(set(widths), reverse=True)]
    fits = [sized for sized in shapes if sized.macs * samples_per_ray <= value]
    if not fits:
        raise ValueError(
            f"grid.target_macs {value:g} is below {shapes[-1].macs * samples_per_ray:.6g} per ray, of the narrowest "
            f"networks (width {shapes[-1].hidden_width}) at {samples_per_ray:g} samples a ray"
        )
    return Choice(live, fits[0], {})
