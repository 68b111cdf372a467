"""One of the 24 ways in which axes and rotation describe the same Gaussian: the one whose rotation is the smallest.

A Gaussian stays the same when its axes change places, or point the other way, and its rotation makes up for it. The
real part of the smallest rotation is above 0.85, so that the three others say all, and well.
"""

import itertools

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

LARGEST_PART = 0.98
"""Of what the imaginary parts may be together, so that the real one is never zero."""


def _rotations() -> Float[ndarray, "24 4"]:
    """The rotations of a cube as quaternions: sums of units, normalised."""
    found = {}
    for parts in itertools.product((-1, 0, 1), repeat=4):
        used = sum(map(abs, parts))
        if used in (1, 2, 4):
            sign = next(part for part in parts if part)
            found[tuple(sign * part for part in parts)] = None
    quaternions = np.array(list(found), np.float64)
    return quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)


def _axes() -> Int64[ndarray, "24 3"]:
    """Which of the old axes each new one is."""
    w, x, y, z = _ROTATIONS.T
    matrices = np.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        axis=1,
    ).reshape(-1, 3, 3)  # fmt: skip
    return np.abs(matrices).argmax(axis=1)


_ROTATIONS = _rotations()
_AXES = _axes()


def smallest_rotations(
    quats: Float[ndarray, "gaussians 4"],
) -> tuple[Float[ndarray, "gaussians 3"], Int64[ndarray, "gaussians 3"]]:
    """Imaginary parts of the smallest rotations, and which axis each of the new ones was.

    Args:
        quats: Quaternions w x y z of any length; zero is no rotation.
    """
    lengths = np.linalg.norm(quats, axis=1, keepdims=True)
    unit = np.where(lengths > 0, quats / np.maximum(lengths, 1e-30), [1.0, 0.0, 0.0, 0.0])
    # The real part of the product with each of the 24.
    real = unit @ (_ROTATIONS * [1, -1, -1, -1]).T
    best = np.abs(real).argmax(axis=1)
    w, x, y, z = unit.T
    a, b, c, d = _ROTATIONS[best].T
    parts = np.stack(
        [w * b + x * a + y * d - z * c, w * c - x * d + y * a + z * b, w * d + x * c - y * b + z * a], axis=1
    )
    sign = np.where(real[np.arange(len(best)), best] < 0, -1.0, 1.0)
    return parts * sign[:, None], _AXES[best]


def quaternions_of(parts: Float[ndarray, "gaussians 3"]) -> Float[ndarray, "gaussians 4"]:
    """Unit quaternions of imaginary parts, which are shortened where they are too long.

    Args:
        parts: Imaginary parts.
    """
    lengths = np.linalg.norm(parts, axis=1, keepdims=True)
    short = parts * np.minimum(1, LARGEST_PART / np.maximum(lengths, 1e-30))
    return np.concatenate([np.sqrt(1 - np.square(short).sum(axis=1, keepdims=True)), short], axis=1)
