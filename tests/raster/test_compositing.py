"""Pictures and gradients of the CPU rasteriser against the textbook, in float64."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from support.dense_splats import Picture, camera, leaves, picture, scene
from torch import Tensor

from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.harmonics import colors_of
from nerfstudio_prune.raster.interface import Rendering, View
from nerfstudio_prune.raster.projection import Projection, project

VIEW = camera()
RASTERIZER = CpuRasterizer()


def by_the_book(gaussians: Gaussians, view: View, antialiased: bool = False) -> tuple[Projection, Picture]:
    """The picture, and the projection that it was made of."""
    projection = project(gaussians, view, antialiased)
    colors = colors_of(gaussians, view, gaussians.sh_degree, projection.radii)
    shapes = (projection.means2d, projection.conics, projection.opacities)
    return projection, picture(*shapes, colors, projection.depths, projection.radii, view.width, view.height)


def random_loss(colors: Tensor, alphas: Tensor, depths: Tensor) -> Tensor:
    """A loss in which every number of a picture has its own weight."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (colors, alphas, depths)]
    return torch.stack([(t * w.to(t)).sum() for t, w in zip((colors, alphas, depths), weights, strict=True)]).sum()


def needles() -> Gaussians:
    """A hundred times longer than wide, in all directions."""
    gaussians = scene(40, size=0.1)
    return replace(gaussians, scales=gaussians.scales + torch.tensor([1.5, -3, -3]))


def unseen() -> Gaussians:
    """Behind the camera, off the picture, without opacity, and all over the picture."""
    gaussians = scene(30)
    means, scales, opacities = gaussians.means.clone(), gaussians.scales.clone(), gaussians.opacities.clone()
    means[:5, 2] = -10
    means[5:10, 0] = 50
    opacities[10:15] = -20
    opacities[15] = -torch.inf
    scales[16:18] = 3
    return replace(gaussians, means=means, scales=scales, opacities=opacities)


SCENES = {
    "few": scene(60),
    "opaque, pixels end early": scene(250, size=0.3, logit=3.0),
    "small": scene(300, size=0.01),
    "needles": needles(),
    "not seen": unseen(),
    "one": scene(1),
}


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("name", SCENES)
def test_picture_and_gradients_are_those_of_the_textbook(name: str, antialiased: bool) -> None:
    """Everything that is trained and measured hangs on this: colours, alphas, depths, pairs, gradients of all six
    tensors and the absolute gradients that densification goes by."""
    mine, theirs = leaves(SCENES[name]), leaves(SCENES[name])
    rendering = RASTERIZER.render(mine, VIEW, 3, antialiased=antialiased, depth=True, absgrad=True)
    projection, expected = by_the_book(theirs, VIEW, antialiased)
    assert rendering.depths is not None
    for got, want in (
        (rendering.colors, expected.colors),
        (rendering.alphas, expected.alphas),
        (rendering.depths, expected.depths),
    ):
        assert (got - want).abs().max() < 1e-10
    assert rendering.pairs == int((expected.weights > 0).sum())
    assert rendering.radii.tolist() == projection.radii.tolist()

    rendering.means2d.retain_grad()
    projection.means2d.retain_grad()
    random_loss(rendering.colors, rendering.alphas, rendering.depths).backward()
    random_loss(expected.colors, expected.alphas, expected.depths).backward()
    for parameter, tensor in mine.items():
        wanted = getattr(theirs, parameter).grad
        assert (tensor.grad - wanted).abs().max() <= 1e-10 * wanted.abs().max(), parameter
    assert rendering.means2d.grad is not None and projection.means2d.grad is not None
    assert (
        rendering.means2d.grad[0] - projection.means2d.grad
    ).abs().max() <= 1e-10 * projection.means2d.grad.abs().max()
    absolute = torch.stack(
        [torch.zeros(2) if p.grad is None else p.grad.abs().sum(dim=(0, 1)) for p in expected.absgrad_parts]
    )
    assert (rendering.means2d.absgrad[0] - absolute).abs().max() <= 1e-10 * absolute.max()  # type: ignore[attr-defined]


