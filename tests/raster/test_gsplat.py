"""gsplat's kernels against the CPU rasteriser, where there is CUDA; and what can be checked of them without.

On a machine with CUDA: `pytest tests/raster -m gpu`.
"""

import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch
from support.dense_splats import camera, leaves, picture, scene

from nerfstudio_prune.raster.choosing import rasterizer_for
from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.gsplat import contributions_of_pairs
from nerfstudio_prune.raster.harmonics import colors_of
from nerfstudio_prune.raster.interface import SUMS, Contributions, Rasterizer, Rendering, Sum, View
from nerfstudio_prune.raster.projection import project

CUDA = torch.device("cuda")
GAUSSIANS = scene(3000, size=0.04, logit=0.5, dtype=torch.float32)
VIEW = camera(200, 150, torch.float32)
BACKGROUND = torch.tensor([1.0, 0.2, 0.6])


@pytest.fixture
def gsplat() -> Iterator[Rasterizer]:
    """The rasteriser; its kernels are compiled at first use, which takes minutes."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA")
    yield rasterizer_for("auto", CUDA)


def on_cuda(view: View) -> View:
    """A camera's matrices there."""
    return view._replace(viewmat=view.viewmat.to(CUDA), K=view.K.to(CUDA))


def test_contributions_from_a_list_of_pairs() -> None:
    """The sums that are taken of gsplat's pairs, on pairs by the textbook: they must be what the CPU's sweep says."""
    gaussians, view = scene(120, size=0.2, logit=2.0), camera()
    background = BACKGROUND.double()
    p = project(gaussians, view)
    colors = colors_of(gaussians, view, 3, p.radii)
    dense = picture(p.means2d, p.conics, p.opacities, colors, p.depths, p.radii, view.width, view.height)
    order = torch.argsort(p.depths, stable=True)
    weights = dense.weights[order].flatten(1).T
    at, rank = weights.nonzero().unbind(-1)
    through = 1 - (weights.cumsum(1) - weights)[at, rank]
    counted = torch.rand(view.height, view.width, generator=torch.Generator().manual_seed(4)) < 0.7
    got = contributions_of_pairs(order[rank], at, weights[at, rank] / through, colors, background, counted.flatten())
    wanted = CpuRasterizer().contributions(gaussians, view, 3, background, pixels=counted)
    assert_same(got, wanted, 1e-8)


def test_no_pairs() -> None:
    """A camera that sees nothing."""
    none = torch.zeros(0, dtype=torch.int64)
    got = contributions_of_pairs(
        none, none, torch.zeros(0).double(), torch.ones(3, 3).double(), BACKGROUND.double(), none > 0
    )
    assert got.sums.keys() == SUMS
    assert not any(sums.any() for sums in got.sums.values())


@pytest.mark.parametrize("wants", [{"hits"}, {"weights", "max_weights"}, {"removal_l1"}])
def test_other_sums_are_left_out(wants: set[Sum]) -> None:
    """What nobody asked for takes time and memory."""
    pairs = torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0.5, 0.25]).double()
    rest = torch.ones(3, 3).double(), BACKGROUND.double(), torch.ones(1) > 0
    some, all_of_them = contributions_of_pairs(*pairs, *rest, wants), contributions_of_pairs(*pairs, *rest)
    assert some.sums.keys() == wants
    assert all(torch.equal(some[name], all_of_them[name]) for name in wants)


@pytest.mark.parametrize("module", [None, SimpleNamespace(_C=None)], ids=["build fails", "no nvcc"])
def test_missing_kernels_are_named(module: Optional[SimpleNamespace], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU but without nvcc a person must read what to install."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", module)
    with pytest.raises(ValueError, match=r"gsplat.*nvcc.*--pipeline.model.rasterizer cpu"):
        rasterizer_for("auto", CUDA)


def assert_same(got: Contributions, wanted: Contributions, relative: float) -> None:
    """By the largest of each."""
    for name, theirs in wanted.sums.items():
        assert (got[name].cpu() - theirs).abs().max() <= relative * theirs.abs().max(), name


