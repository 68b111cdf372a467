"""Projection and colours against gsplat's own formulas."""

from dataclasses import replace
from typing import Optional

import pytest
import torch
from gsplat.cuda import _torch_impl as gsplat
from support.dense_splats import camera, leaves, scene
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.harmonics import colors_of
from nerfstudio_prune.raster.interface import View
from nerfstudio_prune.raster.projection import project

VIEW = camera()
EVERYONE = torch.ones(50, dtype=torch.int32)


def wide_scene() -> Gaussians:
    """Gaussians in the picture, at its edges, far outside of it and behind the camera."""
    gaussians = scene(400, seed=3)
    return replace(gaussians, means=gaussians.means * 5)


def by_gsplat(gaussians: Gaussians, view: View) -> tuple[Tensor, ...]:
    """Radii, centres, depths, conics and compensations."""
    covariances, _ = gsplat._quat_scale_to_covar_preci(gaussians.quats, gaussians.scales.exp(), True, False)
    assert covariances is not None
    results = gsplat._fully_fused_projection(
        gaussians.means,
        covariances,
        view.viewmat[None],
        view.K[None],
        view.width,
        view.height,
        calc_compensations=True,
    )
    return tuple(r.squeeze(0) for r in results if r is not None)


def assert_same(mine: Optional[Tensor], theirs: Optional[Tensor]) -> None:
    """To twelve digits of the largest."""
    assert mine is not None and theirs is not None
    assert (mine - theirs).abs().max() <= 1e-12 * theirs.abs().max()


def test_projection_is_gsplats() -> None:
    """A scene trained here must look the same under gsplat, and the other way round."""
    gaussians = wide_scene()
    radii, means2d, depths, conics, compensations = by_gsplat(gaussians, VIEW)
    plain, sharp = project(gaussians, VIEW), project(gaussians, VIEW, antialiased=True)
    seen = radii > 0
    assert 0 < seen.sum() < len(gaussians)
    assert plain.radii.tolist() == radii.tolist() == sharp.radii.tolist()
    assert_same(plain.means2d[seen], means2d[seen])
    assert_same(plain.depths[seen], depths[seen])
    assert_same(plain.conics[seen], conics[seen])
    opacities = gaussians.opacities.squeeze(-1).sigmoid()
    assert_same(plain.opacities[seen], opacities[seen])
    assert_same(sharp.opacities[seen], (opacities * compensations)[seen])


def test_gradients_of_the_projection_are_those_of_gsplats_formulas() -> None:
    """Also where tangents are clamped, at the edges of the picture."""
    mine, theirs = leaves(wide_scene()), leaves(wide_scene())
    radii, means2d, depths, conics, compensations = by_gsplat(theirs, VIEW)
    seen = radii > 0
    projection = project(mine, VIEW, antialiased=True)
    opacities = theirs.opacities.squeeze(-1).sigmoid() * compensations
    generator = torch.Generator().manual_seed(1)
    pairs = [
        (projection.means2d, means2d),
        (projection.conics, conics),
        (projection.depths, depths),
        (projection.opacities, opacities),
    ]
    losses = [torch.zeros((), dtype=torch.float64)] * 2
    for pair in pairs:
        weights = torch.randn(pair[0].shape, generator=generator, dtype=torch.float64)
        losses = [loss + (weights * t)[seen].sum() for loss, t in zip(losses, pair, strict=True)]
    for loss in losses:
        loss.backward()
    for name in ("means", "scales", "quats", "opacities"):
        assert_same(getattr(mine, name).grad, getattr(theirs, name).grad)


@pytest.mark.parametrize("degree", range(4))
def test_colours_are_gsplats(degree: int) -> None:
    """Order and signs of the coefficients are a convention; a file that another program wrote must show the same
    colours. Degrees above the one asked for must not count, and get no gradient."""
    mine, theirs = leaves(scene(50)), leaves(scene(50))
    colors = colors_of(mine, VIEW, degree, EVERYONE)
    coefficients = torch.cat((theirs.features_dc[:, None], theirs.features_rest), dim=1)
    directions = theirs.means - torch.inverse(VIEW.viewmat)[:3, 3]
    expected = (gsplat._spherical_harmonics(degree, directions, coefficients) + 0.5).clamp(min=0)
    assert_same(colors, expected)
    assert (colors == 0).any()
    weights = torch.randn(colors.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for result in (colors, expected):
        (weights * result).sum().backward()
    assert_same(mine.features_dc.grad, theirs.features_dc.grad)
    if degree > 0:
        assert_same(mine.features_rest.grad, theirs.features_rest.grad)
        assert_same(mine.means.grad, theirs.means.grad)


@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_of_the_camera(antialiased: bool) -> None:
    """Camera optimizers move the cameras; by projection and by the direction of the colours."""
    gaussians = wide_scene()
    results = []
    for gsplats in (False, True):
        viewmat = VIEW.viewmat.clone().requires_grad_()
        view = VIEW._replace(viewmat=viewmat)
        if gsplats:
            radii, means2d, depths, conics, compensations = by_gsplat(gaussians, view)
            opacities = gaussians.opacities.squeeze(-1).sigmoid() * (compensations if antialiased else 1.0)
            coefficients = torch.cat((gaussians.features_dc[:, None], gaussians.features_rest), dim=1)
            # By the transpose of the rotation, not by an inverse: that has another gradient.
            directions = gaussians.means + viewmat[:3, :3].T @ viewmat[:3, 3]
            colors = (gsplat._spherical_harmonics(3, directions, coefficients) + 0.5).clamp(min=0)
        else:
            p = project(gaussians, view, antialiased)
            radii, means2d, depths, conics, opacities = p.radii, p.means2d, p.depths, p.conics, p.opacities
            colors = colors_of(gaussians, view, 3, p.radii)
        generator = torch.Generator().manual_seed(2)
        seen = radii > 0
        loss = torch.zeros((), dtype=torch.float64)
        for tensor in (means2d, conics, depths, opacities, colors):
            loss = loss + (torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * tensor)[seen].sum()
        results.append(torch.autograd.grad(loss, viewmat)[0])
    assert_same(*results)
