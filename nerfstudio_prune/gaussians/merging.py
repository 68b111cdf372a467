"""Fewer Gaussians without photos: neighbours that look alike become one, pair by pair, cheapest first.

Pairwise merging by moment matching as in NanoGS (arXiv 2603.16103), with the costs of `pair_costs`. A Gaussian may also
leave without an heir, where that costs less than to stretch another one.
"""

from dataclasses import dataclass, replace
from typing import Optional

import torch
from jaxtyping import Float, Int64
from scipy.spatial import KDTree
from torch import Tensor

from nerfstudio_prune.gaussians.pair_costs import Mixture, PairCosts, mixture_of
from nerfstudio_prune.gaussians.pixel_sizes import spacings
from nerfstudio_prune.gaussians.pruner import check_gaussians
from nerfstudio_prune.gaussians.rotations import quaternions_of
from nerfstudio_prune.raster.gaussians import Gaussians

NEIGHBOURS = 12
"""Nearest neighbours of each Gaussian that it may be merged with."""
SHARE_OF_PASS = 0.2
"""Largest share of the Gaussians that leaves before costs are taken anew."""
CHUNK = 1 << 13
"""Pairs that are judged at once; bounds the memory."""


@dataclass(frozen=True, eq=False)
class Merged:
    """A scene with fewer Gaussians, and where the old ones went."""

    gaussians: Gaussians
    """The new scene, in the order of `representatives`."""
    parents: Int64[Tensor, " before"]
    """Old Gaussian -> new one that it is part of; -1 for one that left without an heir."""
    representatives: Int64[Tensor, " after"]
    """New Gaussian -> old one that stands for it, the heavier part of each pair. Sorted and unique: the `keep` of a
    cut."""


@torch.no_grad()
def merge(
    gaussians: Gaussians,
    n_keep: int,
    *,
    pixel_sizes: Optional[Float[Tensor, "..."]] = None,
    antialiased: bool = False,
    weights: Optional[Float[Tensor, "..."]] = None,
) -> Merged:
    """Merges pairs of Gaussians until so many are left. Deterministic; on the CPU, wherever the scene lives.

    Mean, covariance and harmonics of a new Gaussian are the means of its two parts', weighted by opacity · projected
    area, with the spread of the centres added to the covariance. Its opacity conserves what the pair keeps from the
    background, averaged over directions of view; where that would take more than an opaque Gaussian, it becomes larger.

    Args:
        gaussians: The scene, N Gaussians.
        n_keep: How many shall be left, in [1, N].
        pixel_sizes: What a pixel covers at each Gaussian, in world units, where pictures of one size are meant.
            Rasterisers blur by about half a pixel, which for small Gaussians is most of what is seen. None:
            `spacings`; `footprints` where cameras are known.
        antialiased: As the scene was trained: whether rasterisers make up for the blur.
        weights: What views see of each Gaussian, `Contributions.weights`, where there are photos or cameras: an error
            counts as much as it is seen, so that hidden Gaussians go first. None: all is seen alike, each place by
            pixels of its own size: the far parts of an unbounded scene are large, and small in pictures.

    Returns:
        Exactly `n_keep` Gaussians, with the dtype and device of the old ones. Those that were not merged are bit for
        bit what they were.

    Raises:
        ValueError: If a number is out of range or the scene is not finite.
    """
    check_gaussians(dict(gaussians.items()))
    if not 1 <= n_keep <= len(gaussians):
        raise ValueError(f"n_keep must be in [1, {len(gaussians)}], got {n_keep}")
    if pixel_sizes is None:
        pixel_sizes = spacings(gaussians.means)
    _check_lengths("pixel_sizes", pixel_sizes, len(gaussians))
    if weights is not None:
        _check_lengths("weights", weights, len(gaussians))
    scene = mixture_of(gaussians, pixel_sizes)
    judge = PairCosts(scene, antialiased)
    if weights is None:
        scene = replace(scene, visibilities=_pixels_per_area(pixel_sizes.cpu().double()).expand(len(scene)))
    else:
        scene = judge.weighted(scene, weights.cpu().double())
    parents = torch.arange(len(scene))
    while len(scene) > n_keep:
        pairs = _candidates(scene.means)
        costs = torch.cat([judge.costs(scene, *part.unbind(1)) for part in pairs.split(CHUNK)])
        leave = min(len(scene) - n_keep, max(1, int(SHARE_OF_PASS * len(scene))))
        chosen = _cheapest_disjoint(pairs, costs, leave)
        scene, heirs = _leave(scene, judge, pairs[chosen], costs[chosen])
        parents = torch.where(parents < 0, -1, heirs[parents.clamp(min=0)])
    return _result(gaussians, scene, parents)


