"""What is refused before compiled code, which does not look where it reads, sees it."""

import pytest
import torch
from support.dense_splats import camera, scene

from nerfstudio_prune.raster.cpu import CpuRasterizer

VIEW = camera()
RASTERIZER = CpuRasterizer()


@pytest.mark.parametrize("shape", [(60, 4), (60, 0), (59, 3)])
def test_colours_of_other_shapes(shape: tuple[int, ...]) -> None:
    """One to three channels, for each Gaussian."""
    with pytest.raises(ValueError, match=r"colors must have shape \[60, 1 to 3\], got"):
        RASTERIZER.render(scene(60), VIEW, 3, colors=torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("degree", [-1, 3])
def test_degree_that_the_scene_lacks(degree: int) -> None:
    """Harmonics may have been cut since an option was written."""
    with pytest.raises(ValueError, match=rf"sh_degree must be in \[0, 2\].*got {degree}"):
        RASTERIZER.render(scene(3, degree=2), VIEW, degree)


def test_tensors_that_do_not_belong_together() -> None:
    """As after a cut that forgot one of them; outside of tests nothing looks at shapes."""
    short, single = scene(5), scene(5)
    object.__setattr__(short, "quats", short.quats[1:])
    with pytest.raises(ValueError, match=r"quats must be torch.float64 on cpu and of 5 Gaussians.*of 4"):
        RASTERIZER.render(short, VIEW, 3)
    object.__setattr__(single, "opacities", single.opacities.float())
    with pytest.raises(ValueError, match=r"opacities must be torch.float64.*got torch.float32"):
        RASTERIZER.render(single, VIEW, 3)


def test_view_without_pixels() -> None:
    """As from a downscale factor above the picture's size."""
    with pytest.raises(ValueError, match="at least one pixel, got 0 x 45"):
        RASTERIZER.render(scene(5), VIEW._replace(width=0), 3)


def test_scene_on_another_device() -> None:
    """Never a silent copy of a scene from a GPU to the CPU."""
    gaussians = scene(5).to(torch.device("meta"))
    with pytest.raises(ValueError, match=r"live on meta; train with --machine.device-type cpu"):
        RASTERIZER.render(gaussians, VIEW, 3)
