"""Cells in the order of the Morton curve, as the differences of their codes.

A difference d is its number of bits, which the entropy coder gets, and the bits below its highest one, which are nearly
random and stand one behind the other as they are.
"""

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.splat_files.morton import cells_of, morton_codes


def in_order(cells: Int64[ndarray, "points 3"]) -> Int64[ndarray, " points"]:
    """Indices of points along the curve; those of one cell stay in their order.

    Args:
        cells: Coordinates in [0, 2^20).
    """
    return np.argsort(morton_codes(cells), kind="stable")


def encode_places(cells: Int64[ndarray, "points 3"]) -> tuple[Int64[ndarray, " points"], bytes]:
    """Bits of each difference, and what is below the highest ones.

    Args:
        cells: Coordinates in [0, 2^20), in the order of the curve.
    """
    differences = np.diff(morton_codes(cells), prepend=0)
    lengths = _bit_lengths(differences)
    most = int(lengths.max())
    shifts = lengths[:, None] - 2 - np.arange(max(most - 1, 0))
    bits = (differences[:, None] >> np.maximum(shifts, 0) & 1).astype(np.uint8)
    return lengths, np.packbits(bits[shifts >= 0]).tobytes()


def decode_places(lengths: Int64[ndarray, " points"], content: bytes, bits: int, section: str) -> ndarray:
    """The cells, [points, 3]; undoes `encode_places`.

    Args:
        lengths: Bits of each difference.
        content: What is below the highest ones.
        bits: Of a coordinate, at most 20.
        section: What it is called in an error.

    Raises:
        FileFormatError: If a difference or a cell is beyond the grid, or there are not as many bits as they take.
    """
    if lengths.min() < 0 or lengths.max() > 3 * bits:
        raise refuse(section, f"differences of 0 to {3 * bits} bits", f"{lengths.min()} to {lengths.max()}")
    rests = np.maximum(lengths - 1, 0)
    total = int(rests.sum())
    if len(content) != -(-total // 8):
        raise refuse(section, f"{-(-total // 8):,} bytes for {total:,} bits", f"{len(content):,}")
    stream = np.unpackbits(np.frombuffer(content, np.uint8))
    if stream[total:].any():
        raise refuse(section, "zeros behind the last bit", "something else")
    starts = np.cumsum(rests) - rests
    values = (lengths > 0).astype(np.int64)
    for i in range(int(rests.max())):
        own = np.flatnonzero(rests > i)
        values[own] = values[own] << 1 | stream[starts[own] + i]
    # A difference is below 2^60, so that a sum is seen to be too large before it can wrap around.
    codes = np.cumsum(values)
    if (codes < 0).any() or (codes >> 3 * bits).any():
        raise refuse(section, f"cells within 2^{bits} in each direction", "cells beyond")
    return cells_of(codes)


def _bit_lengths(values: Int64[ndarray, " values"]) -> Int64[ndarray, " values"]:
    """Bits of numbers that are not negative, exactly: of halves that a double holds."""
    high = values >> 30
    lengths = np.frexp(np.where(high > 0, high, values).astype(np.float64))[1]
    return (lengths + np.where(high > 0, 30, 0)).astype(np.int64)
