"""Merging without photos: what a pair must conserve, and which pairs go first."""

import math
from collections.abc import Sequence

import pytest
import torch
from support.splats_by_hand import SH_C0, camera, drawn, made, picture
from torch import Tensor

from nerfstudio_prune.gaussians.merging import merge
from nerfstudio_prune.gaussians.pair_costs import PairCosts, mixture_of
from nerfstudio_prune.gaussians.rotations import quaternions_of, rotations_of
from nerfstudio_prune.raster.gaussians import Gaussians

GREY = [0.5, 0.5, 0.5]
BACKGROUND = torch.tensor([0.1, 0.2, 0.3])


def covariances(scene: Gaussians) -> Tensor:
    half = rotations_of(scene.quats.double()) * scene.scales.double().exp()[:, None]
    return half @ half.transpose(1, 2)


def psnr(scene: Gaussians, other: Gaussians, size: int = 24) -> float:
    views = [camera([x, y, 0.0], size) for x in (-0.4, 0.4) for y in (-0.4, 0.4)]
    errors = [(picture(scene, v, BACKGROUND) - picture(other, v, BACKGROUND)) for v in views]
    return -10 * math.log10(float(torch.stack(errors).square().mean()) + 1e-12)


def test_two_equal_half_transparent_ones_become_one_that_looks_nearly_alike() -> None:
    """Opacities add up to 1 on paper, but 0.5 in front of 0.5 lets a quarter of the light through.

    By hand: the pair keeps 0.5 + 0.5 - 0.5 · 0.5 · ½ = 0.875 of a spot of its own size from the background.
    """
    scene = made([[0.1, 0.1, 3.0]] * 2, [0.5, 0.5], [0.4, 0.4], [[0.9, 0.3, 0.1]] * 2)
    merged = merge(scene, 1)
    one = merged.gaussians
    assert one.opacities.sigmoid().item() == pytest.approx(0.875)
    assert one.means[0].tolist() == pytest.approx([0.1, 0.1, 3.0])
    assert one.scales.exp()[0].tolist() == pytest.approx([0.4] * 3)
    torch.testing.assert_close(one.features_dc, scene.features_dc[:1])
    assert merged.parents.tolist() == [0, 0]
    assert psnr(scene, one) > psnr(scene, scene.select(torch.tensor([0]))) + 6
    added = Gaussians.of(dict(one.items()) | {"opacities": torch.full_like(one.opacities, 9.0)})
    assert psnr(scene, one) > psnr(scene, added) + 4


def test_mass_mean_and_covariance_by_hand() -> None:
    """Weights 0.2 · 1 and 0.6 · 1: centre at three quarters of the way, and p · q · d² more variance along it."""
    scene = made([[0.0, 0.0, 0.0], [0.4, 0.0, 0.0]], [0.2, 0.6], [0.3, 0.3], [[0.2, 0.4, 0.8], [0.6, 0.4, 0.0]])
    one = merge(scene, 1).gaussians
    assert one.means[0].tolist() == pytest.approx([0.3, 0.0, 0.0], abs=1e-9)
    expected = torch.diag(torch.tensor([0.09 + 0.25 * 0.75 * 0.16, 0.09, 0.09], dtype=torch.float64))
    torch.testing.assert_close(covariances(one)[0], expected)
    assert (0.5 + SH_C0 * one.features_dc)[0].tolist() == pytest.approx([0.5, 0.4, 0.2])


def test_light_is_conserved_on_average_over_directions() -> None:
    """Far apart in no direction hides the other: opacity · area before and after must agree, by numerical integration.

    Across z the two are next to each other, along z one hides the other; the sum over all directions is what stays.
    """
    scene = made([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]], [0.4, 0.7], [0.3, 0.2], [GREY] * 2)
    whole = mixture_of(scene, torch.zeros(2))
    judge = PairCosts(whole)
    first, second = whole.select(torch.tensor([0])), whole.select(torch.tensor([1]))
    merged, _ = judge.merged(first, second)
    one, other, new = (judge.project(part)[0] for part in (first, second, merged))
    apart = judge.apart(second.means - first.means)[0]
    step = 0.02
    axis = torch.arange(-3, 3, step, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)

    def spot(projected: Tensor, centre: Tensor) -> Tensor:
        xx, xy, yy = projected
        inverse = torch.stack([torch.stack([xx, xy]), torch.stack([xy, yy])]).inverse()
        return (-((grid - centre) @ inverse * (grid - centre)).sum(-1) / 2).exp()

    before = after = 0.0
    for d in range(len(one)):
        a, b = 0.4 * spot(one[d], torch.zeros(2, dtype=torch.float64)), 0.7 * spot(other[d], apart[d])
        before += float((1 - (1 - a) * (1 - b)).sum())
        after += float(merged.opacities[0] * spot(new[d], torch.zeros(2, dtype=torch.float64)).sum())
    assert after == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("opacity", [[0.3, 0.8], [0.999, 0.999]])
