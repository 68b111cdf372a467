"""Reads what `adaptive_encode.py` writes."""

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.adaptive_encode import COLUMNS
from nerfstudio_prune.splat_files.adaptive_frame import AdaptiveFrame, Classes
from nerfstudio_prune.splat_files.adaptive_stream import StreamReader
from nerfstudio_prune.splat_files.channels import SHAPE_CHANNELS, from_channels
from nerfstudio_prune.splat_files.packed_container import Header, Section, Sections
from nerfstudio_prune.splat_files.places import decode_places
from nerfstudio_prune.splat_files.steps import Group


def decode_adaptive(header: Header, sections: Sections) -> Gaussians:
    """The Gaussians.

    Args:
        header: What the file says of itself.
        sections: Its sections; those of this layout are taken.

    Raises:
        FileFormatError: If they are damaged.
    """
    count, degree = header.count, header.degree
    head = AdaptiveFrame.from_bytes(sections.take(Section.FRAME, AdaptiveFrame.size(degree)), degree)
    columns = SHAPE_CHANNELS + 3 * (degree + 1) ** 2
    symbols = count * (columns + len(Group) + 4)
    if head.escapes > symbols:
        raise refuse(Section.FRAME.label, f"at most {symbols:,} escapes", f"{head.escapes:,}")
    reader = StreamReader(
        sections.take(Section.TABLES, _number_of_tables(head, degree)),
        sections.take_raw(Section.SYMBOLS),
        sections.take(Section.ESCAPES, 4 * head.escapes) if head.escapes else b"",
        head.lanes,
    )
    alike = np.zeros(count, np.int64)
    lengths = reader.take(alike, 1) + head.length_center
    cells = decode_places(lengths, sections.take_raw(Section.PLACES), head.grid.bits, Section.PLACES.label)
    own: dict[Group, ndarray] = {}
    for group in Group:
        first = group is Group.COLORS
        contexts, number = (alike, 1) if first else (own[Group.COLORS], head.classes[Group.COLORS].count)
        own[group] = _classes(reader.take(contexts, number), head.classes[group])
    means = _means(head, cells, own[Group.POSITIONS], reader)
    channels = np.empty((count, columns), np.float32)
    for group, where in COLUMNS.items():
        exponents = own[group] + head.classes[group].lowest
        for column in range(columns)[where]:
            numbers = reader.take(own[group], head.classes[group].count)
            channels[:, column] = np.ldexp(numbers.astype(np.float64), exponents).clip(-1e30, 1e30)
    reader.finish()
    return from_channels(means, channels, head.frame)


def _number_of_tables(head: AdaptiveFrame, degree: int) -> int:
    """One for each context of each column."""
    counts = {group: own.count for group, own in head.classes.items()}
    columns = {group: len(range(SHAPE_CHANNELS + 3 * (degree + 1) ** 2)[where]) for group, where in COLUMNS.items()}
    columns[Group.POSITIONS] = 3
    classes = 1 + (len(Group) - 1) * counts[Group.COLORS]
    return 1 + classes + sum(counts[group] * columns[group] for group in Group)


def _classes(numbers: Int64[ndarray, " gaussians"], classes: Classes) -> Int64[ndarray, " gaussians"]:
    found = numbers + classes.center - classes.lowest
    if found.min() < 0 or found.max() >= classes.count:
        raise refuse(Section.SYMBOLS.label, f"classes from 0 to {classes.count - 1}", f"{found.min()} to {found.max()}")
    return found


def _means(
    head: AdaptiveFrame, cells: Int64[ndarray, "gaussians 3"], own: Int64[ndarray, " gaussians"], reader: StreamReader
) -> ndarray:
    """The centres, in the middle of their steps."""
    grid, classes = head.grid, head.classes[Group.POSITIONS]
    exponents = own + classes.lowest
    finer = grid.exponent - exponents
    if finer.min() < 0 or finer.max() > 62:
        raise refuse(Section.SYMBOLS.label, "steps of centres within their cells", "others")
    means = np.ldexp(cells.astype(np.float64), grid.exponent) + grid.corner
    for axis in range(3):
        numbers = reader.take(own, classes.count)
        if (numbers < 0).any() or (numbers >> finer).any():
            raise refuse(Section.SYMBOLS.label, "centres within their cells", "others")
        means[:, axis] += np.ldexp(numbers + 0.5, exponents)
    return means.clip(-1e30, 1e30)
