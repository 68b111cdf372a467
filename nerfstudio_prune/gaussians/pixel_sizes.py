"""What a pixel covers at each Gaussian: below that, a Gaussian is seen as large as a pixel."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from nerfstudio_prune.raster.interface import View

SPACING_NEIGHBOUR = 3
"""Which neighbour's distance is taken for a pixel."""
SPEAKERS = 12
"""Gaussians whose distances the median is of."""
SPEAKS_FOR = 20
"""Gaussians around each of these, itself included."""


def spacings(means: Float[Tensor, "gaussians 3"]) -> Float[Tensor, " gaussians"]:
    """How far apart Gaussians are around each of them: what stands for a pixel where no cameras are known.

    Training places Gaussians about as densely as pixels can tell them apart, and leaves many far smaller than that.

    Args:
        means: Centres, in world units.

    Returns:
        Distance to the third neighbour, its median over the some 250 Gaussians around; world units, in float64.
    """
    points = means.detach().cpu().double().numpy()
    if len(points) < 2:
        return torch.zeros(len(points), dtype=torch.float64)
    # Some Gaussians speak for those around them, so that many of them are heard at little cost.
    some = points[:: max(1, min(SPEAKS_FOR, len(points) // SPEAKERS))]
    distances = KDTree(points).query(some, k=min(SPACING_NEIGHBOUR + 1, len(points)))[0][:, -1]
    near = KDTree(some).query(points, k=min(SPEAKERS, len(some)))[1].reshape(len(points), -1)
    return torch.from_numpy(distances[near]).median(dim=1).values


@torch.no_grad()
def footprints(means: Float[Tensor, "gaussians 3"], views: Sequence[View]) -> Float[Tensor, " gaussians"]:
    """What a pixel covers at each Gaussian, as cameras see it: depth over focal length.

    Args:
        means: Centres, in world units.
        views: Cameras.

    Returns:
        Mean over the views in whose frame the centre lies; the largest one of all for a Gaussian in none. World units,
        in float64 on the CPU.

    Raises:
        ValueError: If no Gaussian lies in the frame of any view.
    """
    points = means.detach().cpu().double()
    total, seen = torch.zeros(len(points), dtype=torch.float64), torch.zeros(len(points), dtype=torch.float64)
    for view in views:
        viewmat, K = view.viewmat.cpu().double(), view.K.cpu().double()
        local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
        depth = local[:, 2].clamp(min=1e-9)
        x, y = ((local @ K.T)[:, :2] / depth[:, None]).unbind(1)
        inside = (local[:, 2] > 0) & (x >= 0) & (x < view.width) & (y >= 0) & (y < view.height)
        total += inside * depth * 2 / (K[0, 0] + K[1, 1])
        seen += inside
    if not bool((seen > 0).any()):
        raise ValueError(f"no Gaussian lies in the frame of any of the {len(views)} views")
    sizes = total / seen.clamp(min=1)
    return torch.where(seen > 0, sizes, sizes.max())
