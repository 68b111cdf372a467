"""Scores against numbers worked out by hand, and their order on a scene whose redundancy is known."""

from collections.abc import Collection
from typing import Any, get_args

import pytest
import torch
from support.splats_by_hand import camera, drawn, made

from nerfstudio_prune.gaussians.contributions import collect
from nerfstudio_prune.gaussians.scores import SCORES, Removal, Score, Significance, register_score, score_by_name
from nerfstudio_prune.gaussians.selecting import rank
from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.interface import SUMS, Contributions, Sum


def contributions(count: int) -> Contributions:
    """Different numbers everywhere."""
    numbers = torch.arange(1.0, count + 1, dtype=torch.float64)
    return Contributions(count, {name: numbers * 10**i for i, name in enumerate(get_args(Sum))})


RASTERIZER = CpuRasterizer()


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("hits", {}, "hits"),
        ("contribution", {}, "weights"),
        ("max_weight", {}, "max_weights"),
        ("removal", {}, "removal_l1"),
        ("removal", {"removal_norm": "l2"}, "removal_l2"),
    ],
)
def test_sums_are_handed_on(name: str, options: dict[str, Any], field: str) -> None:
    """A name that gave another sum would make every comparison of scores wrong."""
    seen = contributions(4)
    assert score_by_name(name, options)(drawn(4), seen).tolist() == getattr(seen, field).tolist()


def by_hand() -> tuple[Any, Contributions]:
    """Ten Gaussians with standard deviations of 1 to 10, so volumes of 1, 8, 27, ..., 1,000; all of opacity 0.5."""
    scene = made([[0.0, 0.0, 3.0]] * 10, [0.5] * 10, [float(i) for i in range(1, 11)], [[0.5, 0.5, 0.5]] * 10)
    seen = Contributions.zeros(10, torch.device("cpu"))
    seen.hits.add_(4)
    return scene, seen


def test_significance_is_equation_4_and_5() -> None:
    """The 90th percentile of ten volumes is the largest one's (entry 9 of 0 to 9): 1,000. 4 · 0.5 · (V / 1000)^0.1."""
    scene, seen = by_hand()
    expected = [2 * (i**3 / 1000) ** 0.1 for i in range(1, 11)]
    assert Significance()(scene, seen).tolist() == pytest.approx(expected)


def test_volumes_above_the_percentile_are_clipped() -> None:
    """Eq. 5: without the clip, Gaussians of the sky come out on top."""
    size = [1.0] * 18 + [5.0, 50.0]
    scene = made([[0.0, 0.0, 3.0]] * 20, [0.5] * 20, size, [[0.5, 0.5, 0.5]] * 20)
    seen = Contributions.zeros(20, torch.device("cpu"))
    seen.hits.add_(1)
    scores = Significance(volume_power=1.0)(scene, seen)
    assert scores[18] == scores[19] == pytest.approx(0.5)
    assert scores[0] == pytest.approx(0.5 / 125)


def test_released_code_divides_by_the_tenth_percentile_and_does_not_clip() -> None:
    """Sorted from the largest down, entry 9 of ten is the smallest volume: 1. So 4 · 0.5 · V^0.1."""
    scene, seen = by_hand()
    scores = Significance(volume_reference="released")(scene, seen)
    assert scores.tolist() == pytest.approx([2 * (i**3) ** 0.1 for i in range(1, 11)])


def test_power_zero_is_hits_times_opacity() -> None:
    """The ablation between the two must not differ in anything else."""
    scene, seen = drawn(6), contributions(6)
    expected = seen.hits * scene.opacities[:, 0].double().sigmoid()
    torch.testing.assert_close(Significance(volume_power=0.0)(scene, seen), expected)
    torch.testing.assert_close(score_by_name("hits_opacity")(scene, seen), expected)


def test_volumes_that_underflow_still_rank() -> None:
    """exp(-40)³ is 0 in float32: all of a far-away cluster would tie at zero."""
    scene, seen = drawn(3), contributions(3)
    scene.scales[:] = torch.tensor([[-40.0], [-41.0], [-42.0]])
    seen.hits[:] = 1
    scene.opacities[:] = 0
    scores = Significance()(scene, seen)
    assert scores[0] > scores[1] > scores[2] > 0


def test_opacity_needs_no_views_and_the_others_do() -> None:
    """A `.ply` without photos can be cut by opacity; the others must say what is missing."""
    scene = drawn(5)
    torch.testing.assert_close(score_by_name("opacity")(scene), scene.opacities[:, 0].double().sigmoid())
    for name, score in SCORES.items():
        assert bool(score().needs) == (name != "opacity")
    with pytest.raises(ValueError, match="score removal is taken from what views see, and nothing was collected"):
        Removal()(scene)


@pytest.mark.parametrize("score", [kind() for kind in SCORES.values()] + [Removal("l2")], ids=str)
def test_a_score_says_what_it_needs(score: Score) -> None:
    """On a GPU some sums take a hundred times as long as others: a score gets no more than it asks for."""
    every = contributions(4)
    asked = Contributions(4, {name: every[name] for name in score.needs})
    assert torch.equal(score(drawn(4), asked), score(drawn(4), every))


def test_a_sum_that_was_not_collected_is_an_error() -> None:
    """Read as zeros, it would take away whatever comes first."""
    with pytest.raises(ValueError, match=r"removal_l1 .* was asked for, and what was collected is weights"):
        Removal()(drawn(4), Contributions.zeros(4, torch.device("cpu"), wants={"weights"}))


