"""Where a ray is looked at, as the host's samplers place their samples in evaluation; and what samples come to."""

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.export.schema import Sampling

SMALLEST_SUM = 1e-5
"""Weights of a ray that sum up to less are raised evenly to this sum before samples are drawn by them."""


def to_spacing(distance: Float[Tensor, "*shape"], sampling: Sampling) -> Float[Tensor, "*shape"]:
    """Places on a scale on which the coarse samples are even.

    Args:
        distance: Distances from the camera, not negative.
        sampling: How samples are spaced.
    """
    if sampling.spacing == "uniform":
        return distance
    return torch.where(distance < 1, distance / 2, 1 - 1 / (2 * distance))


def to_distance(place: Float[Tensor, "*shape"], sampling: Sampling) -> Float[Tensor, "*shape"]:
    """Distances of places on that scale: the inverse of `to_spacing`.

    Args:
        place: The places.
        sampling: How samples are spaced.
    """
    if sampling.spacing == "uniform":
        return place
    return torch.where(place < 0.5, 2 * place, 1 / (2 - 2 * place))


def finer_bins(
    bins: Float[Tensor, "rays bins"], weights: Float[Tensor, "rays intervals"], sampling: Sampling
) -> Float[Tensor, "rays finer"]:
    """Borders of the fine samples: those of the coarse ones, and as many more as `sampling` says, plus one, where the
    weights are.

    Inverse transform sampling (NeRF, arXiv 2003.08934, section 5.2) at the middles of even steps of the distribution,
    as in the host's evaluation.

    Args:
        bins: Borders of the coarse samples, rising, in [0, 1].
        weights: Weight of each coarse sample, one fewer than borders.
        sampling: How many are drawn, and what is added to the weights.
    """
    weights = weights + sampling.padding
    total = weights.sum(dim=-1, keepdim=True)
    missing = torch.relu(SMALLEST_SUM - total)
    weights = weights + missing / weights.shape[-1]
    share = (weights / (total + missing)).cumsum(dim=-1).clamp(max=1)
    share = torch.cat([torch.zeros_like(share[:, :1]), share], dim=-1)
    count = sampling.fine + 1
    wanted = torch.linspace(0.0, 1.0 - 1.0 / count, steps=count, device=bins.device) + 1.0 / (2 * count)
    wanted = wanted.expand(len(bins), count).contiguous()
    index = torch.searchsorted(share, wanted, side="right")
    below, above = (i.clamp(0, bins.shape[-1] - 1) for i in (index - 1, index))
    first, last = share.gather(-1, below), share.gather(-1, above)
    part = torch.nan_to_num((wanted - first) / (last - first), 0).clamp(0, 1)
    begin, end = bins.gather(-1, below), bins.gather(-1, above)
    return torch.cat([bins, begin + part * (end - begin)], dim=-1).sort(dim=-1).values


def ray_weights(
    density: Float[Tensor, "rays samples"], lengths: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays samples"]:
    """Share of a pixel's colour that each sample has (arXiv 2003.08934, equation 3).

    Args:
        density: Density at the samples, per unit of length.
        lengths: Lengths of their intervals.
    """
    depth = density * lengths
    before = torch.cat([torch.zeros_like(depth[:, :1]), depth[:, :-1].cumsum(dim=-1)], dim=-1)
    return torch.nan_to_num((1 - torch.exp(-depth)) * torch.exp(-before))


def median_depth(
    weights: Float[Tensor, "rays samples"], middles: Float[Tensor, "rays samples"]
) -> Float[Tensor, "rays 1"]:
    """Distance at which half of the light has gone; that of the last sample where it never does.

    Args:
        weights: Weights of the samples.
        middles: Their distances.
    """
    half = weights.new_full((len(weights), 1), 0.5)
    index = torch.searchsorted(weights.cumsum(dim=-1), half, side="left")
    return middles.gather(-1, index.clamp(0, middles.shape[-1] - 1))
