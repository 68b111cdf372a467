"""The order of the Morton curve: neighbours on it are mostly neighbours in space (Morton 1966)."""

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

MAX_BITS = 20
"""Of a coordinate, so that three of them fit into 63 bits."""
_SPREAD = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)
"""Shift and mask of each step that moves the bits of a coordinate apart by two."""


def morton_codes(cells: Int64[ndarray, "points 3"]) -> Int64[ndarray, " points"]:
    """Interleaves the bits of three coordinates, the lowest bit of x first.

    Args:
        cells: Coordinates in [0, 2^`MAX_BITS`).
    """
    codes = np.zeros(len(cells), np.int64)
    for axis in range(3):
        value = cells[:, axis].astype(np.int64)
        for shift, mask in _SPREAD:
            value = (value | value << shift) & mask
        codes |= value << axis
    return codes


def cells_of(codes: Int64[ndarray, " points"]) -> Int64[ndarray, "points 3"]:
    """The coordinates of Morton codes; undoes `morton_codes`.

    Args:
        codes: Codes in [0, 2^(3 · `MAX_BITS`)).
    """
    cells = np.empty((len(codes), 3), np.int64)
    masks = [0x1FFFFF, *(mask for _, mask in _SPREAD)]
    for axis in range(3):
        value = codes >> axis & masks[-1]
        for shift, mask in zip((2, 4, 8, 16, 32), reversed(masks[:-1]), strict=True):
            value = (value | value >> shift) & mask
        cells[:, axis] = value
    return cells
