"""Gaussians as PlayCanvas' compressed `.ply`: 16 bytes each, in chunks of 256 with ranges of their own.

The format is that of https://github.com/playcanvas/splat-transform. Positions and logarithms of scales take 11, 10 and
11 bits within the chunk's range, the constant colour and the opacity 8 bits each, the three smallest components of the
quaternion 10 bits each beside the index of the largest. Harmonics above degree 0 take a byte each, of ±4.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8, UInt32

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.splat_files.comments import comments_of
from nerfstudio_prune.splat_files.numbers import (
    BYTE,
    SH_C0,
    arrays_of,
    bytes_of_logit,
    codes_of,
    logit_of_bytes,
    stored_gaussians,
)
from nerfstudio_prune.splat_files.ply import VERTEX, channels_of, harmonics_of, rest_columns, rest_names
from nerfstudio_prune.splat_files.ply_header import Element, PlyHeader, columns_of, header_of
from nerfstudio_prune.splat_files.rotations import SQRT_HALF, from_smallest_three, smallest_three, units
from nerfstudio_prune.splat_files.stored import StoredGaussians

CHUNK, HARMONICS = "chunk", "sh"
CHUNK_SIZE = 256
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
RANGES = {
    "": ("x", "y", "z"),
    "scale": ("scale_x", "scale_y", "scale_z"),
    "colour": ("r", "g", "b"),
}
"""What has a range in each chunk -> names of its three axes."""
VECTOR_BITS = (11, 10, 11)
BYTES = (8, 8, 8, 8)
ROTATION_BITS = (2, 10, 10, 10)
SMALLEST_RANGE = 1e-5
"""Ranges below it are one value."""
SCALE_LIMIT = 20.0
"""Of the logarithm of a scale."""
HARMONICS_RANGE = 8.0
"""From the smallest to the largest coefficient that has a code."""


def is_compressed(header: PlyHeader) -> bool:
    """Whether a `.ply` file is of this kind.

    Args:
        header: Its header.
    """
    return CHUNK in header.elements


def decode_compressed_ply(rows: dict[str, Any]) -> StoredGaussians:
    """Gaussians of the rows of a file.

    Args:
        rows: Name of an element -> its records.

    Raises:
        FileFormatError: If elements or columns are missing or of other types, do not fit each other, or hold what is
            not finite.
    """
    vertex = rows.get(VERTEX)
    if vertex is None or len(vertex) == 0:
        raise refuse("element vertex", "at least one Gaussian", "none")
    chunks, count = rows[CHUNK], len(vertex)
    if len(chunks) != -(-count // CHUNK_SIZE):
        raise refuse("element chunk", f"{-(-count // CHUNK_SIZE):,} rows for {count:,} Gaussians", f"{len(chunks):,}")
    words = {name: _word(vertex, name) for name in PACKED}
    rotation = _fields(words["packed_rotation"], ROTATION_BITS)
    colour = _fields(words["packed_color"], BYTES)
    return stored_gaussians(
        _within(chunks, "", _fractions(words["packed_position"])),
        _within(chunks, "scale", _fractions(words["packed_scale"])),
        from_smallest_three(rotation[:, 0].astype(np.int64), (rotation[:, 1:] / np.float32(1023) - 0.5) / SQRT_HALF),
        (_colours(chunks, colour[:, :3] / np.float32(BYTE)) - 0.5) / SH_C0,
        harmonics_of(_harmonics(rows.get(HARMONICS), count)),
        logit_of_bytes(colour[:, 3].astype(np.uint8)),
    )


def _word(vertex: Any, name: str) -> UInt32[np.ndarray, " gaussians"]:
    if name not in vertex.dtype.names or vertex.dtype[name] != np.uint32:
        raise refuse("element vertex", f"a property {name} of type uint", "none")
    return np.ascontiguousarray(vertex[name])


def _fields(words: UInt32[np.ndarray, " gaussians"], bits: tuple[int, ...]) -> UInt32[np.ndarray, "gaussians fields"]:
    """Numbers that lie in each word, the first in its highest bits."""
    shifts = np.cumsum(np.array(bits)[::-1])[::-1] - np.array(bits)
    masks = (1 << np.array(bits)) - 1
    return (words[:, None] >> shifts.astype(np.uint32)) & masks.astype(np.uint32)


def _words(fields: Float[np.ndarray, "gaussians fields"], bits: tuple[int, ...]) -> UInt32[np.ndarray, " gaussians"]:
    """The inverse of `_fields`."""
    words = np.zeros(len(fields), dtype=np.uint32)
    for i, width in enumerate(bits):
        words = (words << np.uint32(width)) | fields[:, i].astype(np.uint32)
    return words


def _fractions(words: UInt32[np.ndarray, " gaussians"]) -> Float[np.ndarray, "gaussians 3"]:
    last = (1 << np.array(VECTOR_BITS)) - 1
    return (_fields(words, VECTOR_BITS) / last).astype(np.float32)


def _range(chunks: Any, of: str) -> tuple[Float[np.ndarray, "chunks 3"], Float[np.ndarray, "chunks 3"]]:
    """Smallest and largest value in each chunk."""
    low, high = (tuple(f"{end}_{axis}" for axis in RANGES[of]) for end in ("min", "max"))
    return columns_of(chunks, low, "element chunk"), columns_of(chunks, high, "element chunk")


def _within(chunks: Any, of: str, fractions: Float[np.ndarray, "gaussians 3"]) -> Float[np.ndarray, "gaussians 3"]:
    """Values between the ends of the range of each Gaussian's chunk."""
    low, high = (np.repeat(ends, CHUNK_SIZE, axis=0)[: len(fractions)] for ends in _range(chunks, of))
    with np.errstate(over="ignore", invalid="ignore"):
        return low * (1 - fractions) + high * fractions