def test_gradients_agree_with_finite_differences() -> None:
    """The textbook's gradients come from the same formulas of the projection; this leaves no formula to trust."""
    view = camera(7, 6)

    def render(*tensors: Tensor) -> tuple[Tensor, ...]:
        rendering = RASTERIZER.render(Gaussians(*tensors), view, 2, antialiased=True, depth=True)
        assert rendering.depths is not None
        return rendering.colors, rendering.alphas, rendering.depths

    tensors = [tensor for _, tensor in leaves(scene(4, size=0.5, degree=2, seed=2)).items()]
    assert torch.autograd.gradcheck(render, tensors, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_single_precision_is_close() -> None:
    """Training runs in float32, where transmittance is restored by division on the way back."""
    mine, theirs = (
        leaves(Gaussians(**{name: t.to(dtype) for name, t in SCENES["opaque, pixels end early"].items()}))
        for dtype in (torch.float32, torch.float64)
    )
    results = [RASTERIZER.render(g, VIEW, 3, depth=True) for g in (mine, theirs)]
    assert results[0].colors.dtype == torch.float32
    assert (results[0].colors - results[1].colors).abs().max() < 2e-6
    for result in results:
        assert result.depths is not None
        random_loss(result.colors, result.alphas, result.depths).backward()
    for name, tensor in mine.items():
        wanted = getattr(theirs, name).grad
        assert (tensor.grad - wanted).norm() < 1e-5 * wanted.norm(), name


def run(gaussians: Gaussians, view: View) -> list[Tensor]:
    """Picture, gradients and contributions."""
    mine = leaves(gaussians)
    rendering: Rendering = RASTERIZER.render(mine, view, 3, depth=True, absgrad=True)
    assert rendering.depths is not None
    random_loss(rendering.colors, rendering.alphas, rendering.depths).backward()
    contributions = RASTERIZER.contributions(gaussians, view, 3, torch.ones(3))
    return [
        rendering.colors,
        rendering.alphas,
        rendering.means2d.absgrad,  # type: ignore[attr-defined]
        *(t.grad for _, t in mine.items() if t.grad is not None),
        *contributions.sums.values(),
    ]


def test_number_of_threads_changes_nothing() -> None:
    """Runs are compared bit for bit; on how many cores they ran must not matter."""
    gaussians, view = scene(500, size=0.1, dtype=torch.float32), camera(60, 75, torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append(run(gaussians, view))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_two_threads_may_render_at_once() -> None:
    """A viewer renders while training goes on."""
    gaussians = scene(300, size=0.1, dtype=torch.float32)
    views = [camera(60 + i, 50, torch.float32) for i in range(8)]
    expected = [run(gaussians, view) for view in views]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda view: run(gaussians, view), views))
    for one, other in zip(results, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_see(count: int) -> None:
    """A camera may look the other way, and a preview may cut everything."""
    gaussians = scene(count)
    gaussians = leaves(replace(gaussians, means=gaussians.means - 100))
    rendering = RASTERIZER.render(gaussians, VIEW, 3, depth=True, absgrad=True)
    assert rendering.depths is not None
    assert rendering.pairs == 0
    assert not rendering.radii.any()
    for image in (rendering.colors, rendering.alphas, rendering.depths):
        assert image.shape[:2] == (VIEW.height, VIEW.width)
        assert not image.any()
    random_loss(rendering.colors, rendering.alphas, rendering.depths).backward()
    assert all(tensor.grad is None or not tensor.grad.any() for _, tensor in gaussians.items())


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_colours_given(channels: int) -> None:
    """Heat maps have one channel; colours that are given take the place of the harmonics and get their gradient."""
    gaussians = scene(60)
    colors = torch.rand(60, channels, dtype=torch.float64, requires_grad=True)
    rendering = RASTERIZER.render(gaussians, VIEW, 3, colors=colors)
    projection = project(gaussians, VIEW)
    shapes = (projection.means2d, projection.conics, projection.opacities)
    expected = picture(*shapes, colors, projection.depths, projection.radii, VIEW.width, VIEW.height)
    assert (rendering.colors - expected.colors).abs().max() < 1e-10
    (gradient,) = torch.autograd.grad(rendering.colors.square().sum(), colors)
    (wanted,) = torch.autograd.grad(expected.colors.square().sum(), colors)
    assert (gradient - wanted).abs().max() < 1e-10


EXTREMES = {
    "needle": ("scales", [12.0, -8.0, -8.0]),
    "huge": ("scales", [20.0, 20.0, 20.0]),
    "overflows": ("scales", [80.0, 80.0, 80.0]),
    "not a number": ("scales", [torch.nan] * 3),
    "nowhere": ("means", [torch.nan] * 3),
    "far to the side": ("means", [1e30, 0.0, 0.0]),
    "far away": ("means", [0.0, 0.0, 1e9]),
    "without a rotation": ("quats", [0.0, 0.0, 0.0, 0.0]),
    "without an opacity": ("opacities", [torch.nan]),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_one_gaussian_gone_wild_does_no_harm(name: str) -> None:
    """Next to the camera a Gaussian may be so long that its conic is singular in float32, and training may diverge.
    Compiled code must neither read elsewhere in memory nor spoil what the others show and learn."""
    gaussians = scene(20, dtype=torch.float32, logit=2.0)
    parameter, values = EXTREMES[name]
    tensor = getattr(gaussians, parameter).clone()
    tensor[3] = torch.tensor(values)
    mine, view = leaves(replace(gaussians, **{parameter: tensor})), camera(dtype=torch.float32)
    rendering = RASTERIZER.render(mine, view, 3, antialiased=True, depth=True, absgrad=True)
    assert rendering.depths is not None
    random_loss(rendering.colors, rendering.alphas, rendering.depths).backward()
    assert rendering.colors.isfinite().all()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for _, tensor in mine.items())
    contributions = RASTERIZER.contributions(mine.detach(), view, 3, torch.ones(3))
    assert all(sums.isfinite().all() for sums in contributions.sums.values())


def test_views_of_other_precision_are_taken() -> None:
    """Cameras come in float32 whatever the scene is tested in."""
    gaussians = scene(20)
    single = camera(dtype=torch.float32)
    rendering = RASTERIZER.render(gaussians, single, 3)
    assert rendering.colors.dtype == torch.float64
