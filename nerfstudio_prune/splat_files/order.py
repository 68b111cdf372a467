"""The order in which Gaussians lie in a packed file: neighbours in space side by side, along a Morton curve."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.morton import MAX_BITS, morton_codes


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
    cells = np.minimum((points - low) / span * 2**MAX_BITS, 2**MAX_BITS - 1).astype(np.int64)
    return np.argsort(morton_codes(cells), kind="stable")