def test_cost_is_the_squared_error_of_pictures(opacity: Sequence[float]) -> None:
    """The closed form against pixels: the pair in both orders of depth, and its heir, in front of the background.

    With the background's spread at 0, the cost is the mean over directions of the integral of the squared difference,
    over 2π, of the pair's colour with either order averaged.
    """
    scene = made([[0.0, 0.0, 0.0], [0.3, 0.1, 0.2]], opacity, [0.3, 0.2], [[0.9, 0.1, 0.2], [0.3, 0.8, 0.1]])
    whole = mixture_of(scene, torch.full((2,), math.sqrt(0.01 / 0.3), dtype=torch.float64))
    judge = PairCosts(whole)
    judge.spread = torch.zeros((), dtype=torch.float64)
    judge.background = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)
    index = torch.tensor([0, 0]), torch.tensor([1, 0])
    cost, leaves = judge.costs(whole, *index).tolist()
    merged, _ = judge.merged(whole.select(index[0][:1]), whole.select(index[1][:1]))
    step = 0.02
    axis = torch.arange(-3, 3, step, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    total = alone = 0.0
    for right, down in zip(judge.right, judge.down, strict=True):
        plane = torch.stack([right, down])

        def spot(covariance: Tensor, mean: Tensor, plane: Tensor = plane) -> Tensor:
            flat = plane @ covariance @ plane.T + 0.01 * torch.eye(2, dtype=torch.float64)
            away = grid - plane @ mean
            return (-(away @ flat.inverse() * away).sum(-1) / 2).exp()[..., None]

        a = opacity[0] * spot(whole.covariances[0], whole.means[0])
        b = opacity[1] * spot(whole.covariances[1], whole.means[1])
        m = merged.opacities[0] * spot(merged.covariances[0], merged.means[0])
        colors = [0.5 + SH_C0 * h[0] - judge.background for h in (*whole.harmonics, merged.harmonics[0])]
        pair = (a + b - a * b - b * (1 - a)) * colors[0] + b * (1 - a) * colors[1]
        turned = (a + b - a * b - a * (1 - b)) * colors[1] + a * (1 - b) * colors[0]
        total += float(((pair + turned) / 2 - m * colors[2]).square().sum()) * step**2 / (2 * math.pi)
        alone += float((a * colors[0]).square().sum()) * step**2 / (2 * math.pi)
    assert cost == pytest.approx(total / len(judge.right), rel=1e-6)
    assert leaves == pytest.approx(alone / len(judge.right), rel=1e-6)


def test_pairs_of_different_colour_or_size_stay_apart() -> None:
    """Sharp edges are made of neighbours that differ; merging them first is what makes decimated scenes muddy."""
    red, blue = [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]
    means = [[0.0, 0, 0], [0.1, 0, 0], [1.0, 0, 0], [1.1, 0, 0]]
    scene = made(means, [0.7] * 4, [0.1] * 4, [red, blue, red, red])
    assert merge(scene, 3).parents.tolist() == [0, 1, 2, 2]
    sizes = made(means, [0.7] * 4, [0.1, 0.02, 0.06, 0.06], [red, red, red, blue])
    assert merge(sizes, 3).parents.tolist()[2:] == [1, 2]


def test_dark_ones_count_as_much_as_bright_ones() -> None:
    """A black Gaussian in front of a bright scene hides it: its colour is 0, its cost must not be."""
    means = [[0.0, 0, 0], [0.15, 0, 0], [1.0, 0, 0], [1.15, 0, 0]]
    scene = made(means, [0.8] * 4, [0.1] * 4, [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]])
    whole = mixture_of(scene, torch.zeros(4))
    costs = PairCosts(whole).costs(whole, torch.tensor([0, 2]), torch.tensor([1, 3]))
    assert costs[0].item() == pytest.approx(costs[1].item())


