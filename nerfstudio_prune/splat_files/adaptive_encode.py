"""A scene as the sections of the adaptive layout: every number rounded as coarsely as the pictures allow.

Gaussians stand in the order of the Morton curve. One stream of symbols holds, column by column: the bits of the
differences of places; the classes of the groups, those after the first with the class of the colours as context; the
centres within their cells; shapes and colours, with the class of their group as context.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.adaptive_frame import AdaptiveFrame, Classes
from nerfstudio_prune.splat_files.adaptive_stream import StreamWriter
from nerfstudio_prune.splat_files.channels import COLORS, OPACITIES, ROTATIONS, SCALES, frame_of, to_channels
from nerfstudio_prune.splat_files.evidence import Evidence
from nerfstudio_prune.splat_files.packed_container import Section
from nerfstudio_prune.splat_files.places import encode_places, in_order
from nerfstudio_prune.splat_files.steps import Grid, Group, choose_steps

LARGEST = 2**30
"""Magnitude of a number of steps."""
COLUMNS = {
    Group.SCALES: SCALES,
    Group.ROTATIONS: ROTATIONS,
    Group.OPACITIES: OPACITIES,
    Group.COLORS: COLORS,
}
"""Columns of `to_channels` of each group, in the order in which they are written."""


def encode_adaptive(
    gaussians: Gaussians, evidence: Evidence, budget: float, position_bits: int | None
) -> Mapping[Section, tuple[bool, bytes]]:
    """The sections, with whether each is compressed already.

    Args:
        gaussians: On the CPU, finite.
        evidence: What errors do.
        budget: See `choose_steps`.
        position_bits: The same.
    """
    steps = choose_steps(gaussians, evidence, budget, position_bits)
    frame = frame_of(gaussians, evidence)
    grid = steps.grid
    offsets = gaussians.means.double().numpy() - grid.corner
    cells = cells_in(gaussians, grid)
    order = in_order(cells)
    cells, offsets = cells[order], offsets[order]
    exponents = {group: values[order] for group, values in steps.exponents.items()}
    classes = {group: Classes.of(values) for group, values in exponents.items()}
    channels = to_channels(gaussians.select(torch.from_numpy(order)), frame)

    writer, alike = StreamWriter(), np.zeros(len(order), np.int64)
    lengths, rests = encode_places(cells)
    center = int(np.median(lengths))
    writer.add(lengths - center, alike, 1)
    own = {group: exponents[group] - classes[group].lowest for group in Group}
    for group in Group:
        first = group is Group.COLORS
        contexts, count = (alike, 1) if first else (own[Group.COLORS], classes[Group.COLORS].count)
        writer.add(exponents[group] - classes[group].center, contexts, count)
    corners = np.ldexp(cells.astype(np.float64), grid.exponent)
    within = np.floor(np.ldexp(offsets - corners, -exponents[Group.POSITIONS][:, None]))
    limits = np.int64(1) << grid.exponent - exponents[Group.POSITIONS]
    for axis in range(3):
        numbers = within[:, axis].astype(np.int64).clip(0, limits - 1)
        writer.add(numbers, own[Group.POSITIONS], classes[Group.POSITIONS].count)
    for group, columns in COLUMNS.items():
        rounded = _rounded(channels[:, columns], exponents[group])
        for numbers in rounded.T:
            writer.add(numbers, own[group], classes[group].count)
    lanes, models, symbols, escapes = writer.finish()
    head = AdaptiveFrame(grid, frame, classes, lanes, len(escapes) // 4, center)
    found = {
        Section.FRAME: (False, head.to_bytes()),
        Section.TABLES: (False, models),
        Section.PLACES: (True, rests),
        Section.SYMBOLS: (True, symbols),
    }
    return found | ({Section.ESCAPES: (False, escapes)} if escapes else {})


def cells_in(gaussians: Gaussians, grid: Grid) -> Int64[ndarray, "gaussians 3"]:
    """Cells of a grid that the centres of Gaussians lie in.

    Args:
        gaussians: On the CPU, finite.
        grid: The grid.
    """
    offsets = gaussians.means.double().numpy() - grid.corner
    return np.floor(np.ldexp(offsets, -grid.exponent)).astype(np.int64).clip(0, (1 << grid.bits) - 1)


def _rounded(
    values: Float[ndarray, "gaussians columns"], exponents: Int64[ndarray, " gaussians"]
) -> Int64[ndarray, "gaussians columns"]:
    return np.rint(np.ldexp(values, -exponents[:, None])).clip(-LARGEST, LARGEST).astype(np.int64)
