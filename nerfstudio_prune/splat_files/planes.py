"""Numbers in half precision as planes of bytes: first all low ones, then all high ones, column by column, since bytes
of a kind are alike and compress well beside each other."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from nerfstudio_prune.exchange.errors import refuse

LARGEST = 65504.0
"""Magnitude of a number in half precision."""


def encode_planes(values: Float[ndarray, "rows columns"]) -> bytes:
    """Planes of numbers, rounded to half precision; those beyond it become the largest.

    Args:
        values: Finite numbers.
    """
    halves = values.clip(-LARGEST, LARGEST).astype("<f2")
    return np.ascontiguousarray(halves.T).view(np.uint8).reshape(-1, 2).T.tobytes()


def decode_planes(content: bytes, columns: int, section: str) -> Float[ndarray, "rows columns"]:
    """The numbers; undoes `encode_planes`.

    Args:
        content: The planes, of whole rows.
        columns: How many.
        section: What it is called in an error.

    Raises:
        FileFormatError: If a number is not finite.
    """
    pairs = np.frombuffer(content, np.uint8).reshape(2, -1)
    values = np.ascontiguousarray(pairs.T).view("<f2").reshape(columns, -1).T.astype(np.float64)
    if not np.isfinite(values).all():
        raise refuse(section, "finite numbers", "others")
    return values