def _colours(chunks: Any, fractions: Float[np.ndarray, "gaussians 3"]) -> Float[np.ndarray, "gaussians 3"]:
    """Colours; files of the first versions have no ranges of them."""
    return _within(chunks, "colour", fractions) if "min_r" in chunks.dtype.names else fractions


def _harmonics(rows: Any, count: int) -> Float[np.ndarray, "gaussians columns"]:
    if rows is None:
        return np.zeros((count, 0), dtype=np.float32)
    names = rest_columns(rows, "element sh")
    if len(rows) != count or any(rows.dtype[name] != np.uint8 for name in rows.dtype.names):
        raise refuse("element sh", f"{count:,} rows of type uchar", f"{len(rows):,} rows of {rows.dtype}")
    codes = columns_of(rows, names, "element sh")
    middles = np.where(codes == 0, 0, np.where(codes == BYTE, 1, (codes + 0.5) / (BYTE + 1)))
    return ((middles - 0.5) * HARMONICS_RANGE).astype(np.float32)


def encode_compressed_ply(stored: StoredGaussians) -> bytes:
    """The bytes of a file. The ranges of the chunks are small where neighbours in space follow each other.

    Args:
        stored: What it is to hold, in the order of the file.
    """
    arrays = arrays_of(stored.gaussians)
    scales = np.clip(arrays["scales"], -SCALE_LIMIT, SCALE_LIMIT)
    colours = arrays["features_dc"] * np.float32(SH_C0) + np.float32(0.5)
    largest, others = smallest_three(units(arrays["quats"]))
    ranges, packed = {}, {}
    for of, values in (("", arrays["means"]), ("scale", scales), ("colour", colours)):
        ranges[of], packed[of] = _divided(values)
    rotation = np.column_stack([largest.astype(np.float32), codes_of(others * SQRT_HALF, 10, low=-0.5)])
    colour = np.column_stack([codes_of(packed["colour"], 8), bytes_of_logit(arrays["opacities"]).astype(np.float32)])
    words = [
        _words(_vector_codes(packed[""]), VECTOR_BITS),
        _words(rotation, ROTATION_BITS),
        _words(_vector_codes(packed["scale"]), VECTOR_BITS),
        _words(colour, BYTES),
    ]
    count, chunks = len(scales), len(ranges[""])
    names = [f"{end}_{axis}" for axes in RANGES.values() for end in ("min", "max") for axis in axes]
    elements = [
        Element(CHUNK, chunks, dict.fromkeys(names, "float")),
        Element(VERTEX, count, dict.fromkeys(PACKED, "uint")),
    ]
    body = [np.concatenate(list(ranges.values()), axis=1, dtype="<f4"), np.column_stack(words).astype("<u4")]
    rest = channels_of(arrays["features_rest"])
    if rest.shape[1]:
        elements.append(Element(HARMONICS, count, dict.fromkeys(rest_names(rest.shape[1]), "uchar")))
        body.append(_harmonics_codes(rest))
    return header_of(elements, comments_of(stored)) + b"".join(part.tobytes() for part in body)


def _divided(
    values: Float[np.ndarray, "gaussians 3"],
) -> tuple[Float[np.ndarray, "chunks 6"], Float[np.ndarray, "gaussians 3"]]:
    """Smallest and largest value in each chunk, and where each value lies between them, in [0, 1]."""
    starts = np.arange(0, len(values), CHUNK_SIZE)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    own_low, own_high = (np.repeat(ends, CHUNK_SIZE, axis=0)[: len(values)].astype(np.float64) for ends in (low, high))
    span = own_high - own_low
    fractions = np.where(span < SMALLEST_RANGE, 0, (values - own_low) / np.where(span < SMALLEST_RANGE, 1, span))
    return np.concatenate([low, high], axis=1), fractions


def _vector_codes(fractions: Float[np.ndarray, "gaussians 3"]) -> Float[np.ndarray, "gaussians 3"]:
    return np.column_stack([codes_of(fractions[:, i], bits) for i, bits in enumerate(VECTOR_BITS)])


def _harmonics_codes(coefficients: Float[np.ndarray, "gaussians columns"]) -> UInt8[np.ndarray, "gaussians columns"]:
    """Each code stands for the middle of its 256th part of the range; the first and the last for the ends."""
    inside = np.clip(coefficients / HARMONICS_RANGE, -0.5, 0.5)
    parts = np.floor((inside + 0.5) * (BYTE + 1))
    return np.clip(parts, 0, BYTE).astype(np.uint8)
