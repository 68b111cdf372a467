"""Gaussians as a `.ply` file in single precision: that of the original 3D Gaussian splatting and of `ns-export`.

A row is a Gaussian; its columns are named as in https://github.com/graphdeco-inria/gaussian-splatting. The coefficients
of the harmonics above degree 0 lie channel by channel: all of red, all of green, all of blue.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.raster.gaussians import MAX_SH_DEGREE
from nerfstudio_prune.splat_files.comments import comments_of
from nerfstudio_prune.splat_files.numbers import BYTE, SH_C0, arrays_of, stored_gaussians
from nerfstudio_prune.splat_files.ply_header import Element, columns_of, header_of
from nerfstudio_prune.splat_files.stored import StoredGaussians

VERTEX = "vertex"
MEANS, NORMALS = ("x", "y", "z"), ("nx", "ny", "nz")
DC, RGB = ("f_dc_0", "f_dc_1", "f_dc_2"), ("red", "green", "blue")
SCALES, QUATS = ("scale_0", "scale_1", "scale_2"), ("rot_0", "rot_1", "rot_2", "rot_3")
OPACITY = "opacity"
DEGREES = {3 * ((degree + 1) ** 2 - 1): degree for degree in range(MAX_SH_DEGREE + 1)}
"""Number of columns of harmonics above degree 0 -> degree."""


def rest_names(count: int) -> tuple[str, ...]:
    """Names of the columns of harmonics above degree 0."""
    return tuple(f"f_rest_{i}" for i in range(count))


def decode_ply(rows: dict[str, Any]) -> StoredGaussians:
    """Gaussians of the rows of a file.

    Args:
        rows: Name of an element -> its records.

    Raises:
        FileFormatError: If columns are missing, of another number than some degree has, or hold what is not finite.
    """
    if VERTEX not in rows or len(rows[VERTEX]) == 0:
        raise refuse("element vertex", "at least one Gaussian", "none")
    vertex = rows[VERTEX]
    return stored_gaussians(
        columns_of(vertex, MEANS, "element vertex"),
        columns_of(vertex, SCALES, "element vertex"),
        columns_of(vertex, QUATS, "element vertex"),
        _colours(vertex),
        harmonics_of(columns_of(vertex, rest_columns(vertex, "element vertex"), "element vertex")),
        columns_of(vertex, (OPACITY,), "element vertex")[:, 0],
    )


def rest_columns(rows: Any, section: str) -> tuple[str, ...]:
    """Names of the columns of harmonics, as many as some degree has.

    Args:
        rows: Records.
        section: What they are called in an error.

    Raises:
        FileFormatError: If there are others.
    """
    count = sum(name.startswith("f_rest_") for name in rows.dtype.names)
    if count not in DEGREES:
        raise refuse(section, f"{', '.join(map(str, DEGREES))} columns f_rest_…, for degree 0 to 3", str(count))
    return rest_names(count)


def harmonics_of(channels: Float[np.ndarray, "gaussians columns"]) -> Float[np.ndarray, "gaussians coefficients 3"]:
    """Coefficients whose channels lie side by side, from columns that hold one channel after the other.

    Args:
        channels: 0, 9, 24 or 45 columns.
    """
    return channels.reshape(len(channels), 3, -1).transpose(0, 2, 1)


def channels_of(harmonics: Float[np.ndarray, "gaussians coefficients 3"]) -> Float[np.ndarray, "gaussians columns"]:
    """The inverse of `harmonics_of`.

    Args:
        harmonics: 0, 3, 8 or 15 coefficients of three channels.
    """
    return harmonics.transpose(0, 2, 1).reshape(len(harmonics), 3 * harmonics.shape[1])


def _colours(vertex: Any) -> Float[np.ndarray, "gaussians 3"]:
    """Coefficients of the constant harmonic, from colours where there are none, as `ns-export` can write them."""
    if any(name in vertex.dtype.names for name in DC) or not all(name in vertex.dtype.names for name in RGB):
        return columns_of(vertex, DC, "element vertex")
    if any(vertex.dtype[name] != np.uint8 for name in RGB):
        raise refuse("element vertex", "colours of type uchar", str(vertex.dtype[RGB[0]]))
    return (columns_of(vertex, RGB, "element vertex") / BYTE - 0.5) / SH_C0


def encode_ply(stored: StoredGaussians) -> bytes:
    """The bytes of a file, with zeros for normals, which other programs expect.

    Args:
        stored: What it is to hold.
    """
    arrays = arrays_of(stored.gaussians)
    rest = channels_of(arrays["features_rest"])
    names = (*MEANS, *NORMALS, *DC, *rest_names(rest.shape[1]), OPACITY, *SCALES, *QUATS)
    rows = np.concatenate(
        [
            arrays["means"],
            np.zeros_like(arrays["means"]),
            arrays["features_dc"],
            rest,
            arrays["opacities"][:, None],
            arrays["scales"],
            arrays["quats"],
        ],
        axis=1,
        dtype="<f4",
    )
    element = Element(VERTEX, len(rows), dict.fromkeys(names, "float"))
    return header_of([element], comments_of(stored)) + rows.tobytes()
