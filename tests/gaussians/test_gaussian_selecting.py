"""Exactly as many as asked for, whatever the ties."""

from collections.abc import Collection
from typing import Any

import pytest
import torch
from support.splats_by_hand import drawn
from torch import Tensor

from nerfstudio_prune.gaussians.scores import Hits, Opacity
from nerfstudio_prune.gaussians.selecting import (
    Ranking,
    check_keep,
    check_scores,
    check_target,
    floor_of,
    order_by,
    random_ranking,
    rank,
    sizes_of_rounds,
)
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import SUMS, Contributions, Sum


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seen_as(hits: Tensor) -> Contributions:
    found = Contributions.zeros(len(hits), torch.device("cpu"))
    found.hits.add_(hits)
    return found


def rank_hits(hits: list[float], n_keep: int, seed: int = 0) -> Ranking:
    return rank(drawn(len(hits)), n_keep, Hits(), first=seen_as(torch.tensor(hits)), seed=seed)


@pytest.mark.parametrize("n_keep", [1, 2, 3, 50, 99])
def test_exactly_k_with_many_ties(n_keep: int) -> None:
    """LightGaussian #27: a threshold with ties made 5.3 million Gaussians into one."""
    keep = rank_hits([1.0] * 97 + [2.0, 0.0, 0.0], n_keep).keep(n_keep)
    assert len(keep) == n_keep == len(keep.unique())
    assert keep.dtype == torch.int64
    assert bool((keep[1:] > keep[:-1]).all())
    assert 97 in keep.tolist()


def test_ties_go_by_the_seed_and_never_by_place() -> None:
    """By index, ties would go in the order of densification: whole regions leave."""
    firsts = {rank_hits([5.0, 1.0, 1.0, 0.0], 2, seed).keep(2).tolist()[1] for seed in range(20)}
    assert firsts == {1, 2}
    assert rank_hits([5.0, 1.0, 1.0, 0.0], 2, 3).order.tolist() == rank_hits([5.0, 1.0, 1.0, 0.0], 2, 3).order.tolist()


def test_order_is_by_score_first() -> None:
    """A tie-breaker that outweighs a score would be a random cut."""
    scores = torch.rand(1000, generator=generator(1), dtype=torch.float64)
    assert order_by(scores, generator()).tolist() == scores.argsort(descending=True).tolist()


def test_two_gaussians_with_equal_scores() -> None:
    """Nothing tells them apart, which is said; keeping both is no choice and fine."""
    with pytest.raises(ValueError, match="score hits is 3 for all 2 Gaussians: nothing tells one"):
        rank(drawn(2), 1, Hits(), first=seen_as(torch.tensor([3.0, 3.0])))
    assert rank_hits([3.0, 3.0], 2).keep(2).tolist() == [0, 1]


def test_all_zero_is_an_error() -> None:
    """Cameras that look away: a random cut under the name of a score would go unnoticed."""
    with pytest.raises(ValueError, match="score hits is 0 for all 5 Gaussians: no training view sees the scene;"):
        rank_hits([0.0] * 5, 3)


def test_keeping_all_is_the_identity_whatever_the_scores() -> None:
    """A control run that keeps everything must not fail because of its scores."""
    assert rank_hits([0.0] * 5, 5).keep(5).tolist() == [0, 1, 2, 3, 4]


def test_scores_that_are_not_finite_are_named() -> None:
    """NaN sorts as the largest: the broken Gaussians would be the ones that stay."""
    scores = torch.tensor([1.0, 2.0, float("nan"), float("inf")], dtype=torch.float64)
    with pytest.raises(
        ValueError, match="score removal: 2 of 4 values are not finite, the first one that of Gaussian 2"
    ):
        check_scores(scores, "removal")


@pytest.mark.parametrize("n_keep", [0, -1, 6])
def test_a_number_that_is_not_there_fails(n_keep: int) -> None:
    """Slicing would quietly give fewer."""
    with pytest.raises(ValueError, match=r"n_keep must be in \[1, 5\]"):
        rank_hits([1.0, 2.0, 3.0, 4.0, 5.0], n_keep)
    with pytest.raises(ValueError, match=r"n_keep must be in \[1, 5\]"):
        random_ranking(5, 0).keep(n_keep)


@pytest.mark.parametrize(
    ("count", "floor"),
    [(1, 1), (5, 1), (60, 6), (612, 61), (999, 99), (1000, 100), (50_000, 100), (100_001, 101), (3_000_000, 3000)],
)
def test_floor(count: int, floor: int) -> None:
    """100 or a thousandth, but a scene of 60 can still be cut."""
    assert floor_of(count) == floor


