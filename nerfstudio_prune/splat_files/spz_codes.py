"""The numbers of an SPZ file: from bytes to parameters, and back.

The format is that of Niantic, https://github.com/nianticlabs/spz. It stores a scene with its axes right, up and back;
the ones of a `.ply` file are taken as right, down and front, as all programs do that convert the one into the other. So
y and z change their signs, and with them components of the quaternions and harmonics.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.splat_files.numbers import BYTE, arrays_of, bytes_of_logit, logit_of_bytes, stored_gaussians
from nerfstudio_prune.splat_files.rotations import SQRT_HALF, from_smallest_three, smallest_three, units
from nerfstudio_prune.splat_files.spz_header import SpzHeader
from nerfstudio_prune.splat_files.stored import StoredGaussians

COLOUR_SCALE = 0.15
"""Code of a constant coefficient: 0.5 + 0.15 of it, so that colours beyond 0 and 1 have one too."""
SCALE_STEPS, SCALE_LOW = 16.0, -10.0
"""Steps of the logarithm of a scale for each unit, and the smallest one."""
HARMONICS_BITS = (5, 4)
"""Bits that are left of coefficients of degree 1, and of higher ones: fewer compress better."""
FIRST_DEGREE = 3
"""Coefficients of degree 1."""
MAX_BITS = 20
"""Bits behind the point of a position, as many as are of use: steps of 1e-6."""
STANDARD_BITS = 12
FINE, SHARE = 0.1, 0.01
"""Positions have steps of at most a tenth of the largest standard deviation of 99 % of the Gaussians."""


def decode_numbers(header: SpzHeader, streams: Mapping[str, UInt8[np.ndarray, " bytes"]]) -> StoredGaussians:
    """Gaussians of the streams of a file.

    Args:
        header: What the file says of itself.
        streams: Name -> bytes, as many as the header says.

    Raises:
        FileFormatError: If a number is not finite, which the positions of version 1 can be.
    """
    count = header.count
    flips = Flips(header.axes)
    raw = streams["rotations"].reshape(count, -1)
    xyzw = (_from_first_three if header.version < 3 else _from_sign_and_size)(raw)
    xyzw[:, :3] *= flips.rotation
    harmonics = (streams["harmonics"].reshape(count, -1, 3).astype(np.float32) - 128) / 128
    return stored_gaussians(
        _positions(header, streams["positions"]) * flips.position,
        streams["scales"].reshape(count, 3) / np.float32(SCALE_STEPS) + np.float32(SCALE_LOW),
        xyzw[:, [3, 0, 1, 2]],
        (streams["colours"].reshape(count, 3) / np.float32(BYTE) - np.float32(0.5)) / np.float32(COLOUR_SCALE),
        harmonics * flips.harmonics[: harmonics.shape[1], None],
        logit_of_bytes(streams["opacities"]),
    )


class Flips:
    """Signs that bring a scene with other directions of its axes to those of a `.ply` file."""

    def __init__(self, axes: tuple[int, int, int]) -> None:
        """Signs of one file.

        Args:
            axes: 1 or -1 for each axis.
        """
        x, y, z = axes
        self.position = np.array([x, y, z], dtype=np.float32)
        self.rotation = np.array([y * z, x * z, x * y], dtype=np.float32)
        first, second = (y, z, x), (x * y, y * z, 1, x * z, 1)
        self.harmonics = np.array([*first, *second, y, x * y * z, y, z, x, z, x], dtype=np.float32)


def _positions(header: SpzHeader, stream: UInt8[np.ndarray, " bytes"]) -> Float32[np.ndarray, "gaussians 3"]:
    if header.version == 1:
        return stream.view("<f2").astype(np.float32).reshape(-1, 3)
    low, middle, high = (stream[i::3].astype(np.int32) for i in range(3))
    signed = ((high << 24) | (middle << 16) | (low << 8)) >> 8
    return (signed * np.float32(2.0**-header.fractional_bits)).astype(np.float32).reshape(-1, 3)


def _from_first_three(codes: UInt8[np.ndarray, "gaussians 3"]) -> Float32[np.ndarray, "gaussians 4"]:
    """x y z w of versions 1 and 2: three components in a byte each, the fourth not negative."""
    xyz = codes / np.float32(127.5) - 1
    w = np.sqrt(np.maximum(1 - np.square(xyz).sum(axis=1, keepdims=True), 0))
    return np.concatenate([xyz, w], axis=1)


def _from_sign_and_size(codes: UInt8[np.ndarray, "gaussians 4"]) -> Float32[np.ndarray, "gaussians 4"]:
    """x y z w of versions 3 and 4: index of the largest component, sign and nine bits of each of the others."""
    words = np.ascontiguousarray(codes).view("<u4")[:, 0]
    parts = np.stack([words >> 20, words >> 10, words], axis=1) & 0x3FF
    sizes = (parts & 0x1FF).astype(np.float32) * np.float32(SQRT_HALF / 511)
    return from_smallest_three((words >> 30).astype(np.int64), np.where(parts & 0x200, -sizes, sizes))


def encode_numbers(stored: StoredGaussians) -> tuple[SpzHeader, dict[str, bytes]]:
    """Header and streams of a file of version 3.

    Args:
        stored: What it is to hold.

    Raises:
        FileFormatError: If a Gaussian is too far away for the format.
    """
    arrays = arrays_of(stored.gaussians)
    bits = fractional_bits(arrays["means"], arrays["scales"])
    header = SpzHeader(3, len(stored.gaussians), stored.gaussians.sh_degree, bits, bool(stored.antialiased))
    flips = Flips(header.axes)
    positions = np.rint(arrays["means"].astype(np.float64) * flips.position * 2.0**bits).astype(np.int32)
    xyzw = units(arrays["quats"])[:, [1, 2, 3, 0]] * np.append(flips.rotation, np.float32(1))
    harmonics = arrays["features_rest"] * flips.harmonics[: arrays["features_rest"].shape[1], None]
    streams = {
        "positions": _three_bytes(positions),
        "opacities": bytes_of_logit(arrays["opacities"]),
        "colours": _bytes(arrays["features_dc"], low=-0.5 / COLOUR_SCALE, steps=COLOUR_SCALE * BYTE),
        "scales": _bytes(arrays["scales"], low=SCALE_LOW, steps=SCALE_STEPS),
        "rotations": _to_sign_and_size(xyzw),
        "harmonics": _harmonics_codes(harmonics),
    }
    return header, {name: stream.tobytes() for name, stream in streams.items()}


def fractional_bits(means: Float[np.ndarray, "gaussians 3"], scales: Float[np.ndarray, "gaussians 3"]) -> int:
    """Bits behind the point of a position: twelve, as other programs take, more where Gaussians are so small that it
    would show, and as few as the farthest position asks for.

    Args:
        means: Positions.
        scales: Logarithms of the standard deviations.

    Raises:
        FileFormatError: If a position has no place in 24 bits.
    """
    farthest = float(np.abs(means).max())
    room = 23 - int(np.ceil(np.log2(farthest + 1e-6))) if farthest < 2**23 - 1 else -1
    while room > 0 and np.rint(farthest * 2.0**room) > 2**23 - 1:
        room -= 1
    if room < 0:
        raise refuse("positions", "at most 8,388,606 units from the origin, as far as 24 bits go", f"{farthest:g}")
    smallest = float(np.quantile(scales.max(axis=1), SHARE))
    wanted = int(np.ceil(-np.log2(FINE) - smallest / np.log(2.0)))
    return min(room, MAX_BITS, max(wanted, STANDARD_BITS))


def _bytes(values: Float[np.ndarray, "*shape"], low: float, steps: float) -> UInt8[np.ndarray, "*shape"]:
    """Codes of so many steps for each unit from `low` on; what lies outside goes to the first or the last."""
    inside = np.clip(values, low, low + BYTE / steps)
    return np.rint((inside - low) * steps).astype(np.uint8)


def _three_bytes(values: Int32[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    return np.stack([values, values >> 8, values >> 16], axis=-1).astype(np.uint8)


def _to_sign_and_size(xyzw: Float[np.ndarray, "gaussians 4"]) -> np.ndarray:
    """The inverse of `_from_sign_and_size`."""
    largest, others = smallest_three(xyzw)
    parts = np.minimum(np.rint(np.abs(others) * (511 / SQRT_HALF)), 511).astype(np.uint32)
    parts |= (others < 0).astype(np.uint32) << 9
    words = largest.astype(np.uint32) << 30 | parts[:, 0] << 20 | parts[:, 1] << 10 | parts[:, 2]
    return words.astype("<u4")


def _harmonics_codes(harmonics: Float[np.ndarray, "gaussians coefficients 3"]) -> np.ndarray:
    """Codes around 128, to the nearest of those whose lower bits are zero."""
    codes = np.empty(harmonics.shape, dtype=np.uint8)
    inside = np.clip(harmonics, -1, 1)
    for part, bits in zip((slice(FIRST_DEGREE), slice(FIRST_DEGREE, None)), HARMONICS_BITS, strict=True):
        step = 2 ** (8 - bits)
        nearest = np.floor((np.rint(inside[:, part] * 128) + 128 + step // 2) / step) * step
        codes[:, part] = np.clip(nearest, 0, BYTE)
    return codes
