"""The order in which Gaussians lie in a packed file: neighbours in space side by side, along a Morton curve."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians

BITS = 21
"""Of each coordinate; three of them fill 63 bits."""


def along_curve(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians in the order of the curve; pictures do not depend on it.

    Args:
        gaussians: On the CPU, means finite.
    """
    return gaussians.select(torch.from_numpy(curve_order(gaussians.means)))


def curve_order(means: Float[Tensor, "gaussians 3"]) -> Int64[np.ndarray, " gaussians"]:
    """Indices in the order of a Morton curve: by the interleaved bits of the coordinates (Morton 1966).

    Args:
        means: Finite.
    """
    points = means.detach().double().numpy()
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1)
    cells = np.minimum((points - low) / span * 2**BITS, 2**BITS - 1).astype(np.uint64)
    codes = np.zeros(len(points), dtype=np.uint64)
    for axis in range(3):
        codes |= _spread(cells[:, axis]) << np.uint64(axis)
    return np.argsort(codes, kind="stable")


def _spread(values: np.ndarray) -> np.ndarray:
    """Each bit of 21 at every third place."""
    steps = (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    )
    for shift, mask in steps:
        values = (values | values << np.uint64(shift)) & np.uint64(mask)
    return values