def test_a_speck_far_from_everything_leaves_without_an_heir() -> None:
    """Merged with its neighbour it would stretch that one across the gap."""
    scene = made([[0.0, 0, 0], [0.5, 0, 0], [5.0, 0, 0]], [0.9, 0.9, 0.02], [0.2, 0.2, 0.01], [GREY, [1, 0, 0], GREY])
    merged = merge(scene, 2, pixel_sizes=torch.full((3,), 0.05))
    assert merged.parents.tolist() == [0, 1, -1]
    assert merged.representatives.tolist() == [0, 1]
    for (_, new), (_, old) in zip(merged.gaussians.items(), scene.items(), strict=True):
        assert torch.equal(new, old[:2])


def test_what_views_do_not_see_goes_first() -> None:
    """Inside of a solid thing, Gaussians that differ are costly to merge and worth nothing."""
    scene = made(
        [[0.0, 0, 0], [0.2, 0, 0], [2.0, 0, 0], [2.02, 0, 0]], [0.9] * 4, [0.2] * 4, [GREY, [1, 0, 0], GREY, GREY]
    )
    sizes = torch.full((4,), 0.05)
    assert merge(scene, 3, pixel_sizes=sizes).parents.tolist() == [0, 1, 2, 2]
    weights = torch.tensor([0.0, 5.0, 5.0, 5.0])
    assert merge(scene, 3, pixel_sizes=sizes, weights=weights).parents.tolist() == [-1, 0, 1, 2]
    alike = torch.full((4,), 7.0)
    assert merge(scene, 3, pixel_sizes=sizes, weights=alike).parents.tolist() == [0, 1, 2, 2]


def test_what_is_far_and_large_is_worth_no_more_than_what_is_near_and_small() -> None:
    """Backgrounds of unbounded scenes are ten times as large and as far off as what stands before them, and as large in
    pictures. In units of the world they would keep nearly all Gaussians, and the foreground none."""
    near = drawn(400, seed=3)
    shifted = {"means": 10 * near.means + torch.tensor([300.0, 0.0, 0.0]), "scales": near.scales + math.log(10.0)}
    both = Gaussians.of({name: torch.cat([value, shifted.get(name, value)]) for name, value in near.items()})
    kept = merge(both, 300).representatives
    assert 140 <= int((kept < 400).sum()) <= 160


def test_a_gaussian_of_many_parts_counts_what_they_cost_before() -> None:
    """Without it, one Gaussian takes in all others of a row, one after the other: 0.9 dB on a trained scene.

    Eight in a row, each as far from the next: two rounds of pairs are what is fair.
    """
    means = [[0.1 * i, 0.0, 0.0] for i in range(8)]
    scene = made(means, [0.8] * 8, [0.06] * 8, [GREY] * 8)
    parts = torch.bincount(merge(scene, 2, pixel_sizes=torch.full((8,), 0.02)).parents)
    assert parts.tolist() in ([4, 4], [3, 5], [5, 3])


def test_size_of_a_pixel_decides_what_small_ones_are_worth() -> None:
    """A speck of a tenth of a pixel is drawn as large as half a pixel: judged by its own area it would vanish."""
    sizes = [0.3, 0.3, 0.002, 0.002]
    means = [[0.0, 0, 0], [0.3, 0, 0], [1.0, 0, 0], [1.05, 0, 0]]
    colors = [[0.5, 0.5, 0.5], [0.52, 0.5, 0.5], [1.0, 0, 0], [0, 0, 1.0]]
    scene = made(means, [0.9] * 4, sizes, colors)
    sharp, blurred = (merge(scene, 3, pixel_sizes=torch.full((4,), size)).parents.tolist() for size in (1e-4, 0.3))
    assert sharp[:2] == [0, 1]
    assert blurred == [0, 0, 1, 2]


def test_antialiased_scenes_conserve_their_own_light() -> None:
    """There a speck is drawn fainter instead of larger in sum: opacity · area is that of the Gaussian without blur."""
    scene = made([[0.0, 0, 0], [0.4, 0, 0]], [0.4, 0.4], [0.1, 0.1], [GREY] * 2)
    sizes = torch.full((2,), 0.3)
    plain, faint = (merge(scene, 1, pixel_sizes=sizes, antialiased=on).gaussians for on in (False, True))
    assert torch.allclose(plain.scales, faint.scales)
    sharp = merge(scene, 1, pixel_sizes=torch.zeros(2)).gaussians
    assert plain.opacities.item() > faint.opacities.item()
    assert faint.opacities.sigmoid().item() == pytest.approx(sharp.opacities.sigmoid().item(), rel=0.05)