def _pixels_per_area(pixel_sizes: Float[Tensor, " gaussians"]) -> Float[Tensor, " gaussians"]:
    """Pixels on a unit of area at each Gaussian, up to a factor; of size 0, as where all lie in one place, alike."""
    sizes = pixel_sizes[pixel_sizes > 0]
    return (sizes.amin() / pixel_sizes.clamp(min=sizes.amin())).square() if len(sizes) else torch.ones_like(pixel_sizes)


def _check_lengths(name: str, values: Float[Tensor, "..."], count: int) -> None:
    if values.shape != (count,) or not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(
            f"{name} must be {count} finite numbers of at least 0, got {tuple(values.shape)} from "
            f"{float(values.min())} to {float(values.max())}"
        )


def _candidates(means: Float[Tensor, "gaussians 3"]) -> Int64[Tensor, "pairs 2"]:
    """Each Gaussian with its nearest neighbours, each pair once, and each Gaussian with itself."""
    count = len(means)
    own = torch.arange(count)
    near = torch.from_numpy(KDTree(means.numpy()).query(means.numpy(), k=min(NEIGHBOURS + 1, count))[1])
    pairs = torch.stack([own[:, None].expand_as(near), near], dim=-1).flatten(0, 1).sort(dim=1).values
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    keys = torch.cat([pairs[:, 0] * count + pairs[:, 1], own * (count + 1)]).unique()
    return torch.stack([keys // count, keys % count], dim=1)


def _cheapest_disjoint(
    pairs: Int64[Tensor, "pairs 2"], costs: Float[Tensor, " pairs"], leave: int
) -> Int64[Tensor, " chosen"]:
    """What a walk from the cheapest pair to the dearest takes if no Gaussian may be taken twice: at most `leave` pairs.

    In rounds: a pair that is the cheapest of both its Gaussians' is one that the walk takes.
    """
    rank = torch.empty(len(pairs), dtype=torch.int64)
    rank[costs.argsort(stable=True)] = torch.arange(len(pairs))
    count, open_, chosen = int(pairs.max()) + 1, torch.arange(len(pairs)), []
    while len(open_):
        first, second = pairs[open_].unbind(1)
        best = torch.full((count,), len(pairs), dtype=torch.int64)
        best.scatter_reduce_(0, first, rank[open_], "amin").scatter_reduce_(0, second, rank[open_], "amin")
        take = (best[first] == rank[open_]) & (best[second] == rank[open_])
        chosen.append(open_[take])
        free = torch.ones(count, dtype=torch.bool)
        free[pairs[open_[take]].flatten()] = False
        open_ = open_[free[first] & free[second]]
    found = torch.cat(chosen)
    return found[rank[found].argsort()[:leave]]


def _leave(
    scene: Mixture, judge: PairCosts, pairs: Int64[Tensor, "pairs 2"], costs: Float[Tensor, " pairs"]
) -> tuple[Mixture, Int64[Tensor, " gaussians"]]:
    """Carries out a pass.

    Returns:
        The scene after it, and for each Gaussian before it its heir, -1 for none.
    """
    first, second = pairs.unbind(1)
    stays = torch.ones(len(scene), dtype=torch.bool)
    stays[pairs.flatten()] = False
    apart = first != second
    one, other = first[apart], second[apart]
    merged, _ = judge.merged(scene.select(one), scene.select(other))
    after = scene.select(stays.nonzero()[:, 0]).joined(replace(merged, errors=costs[apart]))
    order = after.representatives.argsort()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    heirs = torch.full((len(scene),), -1, dtype=torch.int64)
    heirs[stays] = place[: int(stays.sum())]
    heirs[one] = heirs[other] = place[int(stays.sum()) :]
    return after.select(order), heirs


def _result(gaussians: Gaussians, scene: Mixture, parents: Int64[Tensor, " before"]) -> Merged:
    """The scene with the parameters that are trained; Gaussians with one part only are copied."""
    kept = gaussians.detach().select(scene.representatives)
    parts = torch.bincount(parents[parents >= 0], minlength=len(scene))
    new = (parts > 1).nonzero()[:, 0]
    merged = scene.select(new)
    variances, axes = torch.linalg.eigh(merged.covariances)
    axes[:, :, 0] *= torch.linalg.det(axes).sign()[:, None]
    values = {
        "means": merged.means,
        "scales": torch.maximum(variances, merged.floors[:, None]).log() / 2,
        "quats": quaternions_of(axes),
        "features_dc": merged.harmonics[:, 0],
        "features_rest": merged.harmonics[:, 1:],
        "opacities": torch.logit(merged.opacities, eps=1e-7)[:, None],
    }
    tensors = {
        name: old.index_copy(0, new.to(old.device), values[name].to(old.device, old.dtype))
        for name, old in kept.items()
    }
    return Merged(Gaussians.of(tensors), parents.to(kept.means.device), scene.representatives.to(kept.means.device))