def test_the_norm_is_what_the_rasteriser_has_cheaply() -> None:
    """Where nobody says: the better one, unless it takes minutes and the other one seconds."""
    assert Removal().on(SUMS) == Removal("l1")
    assert Removal().on({"weights", "removal_l2"}) == Removal("l2")
    assert Removal().on(set()) == Removal("l1")
    assert Removal("l1").on({"removal_l2"}) == Removal("l1")
    assert Removal("l2").on(SUMS) == Removal("l2")
    assert Significance().on({"removal_l2"}) == Significance()


def test_scores_are_double_and_out_of_the_graph() -> None:
    """Sums over a hundred views of half a million hits exceed what float32 tells apart."""
    scene = drawn(4)
    scene.opacities.requires_grad_()
    for name in SCORES:
        scores = score_by_name(name)(scene, contributions(4))
        assert scores.dtype == torch.float64
        assert not scores.requires_grad


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("beauty", {}, "score must be one of .*removal.*significance.*got 'beauty'"),
        ("removal", {"removal_norm": "l3"}, "removal_norm must be one of l1, l2, got 'l3'"),
        ("significance", {"volume_reference": "median"}, "volume_reference must be one of largest-90, released"),
        ("significance", {"volume_power": -1.0}, "volume_power must be finite and at least 0, got -1"),
        ("significance", {"volume_power": float("nan")}, "volume_power must be finite"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, Any], message: str) -> None:
    """A typo must not become a default."""
    with pytest.raises(ValueError, match=message):
        score_by_name(name, options)


def test_options_of_other_scores_are_left_alone() -> None:
    """One configuration holds the options of all scores."""
    options = {"volume_power": 0.5, "removal_norm": "l2", "rounds": 3}
    assert score_by_name("significance", options) == Significance(volume_power=0.5)
    assert score_by_name("removal", options) == Removal("l2")


def test_a_taken_name_is_refused() -> None:
    """The later one would silently replace the earlier one."""
    with pytest.raises(ValueError, match="'removal' is taken"):
        register_score("removal")(Removal)


def test_contributions_of_another_scene_are_refused() -> None:
    """After a split, a score from before it would be shifted."""
    with pytest.raises(ValueError, match="those of 3 Gaussians, and the scene has 4"):
        Removal()(drawn(4), contributions(3))


FRONT, BEHIND, SPECK, TWIN_A, TWIN_B, VEIL = range(6)


def redundant() -> Any:
    """Six Gaussians whose worth is known.

    A large opaque red one; a large opaque one behind it that nobody sees; a speck; two that lie in one place and look
    the same, half-transparent; and a large veil in the colour of the background, which changes nothing.
    """
    means = [[-0.6, 0, 3.0], [-0.6, 0, 3.6], [0.7, -0.7, 3.0], [0.6, 0.5, 3.0], [0.6, 0.5, 3.01], [0.2, -0.2, 5.0]]
    colors = [[1.0, 0.1, 0.1], [0.1, 0.1, 1.0], [1.0, 1.0, 1.0], [0.2, 0.9, 0.2], [0.2, 0.9, 0.2], [0.02, 0.02, 0.02]]
    return made(means, [0.999, 0.9, 0.3, 0.7, 0.7, 0.6], [0.35, 0.2, 0.01, 0.15, 0.15, 1.2], colors)


def order(name: str) -> list[int]:
    scene, views = redundant(), [(camera([0, 0, 0]), None), (camera([0.1, 0, 0]), None)]
    seen = collect(scene, views, RASTERIZER, 0, torch.zeros(3))
    return score_by_name(name)(scene, seen).argsort(descending=True).tolist()


def test_criteria_see_what_they_should_on_a_scene_with_known_redundancy() -> None:
    """The ground of the paper's ablation: what a criterion is blind for decides what it throws away.

    `removal` alone knows that the veil changes no picture; `hits` takes it for the most important of all. `opacity`
    does not see that the blue one is hidden; whatever goes through the renderer does.
    """
    removal, hits, opacity = order("removal"), order("hits"), order("opacity")
    contribution, significance = order("contribution"), order("significance")
    assert removal[0] == FRONT
    assert set(removal[3:]) == {BEHIND, SPECK, VEIL}
    assert hits[0] == significance[0] == VEIL
    assert contribution.index(VEIL) <= 1
    assert opacity[:2] == [FRONT, BEHIND]
    assert contribution.index(BEHIND) >= 4
    assert removal[-1] in (BEHIND, SPECK)


def test_rounds_keep_one_of_two_that_cover_up_for_each_other() -> None:
    """Two opaque Gaussians one behind the other: alone each seems nearly worthless, for the other one shows.

    Judged once, both go and a hole is left; with scores taken anew the second one stays.
    """
    means = [[-0.5, 0, 3.0], [-0.5, 0, 3.01], [0.6, 0.4, 3.0], [0.6, -0.5, 3.0]]
    colors = [[0.9, 0.2, 0.2], [0.9, 0.2, 0.2], [0.7, 0.7, 0.7], [0.6, 0.6, 0.6]]
    scene = made(means, [0.95, 0.95, 0.9, 0.9], [0.2, 0.2, 0.15, 0.15], colors)

    def see(part: Any, wants: Collection[Sum] = SUMS, /) -> Contributions:
        return collect(part, [(camera([0, 0, 0]), None)], RASTERIZER, 0, torch.zeros(3), wants=wants)

    once = rank(scene, 2, Removal("l2"), see).keep(2).tolist()
    twice = rank(scene, 2, Removal("l2"), see, rounds=2).keep(2).tolist()
    assert once == [2, 3]
    assert len({0, 1} & set(twice)) == 1