@pytest.mark.parametrize("n_keep", [1, 7, 33, 119, 120])
def test_exactly_k_and_deterministic(n_keep: int) -> None:
    """Passes of disjoint pairs must not stop early or overshoot."""
    scene = drawn(120, 2)
    first, second = merge(scene, n_keep), merge(scene, n_keep)
    assert len(first.gaussians) == n_keep == len(first.representatives.unique())
    assert bool((first.representatives[1:] > first.representatives[:-1]).all())
    for (_, one), (_, other) in zip(first.gaussians.items(), second.gaussians.items(), strict=True):
        assert torch.equal(one, other)
        assert bool(torch.isfinite(one).all())
        assert one.dtype == torch.float32
    assert first.gaussians.sh_degree == 2
    parts = first.parents
    assert parts.max() == n_keep - 1
    assert parts[first.representatives].tolist() == list(range(n_keep))


def test_those_that_were_not_merged_are_bit_for_bit_the_same() -> None:
    """A round trip through covariances would change every quaternion for nothing."""
    scene = drawn(60, 1)
    merged = merge(scene, 50)
    counts = torch.bincount(merged.parents[merged.parents >= 0], minlength=50)
    alone = (counts == 1).nonzero()[:, 0]
    assert 0 < len(alone) < 50
    for (_, new), (_, old) in zip(merged.gaussians.items(), scene.items(), strict=True):
        assert torch.equal(new[alone], old[merged.representatives[alone]])


@pytest.mark.parametrize("case", ["same place", "opaque", "transparent", "needles", "huge and tiny"])
def test_degenerate_scenes_stay_finite(case: str) -> None:
    """Densification leaves exact copies; training leaves needles, and opacities of 0 and 1 in float32."""
    scene = drawn(40, 1)
    if case == "same place":
        scene.means[:] = scene.means[0]
    elif case == "opaque":
        scene.opacities[:] = 30
    elif case == "transparent":
        scene.opacities[:] = -120
    elif case == "needles":
        scene.scales[:, 1:] = -25
    else:
        scene.scales[::2] = 8
        scene.scales[1::2] = -18
    for n_keep in (1, 13):
        merged = merge(scene, n_keep).gaussians
        assert len(merged) == n_keep
        assert all(bool(torch.isfinite(tensor).all()) for _, tensor in merged.items())


def test_doubled_scene_merges_back() -> None:
    """Splitting each Gaussian in two copies adds nothing to see; half of them must look like all of them."""
    scene = drawn(25)
    thin = torch.logit(1 - (1 - scene.opacities.sigmoid().clamp(max=0.6)).sqrt())
    tensors = dict(scene.items()) | {"opacities": thin}
    doubled = Gaussians.of({name: torch.cat([t, t]) for name, t in tensors.items()})
    merged = merge(doubled, 25).gaussians
    assert psnr(doubled, merged) > 32


def test_merging_is_better_than_dropping_by_opacity() -> None:
    """The one thing that a person without photos could do instead."""
    scene = drawn(80, seed=4)
    kept = scene.select(scene.opacities[:, 0].argsort(descending=True)[:40].sort().values)
    assert psnr(scene, merge(scene, 40).gaussians) > psnr(scene, kept) + 3


def test_quaternions_give_back_theirrotations_of() -> None:
    """All branches of the usual formulas at once: half turns about each axis, and none."""
    quats = torch.cat([torch.eye(4), torch.randn(200, 4, generator=torch.Generator().manual_seed(0))]).double()
    rotations = rotations_of(quats)
    torch.testing.assert_close(rotations_of(quaternions_of(rotations)), rotations)
    expected = quats / quats.norm(dim=1, keepdim=True)
    cosines = (quaternions_of(rotations) * expected).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


def test_bad_input() -> None:
    """Before anything is computed."""
    scene = drawn(5)
    for n_keep in (0, 6):
        with pytest.raises(ValueError, match=r"n_keep must be in \[1, 5\]"):
            merge(scene, n_keep)
    with pytest.raises(ValueError, match=r"pixel_sizes must be 5 finite numbers of at least 0, got \(5,\) from -1"):
        merge(scene, 2, pixel_sizes=-torch.ones(5))
    with pytest.raises(ValueError, match=r"pixel_sizes must be 5 finite numbers of at least 0, got \(4,\)"):
        merge(scene, 2, pixel_sizes=torch.ones(4))
    with pytest.raises(ValueError, match=r"weights must be 5 finite numbers of at least 0"):
        merge(scene, 2, weights=torch.full((5,), float("nan")))
    scene.means[3, 1] = float("nan")
    with pytest.raises(ValueError, match="means: 1 of 5 Gaussians have values that are not finite"):
        merge(scene, 2)
