"""How finely each number is rounded: at a given error of the pictures, with the fewest bytes.

A step of Δ makes a mean square error of Δ²/12, and the pictures see it times what the evidence says of that number.
Bytes are fewest where every number does the same to the pictures (reverse water-filling, Cover and Thomas, section
10.3.3), so that Δ = √(12·budget/evidence). Steps are powers of two, one for each Gaussian and group of numbers.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.channels import seen_of_scales
from nerfstudio_prune.splat_files.evidence import Evidence
from nerfstudio_prune.splat_files.morton import MAX_BITS

UNSEEN = 0.1
"""Least evidence, as a share of the median: nobody knows who will look at a Gaussian that the views do not see."""
COARSE = 0.9
"""Share of the Gaussians that the cells are not coarser than."""
SMALLEST_CELL = -126
"""Exponent of the width of a cell."""
FEWEST_BITS = 6
"""Of a coordinate, unless asked for: a place is never farther off than a 64th of the scene."""


class Group(IntEnum):
    """Numbers of a Gaussian with one step."""

    COLORS = 0
    POSITIONS = 1
    SCALES = 2
    ROTATIONS = 3
    OPACITIES = 4


RANGES = {
    Group.COLORS: (-16, 2),
    Group.SCALES: (-12, -1),
    Group.ROTATIONS: (-12, -2),
    Group.OPACITIES: (-12, 1),
}
"""Smallest and largest exponents of steps; those of positions follow from the scene."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells that centres are counted in."""

    corner: Float[ndarray, "3"]
    """Lowest one of the first cell, in single precision."""
    exponent: int
    """A cell is 2^exponent wide, in world units."""
    bits: int
    """There are 2^bits cells in each direction."""


@dataclass(frozen=True, eq=False)
class Steps:
    """Exponents of all steps."""

    grid: Grid
    exponents: dict[Group, Int64[ndarray, " gaussians"]]


def choose_steps(gaussians: Gaussians, evidence: Evidence, budget: float, position_bits: int | None) -> Steps:
    """Steps of all Gaussians.

    Args:
        gaussians: On the CPU, finite.
        evidence: What errors do.
        budget: Mean square error that each number may make of the pictures, above 0.
        position_bits: Cells are 2^bits in each direction, and centres are rounded to them. None: centres are rounded
            as all else.
    """
    seen = {
        Group.COLORS: evidence.colors,
        Group.POSITIONS: evidence.positions,
        Group.SCALES: seen_of_scales(gaussians, evidence),
        Group.ROTATIONS: evidence.rotations,
        Group.OPACITIES: evidence.opacities,
    }
    exponents = {group: _exponents(values, budget) for group, values in seen.items()}
    for group, (least, most) in RANGES.items():
        exponents[group] = exponents[group].clip(least, most)
    positions = exponents[Group.POSITIONS]
    means = gaussians.means.double().numpy()
    grid = _fitting_grid(means, positions) if position_bits is None else grid_of(means, position_bits)
    least = grid.exponent if position_bits is not None else grid.exponent - MAX_BITS // 2
    exponents[Group.POSITIONS] = positions.clip(least, grid.exponent)
    return Steps(grid, exponents)


def _exponents(seen: Float[ndarray, " gaussians"], budget: float) -> Int64[ndarray, " gaussians"]:
    positive = seen[seen > 0]
    least = UNSEEN * float(np.median(positive)) if len(positive) else 1.0
    return np.rint(0.5 * np.log2(12 * budget / np.maximum(seen, max(least, 1e-300)))).astype(np.int64)


def grid_of(means: Float[ndarray, "gaussians 3"], bits: int) -> Grid:
    """Cells that all centres lie in.

    Args:
        means: Centres.
        bits: There are 2^bits in each direction.
    """
    corner, highest = _corner_and_extent(means)
    return Grid(corner, max(highest - bits, SMALLEST_CELL), bits)


def _fitting_grid(means: Float[ndarray, "gaussians 3"], wanted: Int64[ndarray, " gaussians"]) -> Grid:
    """Cells that hardly any centre could be counted in coarser ones than."""
    corner, highest = _corner_and_extent(means)
    coarse = int(np.sort(wanted)[int(COARSE * (len(wanted) - 1))])
    exponent = max(int(np.clip(coarse, highest - MAX_BITS, highest - FEWEST_BITS)), SMALLEST_CELL)
    return Grid(corner, exponent, max(highest - exponent, 1))


def _corner_and_extent(means: Float[ndarray, "gaussians 3"]) -> tuple[Float[ndarray, "3"], int]:
    """Lowest corner, in single precision, and the exponent of a power of two that is larger than the extent."""
    corner = np.nextafter(means.min(axis=0).astype(np.float32), np.float32(-np.inf)).astype(np.float64)
    return corner, int(np.frexp(max(float((means - corner).max()), 1e-30))[1])
