"""Sums over views: what every score through the renderer is made of."""

from typing import Any

import pytest
import torch
from support.splats_by_hand import camera, drawn

from nerfstudio_prune.gaussians.contributions import collect
from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.interface import Contributions

BLACK = torch.zeros(3)
RASTERIZER = CpuRasterizer()


def test_views_add_up_and_the_largest_weight_is_the_largest_of_all() -> None:
    """A score that saw one view only would throw away what the others need."""
    scene, views = drawn(12), [camera([0, 0, 0]), camera([0.5, 0, 0])]
    total = collect(scene, [(view, None) for view in views], RASTERIZER, 0, BLACK)
    one, other = (RASTERIZER.contributions(scene, view, 0, BLACK) for view in views)
    for name in ("hits", "weights", "removal_l1", "removal_l2"):
        torch.testing.assert_close(getattr(total, name), getattr(one, name) + getattr(other, name))
    torch.testing.assert_close(total.max_weights, torch.maximum(one.max_weights, other.max_weights))


def test_only_the_pixels_that_count_count() -> None:
    """Masked pixels (a person who walked through) must not keep Gaussians alive."""
    scene, view = drawn(8), camera([0, 0, 0])
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:, :8] = True
    left = collect(scene, [(view, mask)], RASTERIZER, 0, BLACK)
    right = collect(scene, [(view, ~mask)], RASTERIZER, 0, BLACK)
    whole = collect(scene, [(view, None)], RASTERIZER, 0, BLACK)
    torch.testing.assert_close(left.removal_l1 + right.removal_l1, whole.removal_l1)
    assert left.hits.sum() < whole.hits.sum()


def test_no_views_is_an_error() -> None:
    """Zeros for all would look like a scene that nobody sees."""
    with pytest.raises(ValueError, match="no training views"):
        collect(drawn(3), [], RASTERIZER, 0, BLACK)


class Strange(CpuRasterizer):
    """Notes seeds; gives contributions of a number of Gaussians."""

    def __init__(self, count: int) -> None:
        self.count: int = count
        self.seeds: list[int] = []

    def contributions(self, gaussians: Any, *_: Any, seed: int = 0, **__: Any) -> Contributions:
        assert not torch.is_grad_enabled()
        assert not gaussians.means.requires_grad
        self.seeds.append(seed)
        return Contributions.zeros(self.count, torch.device("cpu"))


def test_each_view_draws_its_own_probes_and_a_seed_repeats_them() -> None:
    """One probe for all views would add its error up instead of averaging it out."""
    views, runs = [(camera([0, 0, 0]), None)] * 3, []
    for seed in (7, 7, 8):
        strange = Strange(4)
        collect(drawn(4), views, strange, 0, BLACK, seed=seed)
        runs.append(strange.seeds)
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == 3


def test_contributions_of_other_gaussians_are_an_error() -> None:
    """Scores that are off by one row prune the wrong Gaussians without a word."""
    with pytest.raises(ValueError, match="view 0: cpu gave 5 contributions for 4 Gaussians"):
        collect(drawn(4), [(camera([0, 0, 0]), None)], Strange(5), 0, BLACK)