def both(
    gsplat: Rasterizer, antialiased: bool = False, colors: Optional[torch.Tensor] = None
) -> tuple[tuple[Gaussians, Rendering], tuple[Gaussians, Rendering]]:
    """Leaves and rendering on the CPU and on CUDA, after a backward pass of the same loss."""
    results = []
    for rasterizer, device in ((CpuRasterizer(), torch.device("cpu")), (gsplat, CUDA)):
        gaussians = leaves(GAUSSIANS.to(device))
        view = on_cuda(VIEW) if device == CUDA else VIEW
        given = None if colors is None else colors.to(device)
        rendering = rasterizer.render(
            gaussians, view, 3, antialiased=antialiased, depth=True, absgrad=True, colors=given
        )
        rendering.means2d.retain_grad()
        assert rendering.depths is not None
        rgb = rendering.colors + (1 - rendering.alphas) * BACKGROUND.to(device)[: rendering.colors.shape[-1]]
        generator = torch.Generator().manual_seed(5)
        target = torch.rand(rgb.shape, generator=generator).to(device)
        # Where next to nothing is, the expected depth hangs on the last pair.
        depth = (rendering.depths * rendering.alphas.detach()).sum()
        (((rgb - target) ** 2).sum() + 0.01 * depth).backward()
        results.append((gaussians, rendering))
    return results[0], results[1]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB of a range of 1."""
    return float(-10 * torch.log10((a.cpu() - b.cpu()).square().mean()))


@pytest.mark.gpu
@pytest.mark.parametrize("antialiased", [False, True])
def test_pictures_and_gradients_agree(gsplat: Rasterizer, antialiased: bool) -> None:
    """A scene that was trained on one machine is looked at on the other. gsplat draws in tiles that a square of three
    standard deviations touches, so it lacks a few pairs, each of alpha 0.011 at most."""
    (mine, here), (theirs, there) = both(gsplat, antialiased)
    assert psnr(here.colors, there.colors) >= 60
    assert psnr(here.alphas, there.alphas) >= 60
    assert here.depths is not None and there.depths is not None
    assert ((here.depths - there.depths.cpu()).abs() > 1e-2).float().mean() < 0.01
    assert (here.radii != there.radii.cpu()).float().mean() < 1e-3
    for name, tensor in mine.items():
        other = getattr(theirs, name).grad
        assert tensor.grad is not None and other is not None
        assert (tensor.grad - other.cpu()).norm() <= 0.01 * tensor.grad.norm(), name
    assert there.means2d.shape == here.means2d.shape
    for name in ("grad", "absgrad"):
        a, b = getattr(here.means2d, name), getattr(there.means2d, name).cpu()
        assert (a - b).norm() <= 0.01 * a.norm(), name


@pytest.mark.gpu
def test_heat_maps_agree(gsplat: Rasterizer) -> None:
    """One channel of colours that are given."""
    (_, here), (_, there) = both(
        gsplat, colors=torch.rand(len(GAUSSIANS), 1, generator=torch.Generator().manual_seed(1))
    )
    assert there.colors.shape == (VIEW.height, VIEW.width, 1)
    assert psnr(here.colors, there.colors) >= 60


@pytest.mark.gpu
def test_contributions_agree(gsplat: Rasterizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores must cut the same Gaussians on either machine; however many rows of pixels are held at once."""
    monkeypatch.setattr("nerfstudio_prune.raster.gsplat.PIXELS_AT_ONCE", 37 * VIEW.width)
    pixels = torch.rand(VIEW.height, VIEW.width, generator=torch.Generator().manual_seed(4)) < 0.7
    wanted = CpuRasterizer().contributions(GAUSSIANS, VIEW, 3, BACKGROUND, pixels=pixels)
    got = gsplat.contributions(GAUSSIANS.to(CUDA), on_cuda(VIEW), 3, BACKGROUND.to(CUDA), pixels=pixels.to(CUDA))
    assert_same(got, wanted, 1e-2)


@pytest.mark.gpu
def test_nothing_to_see_on_cuda(gsplat: Rasterizer) -> None:
    """A camera may look the other way."""
    away = Gaussians(**{name: t - 100 if name == "means" else t for name, t in GAUSSIANS.to(CUDA).items()})
    rendering = gsplat.render(away, on_cuda(VIEW), 3, depth=True)
    assert not rendering.colors.any()
    for wants in (SUMS, gsplat.cheap):
        got = gsplat.contributions(away, on_cuda(VIEW), 3, BACKGROUND.to(CUDA), wants=wants, antialiased=True)
        assert not any(sums.any() for sums in got.sums.values())


@pytest.mark.gpu
@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_tell_what_lists_of_pairs_tell(gsplat: Rasterizer, antialiased: bool) -> None:
    """The cheap way to a score must rank as the exact one does: the weights are the same, and the mean of many probes
    is the exact sum of squares."""
    pixels = (torch.rand(VIEW.height, VIEW.width, generator=torch.Generator().manual_seed(4)) < 0.7).to(CUDA)
    settings: Any = {"antialiased": antialiased, "pixels": pixels}
    scene, view, background = GAUSSIANS.to(CUDA), on_cuda(VIEW), BACKGROUND.to(CUDA)
    exact = gsplat.contributions(scene, view, 3, background, **settings)
    got = gsplat.contributions(scene, view, 3, background, wants=gsplat.cheap, probes=400, **settings)
    assert (got.weights - exact.weights).abs().max() <= 1e-3 * exact.weights.max()
    plain = (exact.removal_l2 > 1e-6 * exact.removal_l2.max()).nonzero()[:, 0]
    share = (got.removal_l2 / exact.removal_l2)[plain]
    # 400 probes: a standard deviation of at most 7 % for each Gaussian.
    assert (share - 1).abs().max() < 0.5
    assert abs(float(share.mean()) - 1) < 0.02
    again = gsplat.contributions(scene, view, 3, background, wants={"removal_l2"}, probes=400, **settings)
    assert (again.removal_l2 - got.removal_l2).abs().max() <= 1e-3 * got.removal_l2.max()


@pytest.mark.gpu
def test_time_of_contributions(gsplat: Rasterizer, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what a view costs by sums; asserts nothing of it."""
    scene, view, background = GAUSSIANS.to(CUDA), on_cuda(camera(800, 800, torch.float32)), BACKGROUND.to(CUDA)
    kinds: list[set[Sum]] = [{"weights"}, {"removal_l2"}, {"hits"}, {"removal_l1"}]
    for wants in kinds:
        times = []
        for seed in range(6):
            torch.cuda.synchronize()
            start = time.perf_counter()
            gsplat.contributions(scene, view, 3, background, wants=wants, seed=seed)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        with capsys.disabled():
            print(f"\n{', '.join(wants)}: {1000 * min(times):.1f} ms for {len(scene):,} Gaussians at 800 x 800")
