"""What gsplat's densification reads of a rendering."""

from typing import Any

import torch
from gsplat import DefaultStrategy
from support.dense_splats import camera, leaves, scene

from nerfstudio_prune.raster.cpu import CpuRasterizer


def test_densification_reads_absolute_gradients() -> None:
    """Growth goes by them: where a Gaussian is pulled apart, plain gradients cancel out."""
    gaussians, view = leaves(scene(60, dtype=torch.float32)), camera(dtype=torch.float32)
    parameters: Any = dict(gaussians.items())
    for absgrad in (False, True):
        strategy = DefaultStrategy(absgrad=absgrad, refine_start_iter=100)
        state = strategy.initialize_state()
        rendering = CpuRasterizer().render(gaussians, view, 3, absgrad=absgrad)
        info = rendering.strategy_info()
        strategy.step_pre_backward(parameters, {}, state, 1, info)
        rendering.colors.square().sum().backward()
        strategy.step_post_backward(parameters, {}, state, 1, info)
        gradients = rendering.means2d.absgrad if absgrad else rendering.means2d.grad  # type: ignore[attr-defined]
        assert gradients is not None and gradients.shape == (1, 60, 2)
        expected = (gradients[0] * torch.tensor([view.width / 2, view.height / 2])).norm(dim=-1)
        assert torch.equal(state["grad2d"], expected * (rendering.radii > 0))
        assert state["count"].tolist() == (rendering.radii > 0).float().tolist()