def test_targets_out_of_range_name_the_option() -> None:
    """Before anything is computed; a ratio of 0.9999 is more often a slip than a wish."""
    check_target(100, 2000, "pruning_ratio 0.95")
    with pytest.raises(ValueError, match=r"pruning_ratio 0.99: at least 100 of 2,000 Gaussians must stay, got 20"):
        check_target(20, 2000, "pruning_ratio 0.99")
    check_target(20, 2000, "pruning_ratio 0.99", floor=10)


def test_random_ranks_are_seeded_and_even() -> None:
    """The control of every comparison: each Gaussian is as likely as any other."""
    assert random_ranking(50, 3).order.tolist() == random_ranking(50, 3).order.tolist()
    counts = torch.zeros(10)
    for seed in range(400):
        counts[random_ranking(10, seed).keep(3)] += 1
    assert counts.sum() == 1200
    assert 85 < counts.min() <= counts.max() < 155
    assert random_ranking(4, 0).scores is None


def test_rounds_remove_equal_shares_of_what_is_left() -> None:
    """1000 to 125 in three rounds: half of what is left each time."""
    assert sizes_of_rounds(1000, 125, 3) == [500, 250, 125]
    assert sizes_of_rounds(10, 8, 50) == [9, 8]
    assert sizes_of_rounds(10, 10, 6) == []
    assert sizes_of_rounds(1000, 340, 1) == [340]
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        sizes_of_rounds(10, 5, 0)


class Told:
    """What a scene sees depends on who else is there: half the sum of the neighbours' opacities is covered up."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, scene: Gaussians, wants: Collection[Sum] = SUMS, /) -> Contributions:
        assert wants == {"hits"} or wants == SUMS
        self.asked.append(len(scene))
        near = (-(torch.cdist(scene.means, scene.means) ** 2)).exp()
        return seen_as((scene.opacities[:, 0].sigmoid() / near.sum(1)).double())


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_rounds_against_a_loop(rounds: int) -> None:
    """Indices of later rounds are those of a smaller scene; one wrong step of bookkeeping keeps the wrong ones."""
    scene, told = drawn(60), Told()
    ranking = rank(scene, 20, Hits(), told, rounds=rounds)
    left = list(range(60))
    for size in sizes_of_rounds(60, 20, rounds):
        scores = Told()(scene.select(torch.tensor(left))).hits.tolist()
        best = sorted(range(len(left)), key=lambda i: -scores[i])[:size]
        left = sorted(left[i] for i in best)
    assert ranking.keep(20).tolist() == left
    assert told.asked == [60, *sizes_of_rounds(60, 20, rounds)[:-1]]
    assert ranking.order.sort().values.tolist() == list(range(60))
    assert ranking.scores is not None
    assert len(ranking.scores) == 60


def test_those_that_left_later_rank_higher() -> None:
    """A search over numbers reads larger numbers off the same ranking: rounds must be nested in it."""
    scene = drawn(60)
    ranking = rank(scene, 15, Hits(), Told(), rounds=2)
    middle = sizes_of_rounds(60, 15, 2)[0]
    assert ranking.keep(middle).tolist() == rank(scene, middle, Hits(), Told()).keep(middle).tolist()


def test_what_is_known_already_is_not_collected_again() -> None:
    """A pass over all training views is the whole cost of a cut."""
    scene, told = drawn(40), Told()
    first = told(scene)
    told.asked.clear()
    with_first = rank(scene, 10, Hits(), told, rounds=3, first=first)
    assert told.asked == sizes_of_rounds(40, 10, 3)[:-1]
    assert with_first.order.tolist() == rank(scene, 10, Hits(), Told(), rounds=3).order.tolist()


def test_scores_without_views_collect_nothing() -> None:
    """Rounds of `opacity` would be passes for nothing."""

    def never(scene: Any, wants: Collection[Sum] = SUMS, /) -> Contributions:
        raise AssertionError

    scene = drawn(30)
    keep = rank(scene, 10, Opacity(), never, rounds=4).keep(10)
    assert keep.tolist() == scene.opacities[:, 0].argsort(descending=True)[:10].sort().values.tolist()


def test_keep_indices_are_checked() -> None:
    """Double or unsorted rows would shift moments against parameters."""
    check_keep(torch.tensor([0, 2]), 3)
    for bad in ([2, 0], [1, 1], [-1, 0], [0, 3]):
        with pytest.raises(ValueError, match="keep must be sorted unique indices of 3 Gaussians"):
            check_keep(torch.tensor(bad), 3)
    with pytest.raises(ValueError, match="keep must be a list of int64"):
        check_keep(torch.tensor([True, False]), 3)
    with pytest.raises(ValueError, match="keep must be a list of int64"):
        check_keep(torch.tensor([], dtype=torch.int64), 3)
