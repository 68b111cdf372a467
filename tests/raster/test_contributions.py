"""What the CPU rasteriser says of each Gaussian, against what happens when it really leaves."""

import pytest
import torch
from support.dense_splats import camera, picture, scene

from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.harmonics import colors_of
from nerfstudio_prune.raster.interface import SUMS, Contributions
from nerfstudio_prune.raster.projection import project

VIEW = camera()
RASTERIZER = CpuRasterizer()
BACKGROUND = torch.tensor([1.0, 0.2, 0.6], dtype=torch.float64)


def composited(gaussians: Gaussians) -> torch.Tensor:
    """The picture on the background."""
    rendering = RASTERIZER.render(gaussians, VIEW, 3)
    return rendering.colors + (1 - rendering.alphas) * BACKGROUND


def close(mine: torch.Tensor, wanted: torch.Tensor, relative: float) -> bool:
    """By the largest."""
    return bool((mine - wanted).abs().max() <= relative * wanted.abs().max())


def test_removal_is_what_the_picture_loses() -> None:
    """The score that pruning goes by: exactly what changes when a Gaussian leaves, with all that it hid."""
    gaussians = scene(50, logit=-1.0)
    whole = composited(gaussians)
    everyone = torch.arange(50)
    changes = torch.stack([whole - composited(gaussians.select(everyone[everyone != i])) for i in range(50)])
    contributions = RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND)
    assert close(contributions.removal_l1, changes.abs().sum(dim=(1, 2, 3)), 1e-6)
    assert close(contributions.removal_l2, changes.square().sum(dim=(1, 2, 3)), 1e-6)


def test_hits_and_weights_are_those_of_the_textbook() -> None:
    """Also where pixels end early, and with antialiasing; all weights together are the alphas."""
    gaussians = scene(200, size=0.3, logit=3.0)
    p = project(gaussians, VIEW, antialiased=True)
    colors = colors_of(gaussians, VIEW, 3, p.radii)
    expected = picture(p.means2d, p.conics, p.opacities, colors, p.depths, p.radii, VIEW.width, VIEW.height)
    contributions = RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND, antialiased=True)
    assert contributions.hits.tolist() == (expected.weights > 0).sum(dim=(1, 2)).tolist()
    assert close(contributions.weights, expected.weights.sum(dim=(1, 2)), 1e-10)
    assert close(contributions.max_weights, expected.weights.amax(dim=(1, 2)), 1e-10)
    assert close(contributions.weights.sum(), expected.alphas.sum(), 1e-10)


def test_only_pixels_that_count_count() -> None:
    """Scores leave out what a mask hides; two halves of a picture together are the whole."""
    gaussians = scene(60)
    half = torch.zeros(VIEW.height, VIEW.width, dtype=torch.bool)
    half[:, :11] = True
    half[30:] = True
    total = Contributions.zeros(60, torch.device("cpu"))
    for pixels in (half, ~half):
        total.add(RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND, pixels=pixels))
    whole = RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND)
    for name in SUMS:
        assert close(total[name], whole[name], 1e-12), name
    nothing = RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND, pixels=torch.zeros_like(half))
    assert not any(nothing[name].any() for name in SUMS)


def test_single_precision_counts_alike() -> None:
    """Scores are taken in the precision of training."""
    gaussians = scene(60)
    single = Gaussians(**{name: tensor.float() for name, tensor in gaussians.items()})
    exact = RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND)
    fast = RASTERIZER.contributions(single, VIEW, 3, BACKGROUND.float())
    assert fast.weights.dtype == torch.float64
    assert close(fast.weights, exact.weights, 1e-5)
    assert close(fast.removal_l1, exact.removal_l1, 1e-4)


def test_only_what_was_asked_for_is_there() -> None:
    """A score that read zeros in place of a sum that was not taken would throw away whatever comes first."""
    gaussians = scene(20)
    whole = RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND)
    some = RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND, wants={"hits", "removal_l2"})
    assert some.count == 20
    assert torch.equal(some.hits, whole.hits)
    assert torch.equal(some.removal_l2, whole.removal_l2)
    with pytest.raises(ValueError, match=r"weights .* was asked for, and what was collected is hits, removal_l2"):
        _ = some.weights
    with pytest.raises(ValueError, match=r"removal_l2 .* was asked for, and what was collected is hits$"):
        some.add(RASTERIZER.contributions(gaussians, VIEW, 3, BACKGROUND, wants={"hits"}))
