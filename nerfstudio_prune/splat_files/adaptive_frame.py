"""What stands in the section `frame`: grid, means and transforms, classes and counts."""

import math
import struct
from dataclasses import astuple, dataclass

import numpy as np

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.splat_files.channels import Frame
from nerfstudio_prune.splat_files.morton import MAX_BITS
from nerfstudio_prune.splat_files.packed_container import Section
from nerfstudio_prune.splat_files.rans import MAX_LANES
from nerfstudio_prune.splat_files.steps import Grid, Group

_START = struct.Struct("<3fbBfHIB7f")
_CLASSES = struct.Struct("<bBb")
MAX_CLASSES = 64
MAX_EXPONENT = 126
LARGEST = 1e30
"""Magnitude of a number."""


@dataclass(frozen=True)
class Classes:
    """The exponents of a group's steps."""

    lowest: int
    count: int
    """Of consecutive ones, from the lowest on."""
    center: int
    """What they are stored as differences from."""

    @classmethod
    def of(cls, exponents: np.ndarray) -> "Classes":
        """Those of all Gaussians."""
        lowest = int(exponents.min())
        return cls(lowest, int(exponents.max()) - lowest + 1, round(float(np.median(exponents))))


@dataclass(frozen=True, eq=False)
class AdaptiveFrame:
    """All that the columns are read by."""

    grid: Grid
    frame: Frame
    classes: dict[Group, Classes]
    lanes: int
    escapes: int
    """Numbers without a symbol of their own."""
    length_center: int
    """What the bits of differences of places are stored as differences from."""

    @staticmethod
    def size(degree: int) -> int:
        """Bytes.

        Args:
            degree: Of the spherical harmonics.
        """
        coefficients = (degree + 1) ** 2
        return _START.size + len(Group) * _CLASSES.size + 2 * (3 * coefficients + coefficients**2 + 9)

    def to_bytes(self) -> bytes:
        """As it is written."""
        grid, frame = self.grid, self.frame
        start = _START.pack(
            *grid.corner, grid.exponent, grid.bits, frame.smallest_scale, self.lanes, self.escapes,
            self.length_center, *frame.shape_means,
        )  # fmt: skip
        classes = b"".join(_CLASSES.pack(*astuple(self.classes[group])) for group in Group)
        arrays = (frame.color_means, frame.harmonics, frame.colors)
        return start + classes + b"".join(array.astype("<f2").tobytes() for array in arrays)

    @classmethod
    def from_bytes(cls, content: bytes, degree: int) -> "AdaptiveFrame":
        """Reads it.

        Args:
            content: As long as `size` says.
            degree: Of the spherical harmonics.

        Raises:
            FileFormatError: If a number is beyond what there can be.
        """
        *corner, exponent, bits, smallest, lanes, escapes, length_center = _START.unpack_from(content)[:9]
        shape_means = _START.unpack_from(content)[9:]
        classes = {}
        for group in Group:
            classes[group] = Classes(*_CLASSES.unpack_from(content, _START.size + group * _CLASSES.size))
        halves = np.frombuffer(content, "<f2", offset=_START.size + len(Group) * _CLASSES.size).astype(np.float64)
        coefficients = (degree + 1) ** 2
        color_means, harmonics, colors = np.split(halves, np.cumsum([3 * coefficients, coefficients**2]))
        checks = {
            "finite numbers": all(map(_is_finite, (*corner, smallest, *shape_means, *halves.tolist()))),
            "a smallest size above 0": smallest > 0,
            f"1 to {MAX_BITS} bits of a place": 1 <= bits <= MAX_BITS,
            f"1 to {MAX_LANES} lanes": 1 <= lanes <= MAX_LANES,
            f"cells of 2^-{MAX_EXPONENT} to 2^60": -MAX_EXPONENT <= exponent <= 60,
            "classes": all(
                1 <= own.count <= MAX_CLASSES and abs(own.lowest) <= MAX_EXPONENT for own in classes.values()
            ),
        }
        for expected, holds in checks.items():
            if not holds:
                raise refuse(Section.FRAME.label, expected, "something else")
        return cls(
            Grid(np.array(corner), exponent, bits),
            Frame(
                smallest,
                np.array(shape_means),
                color_means.reshape(-1, 3),
                harmonics.reshape(coefficients, coefficients),
                colors.reshape(3, 3),
            ),
            classes,
            lanes,
            escapes,
            length_center,
        )


def _is_finite(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= LARGEST
