"""Chooses the Gaussians that stay: exactly as many as asked for, whatever the ties. Changes nothing."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Optional, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from nerfstudio_prune.gaussians.scores import Score
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import SUMS, Contributions, Sum


@runtime_checkable
class Collect(Protocol):
    """What views see of a scene: `contributions.collect` with everything else filled in."""

    def __call__(self, gaussians: Gaussians, wants: Collection[Sum] = SUMS, /) -> Contributions:
        """Looks at a scene.

        Args:
            gaussians: The scene.
            wants: Names of the sums; the fewer, the cheaper.
        """
        ...


SMALLEST = 100
"""Gaussians below which no scene is cut, unless it is small itself."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """All Gaussians of a scene, best first."""

    order: Int64[Tensor, " gaussians"]
    """Indices into the scene. Of Gaussians that left in different rounds the later one is the better."""
    scores: Optional[Float[Tensor, " gaussians"]] = None
    """Scores of the whole scene, as taken in the first round, for a person to look at. None for a random order."""

    def keep(self, n_keep: int) -> Int64[Tensor, " kept"]:
        """The best ones.

        Args:
            n_keep: How many, in [1, N].

        Returns:
            Exactly `n_keep` indices into the scene, sorted and unique.

        Raises:
            ValueError: If there are not that many.
        """
        _check_count(n_keep, len(self.order))
        return self.order[:n_keep].sort().values


def floor_of(count: int) -> int:
    """Fewest Gaussians that may stay: 100 or 0.1 %, whichever is more, but never more than a tenth of the scene.

    Below, a mistake in a target leaves nothing to look at (LightGaussian #27: 5.3 million became 1). A scene of a few
    hundred can still be cut.

    Args:
        count: Gaussians before the first cut, at least 1.
    """
    return min(max(SMALLEST, math.ceil(count / 1000)), max(1, count // 10))


def check_scores(scores: Float[Tensor, " gaussians"], name: str) -> None:
    """Checks that scores can rank a scene.

    Args:
        scores: One per Gaussian.
        name: Name of the score, for the message.

    Raises:
        ValueError: If a score is not finite (name, how many, the first one's index), or all are the same.
    """
    bad = (~torch.isfinite(scores)).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"score {name}: {len(bad)} of {len(scores)} values are not finite, the first one that of Gaussian "
            f"{int(bad[0])}; nothing was pruned"
        )
    if bool((scores == scores[0]).all()):
        value = float(scores[0])
        why = "no training view sees the scene" if value == 0 else "nothing tells one Gaussian from another"
        raise ValueError(f"score {name} is {value:g} for all {len(scores)} Gaussians: {why}; nothing was pruned")


def order_by(scores: Float[Tensor, " gaussians"], generator: torch.Generator) -> Int64[Tensor, " gaussians"]:
    """Indices from the highest score to the lowest; equal ones in random order.

    Ties are common: all Gaussians that no view sees score 0. By index, they would go in the order of densification.

    Args:
        scores: Finite scores.
        generator: On the CPU; the only source of randomness.
    """
    shuffled = torch.randperm(len(scores), generator=generator).to(scores.device)
    return shuffled[scores[shuffled].argsort(descending=True, stable=True)]


def random_ranking(count: int, seed: int) -> Ranking:
    """Every order is equally likely: strategy `random`, the control of every comparison. On the CPU.

    Args:
        count: Gaussians of the scene.
        seed: Seed of the event.
    """
    return Ranking(torch.randperm(count, generator=torch.Generator().manual_seed(seed)))


def sizes_of_rounds(count: int, n_keep: int, rounds: int) -> list[int]:
    """Gaussians that are left after each round.

    Each round removes the same *share* of what is left, not the same number: what a round cannot see is how those that
    it removes cover up for each other, and that grows with the share. Equal numbers would remove twice the share at the
    end, where every Gaussian counts, as at the start, where most are superfluous.

    Args:
        count: Gaussians before the first round.
        n_keep: Those after the last one, in [1, `count`].
        rounds: At least 1.

    Returns:
        Strictly falling sizes, the last one `n_keep`; fewer than `rounds` where there is not enough to remove, none
        where there is nothing.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check_count(n_keep, count)
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    sizes = {round(count * (n_keep / count) ** (i / rounds)) for i in range(1, rounds)} | {n_keep}
    return sorted((size for size in sizes if n_keep <= size < count), reverse=True)


@torch.no_grad()
def rank(
    gaussians: Gaussians,
    n_keep: int,
    score: Score,
    collect: Optional[Collect] = None,
    *,
    rounds: int = 1,
    seed: int = 0,
    first: Optional[Contributions] = None,
) -> Ranking:
    """Ranks a scene; with `rounds`, scores are taken anew after each part that leaves.

    Args:
        gaussians: The scene.
        n_keep: How many shall stay. Scores are taken anew down to this number; the ranking is of all.
        score: The rule.
        collect: What views see of a scene. None is enough for scores that need no views.
        rounds: Times that scores are taken, at least 1.
        seed: Seed of the event, for ties.
        first: Contributions of the whole scene, where they are known already; saves the first call of `collect`.

    Returns:
        All Gaussians, best first, as indices into `gaussians`. `keep(n_keep)` are those that stay.

    Raises:
        ValueError: If a number is out of range, a score is not finite, or all are equal.
    """
    sizes = sizes_of_rounds(len(gaussians), n_keep, rounds) or [n_keep]
    generator = torch.Generator().manual_seed(seed)
    left = torch.arange(len(gaussians), device=gaussians.means.device)
    gone: list[Tensor] = []
    whole: Optional[Tensor] = None
    for size in sizes:
        scene = gaussians if whole is None else gaussians.select(left)
        seen = first if whole is None else None
        if seen is None and score.needs and collect is not None:
            seen = collect(scene, score.needs)
        scores = score(scene, seen)
        if size < len(left):
            check_scores(scores, score.name)
        whole = scores if whole is None else whole
        order = left[order_by(scores, generator)]
        gone.append(order[size:])
        best = order[:size]
        left = best.sort().values
    return Ranking(torch.cat([best, *reversed(gone)]), whole)


def check_target(n_keep: int, count: int, option: str, floor: Optional[int] = None) -> None:
    """Checks that enough shall stay, before anything is computed.

    Args:
        n_keep: How many shall stay.
        count: Gaussians that there are.
        option: Option that says so, with its value.
        floor: Fewest that may stay. None: `floor_of(count)`.

    Raises:
        ValueError: If it is below the floor.
    """
    floor = floor_of(count) if floor is None else floor
    if n_keep < floor:
        raise ValueError(f"{option}: at least {floor:,} of {count:,} Gaussians must stay, got {n_keep:,}")


def check_keep(keep: Shaped[Tensor, "..."], count: int) -> None:
    """Checks indices of Gaussians that stay.

    Args:
        keep: The indices.
        count: Gaussians that there are.

    Raises:
        ValueError: If there are none, or they are not sorted, unique and in range.
    """
    if keep.dtype != torch.int64 or keep.dim() != 1 or not len(keep):
        raise ValueError(f"keep must be a list of int64 indices, got {keep.dtype} of shape {tuple(keep.shape)}")
    if bool((keep[1:] <= keep[:-1]).any()) or int(keep[0]) < 0 or int(keep[-1]) >= count:
        raise ValueError(
            f"keep must be sorted unique indices of {count} Gaussians, got {len(keep)} from {int(keep.min())} to "
            f"{int(keep.max())}"
        )


def _check_count(n_keep: int, count: int) -> None:
    if not 1 <= n_keep <= count:
        raise ValueError(f"n_keep must be in [1, {count}], got {n_keep}")
