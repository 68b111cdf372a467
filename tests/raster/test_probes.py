"""Sums by gradients of pictures against the exact ones: what GPUs rank Gaussians by must be what it is taken for."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.dense_splats import camera, scene

from nerfstudio_prune.gaussians.contributions import collect
from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import SUMS, Contributions, Sum, View
from nerfstudio_prune.raster.probes import BY_GRADIENTS, by_gradients, random_signs, removal_l2

RASTERIZER = CpuRasterizer()
BACKGROUND = torch.tensor([1.0, 0.2, 0.6], dtype=torch.float64)
TINY = camera(4, 5)
"""60 values: few enough for a probe of each row of a Hadamard matrix."""


def close(mine: torch.Tensor, wanted: torch.Tensor, relative: float) -> bool:
    """By the largest."""
    return bool((mine - wanted).abs().max() <= relative * wanted.abs().max())


def orthogonal_probes() -> torch.Tensor:
    """64 probes of signs whose columns are orthogonal; the mean over them is that over all signs."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < 64:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix[:, :60].reshape(64, TINY.height, TINY.width, 3)


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_mean_over_probes_is_the_exact_sum_of_squares(antialiased: bool) -> None:
    """Unbiased: otherwise more views would not make it better. Masked pixels have probes of 0."""
    gaussians = scene(60, size=0.3, logit=1.0)
    counted = torch.rand(TINY.height, TINY.width, generator=torch.Generator().manual_seed(1)) < 0.7
    probes = orthogonal_probes() * counted[..., None]
    got = removal_l2(RASTERIZER, gaussians, TINY, 3, BACKGROUND, probes, antialiased=antialiased)
    exact = RASTERIZER.contributions(gaussians, TINY, 3, BACKGROUND, pixels=counted, antialiased=antialiased)
    assert exact.removal_l2.count_nonzero() > 20
    assert close(got, exact.removal_l2, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opaque_gaussians_keep_their_worth(dtype: torch.dtype) -> None:
    """The gradient by a logit is 0 where the opacity is 1: opaque Gaussians, which matter most, would go first."""
    gaussians = scene(3, size=1.0, dtype=dtype)
    gaussians = replace(gaussians, opacities=torch.tensor([[60.0], [8.0], [-1.0]], dtype=dtype))
    got = removal_l2(RASTERIZER, gaussians, TINY, 3, BACKGROUND.to(dtype), orthogonal_probes().to(dtype))
    exact = RASTERIZER.contributions(gaussians, TINY, 3, BACKGROUND.to(dtype)).removal_l2
    assert exact[0] > 0
    assert exact[1] > 0
    assert close(got, exact, 5e-3)


def test_weights_are_exact() -> None:
    """The gradient by the colours is the sum of T alpha, without any chance."""
    gaussians = scene(200, size=0.3, logit=3.0)
    view = camera()
    pixels = torch.rand(view.height, view.width, generator=torch.Generator().manual_seed(1)) < 0.7
    settings: Any = {"wants": {"weights"}, "antialiased": True, "pixels": pixels}
    got = by_gradients(RASTERIZER, gaussians, view, 3, BACKGROUND, **settings)
    assert got.sums.keys() == {"weights"}
    assert close(got.weights, RASTERIZER.contributions(gaussians, view, 3, BACKGROUND, **settings).weights, 1e-10)


class ByGradients(CpuRasterizer):
    """The CPU's pictures, and no other way to the contributions than their gradients."""

    cheap = BY_GRADIENTS

    def contributions(
        self, gaussians: Gaussians, view: View, *args: Any, wants: Collection[Sum] = SUMS, **settings: Any
    ) -> Contributions:
        return by_gradients(self, gaussians, view, *args, wants=wants, **settings)


def test_one_probe_a_view_ranks_as_the_exact_score_does() -> None:
    """A cut on a GPU goes by one probe for each of a hundred views; here for each of 40."""
    gaussians = scene(300, dtype=torch.float32)
    gaussians.opacities.requires_grad_()
    views = [(move(camera(dtype=torch.float32), 0.01 * i), None) for i in range(40)]
    background = BACKGROUND.float()
    exact = collect(gaussians, views, RASTERIZER, 3, background, wants={"removal_l2"}).removal_l2
    got = collect(gaussians, views, ByGradients(), 3, background, wants={"removal_l2"}, seed=3).removal_l2
    again = collect(gaussians, views, ByGradients(), 3, background, wants={"removal_l2"}, seed=3).removal_l2
    assert torch.equal(got, again)
    assert gaussians.opacities.grad is None
    assert not got.requires_grad
    seen = exact > 0
    assert torch.corrcoef(torch.stack([got[seen].log(), exact[seen].log()]))[0, 1] > 0.97
    assert abs(float(got.sum() / exact.sum()) - 1) < 0.2


def move(view: View, by: float) -> View:
    """The camera a little to the side."""
    viewmat = view.viewmat.clone()
    viewmat[0, 3] += by
    return view._replace(viewmat=viewmat)


def test_more_probes_are_nearer() -> None:
    """Their number is what a person may pay for a better estimate."""
    gaussians, view = scene(60), camera()
    exact = RASTERIZER.contributions(gaussians, view, 3, BACKGROUND).removal_l2
    errors = []
    for probes in (1, 100):
        got = by_gradients(RASTERIZER, gaussians, view, 3, BACKGROUND, wants={"removal_l2"}, seed=2, probes=probes)
        errors.append(float((got.removal_l2 / exact - 1)[exact > 0].square().mean().sqrt()))
    assert errors[1] < 0.25 < errors[0]


def test_signs_are_fair_and_repeat() -> None:
    """-1 and 1 alike, drawn anew for each channel; 0 where a pixel does not count."""
    counted = torch.ones(50, 40, 1)
    counted[:, :10] = 0
    signs = random_signs(counted, torch.Generator().manual_seed(1))
    assert torch.equal(signs, random_signs(counted, torch.Generator().manual_seed(1)))
    assert not signs[:, :10].any()
    assert (signs[:, 10:].abs() == 1).all()
    assert abs(float(signs.sum())) < 4 * 4500**0.5
    assert abs(float((signs[..., 0] * signs[..., 1]).sum())) < 4 * 1500**0.5


def test_what_gradients_do_not_tell_is_an_error() -> None:
    """Hits and largest weights have no gradient; and no probe is no estimate."""
    with pytest.raises(ValueError, match="tell removal_l2, weights, and not hits, removal_l1"):
        by_gradients(RASTERIZER, scene(3), TINY, 3, BACKGROUND, wants={"hits", "removal_l1", "weights"})
    with pytest.raises(ValueError, match="probes must be at least 1, got 0"):
        by_gradients(RASTERIZER, scene(3), TINY, 3, BACKGROUND, wants={"removal_l2"}, probes=0)
