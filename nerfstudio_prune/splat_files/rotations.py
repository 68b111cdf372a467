"""A rotation by the three smallest components of its quaternion, which lie within ±1/√2; the largest follows from them.

q and -q are the same rotation, so that the largest component is taken to be positive.
"""

import numpy as np
from jaxtyping import Float, Int

SQRT_HALF = 0.7071067811865476
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Largest component -> the others, in order."""


def units(quats: Float[np.ndarray, "gaussians 4"]) -> Float[np.ndarray, "gaussians 4"]:
    """Quaternions of length one.

    Args:
        quats: w x y z, of any length; of length zero for no rotation.
    """
    # By the largest component first: the square of a very long or short one would leave the range of the numbers.
    peak = np.abs(quats).max(axis=1, keepdims=True)
    scaled = np.where(peak > 0, quats / np.where(peak > 0, peak, 1), np.array([1, 0, 0, 0], dtype=quats.dtype))
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def smallest_three(
    quats: Float[np.ndarray, "gaussians 4"],
) -> tuple[Int[np.ndarray, " gaussians"], Float[np.ndarray, "gaussians 3"]]:
    """Which component is the largest, and the others.

    Args:
        quats: Of length one, in any order of the components.

    Returns:
        Index of the largest, and the others in their order, in [-1/√2, 1/√2].
    """
    largest = np.abs(quats).argmax(axis=1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], axis=1) < 0, -1, 1)
    return largest, np.take_along_axis(quats * sign, OTHERS[largest], axis=1).astype(np.float32)


def from_smallest_three(
    largest: Int[np.ndarray, " gaussians"], others: Float[np.ndarray, "gaussians 3"]
) -> Float[np.ndarray, "gaussians 4"]:
    """Quaternions whose largest component is positive; of length one where the others leave room for it.

    Args:
        largest: Index of the largest component.
        others: The others, in their order.
    """
    quats = np.empty((len(others), 4), dtype=np.float32)
    np.put_along_axis(quats, OTHERS[largest], others.astype(np.float32), axis=1)
    room = 1 - np.square(others, dtype=np.float32).sum(axis=1)
    np.put_along_axis(quats, largest[:, None], np.sqrt(np.maximum(room, 0))[:, None], axis=1)
    return quats
