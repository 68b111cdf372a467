"""Tiny networks on a GPU are those of the CPU. Run by `pytest -m gpu` on a machine with CUDA.

With `NERFSTUDIO_PRUNE_PARITY_DEVICE=cpu` the tests compare the CPU with itself, which shows that their own logic holds.
"""

import os
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest
import torch
from support.tiny_run import train

from nerfstudio_prune.kilonerf.grouped import Evaluation, Groups, grouped_matmul, native_works

pytestmark = pytest.mark.gpu

Make = Callable[..., Any]
DEVICE = torch.device(os.environ.get("NERFSTUDIO_PRUNE_PARITY_DEVICE", "cuda"))


@pytest.mark.parametrize("way", ["native", "buckets", "tiles", "loop", "auto"])
def test_products_and_gradients_are_exact(way: Evaluation) -> None:
    """`grouped_mm` is documented for other types of numbers on a GPU: what passes its check there must be right, and
    the rest is what stands in for it."""
    if way == "native" and not native_works(DEVICE, torch.float32):
        pytest.skip("this PyTorch's grouped_mm does not pass the check on this device")
    counts, generator = [40, 0, 3, 100, 0, 1, 7], torch.Generator().manual_seed(0)
    x = torch.randn(sum(counts), 12, generator=generator)
    weights, factor = (torch.randn(*s, generator=generator) for s in ((len(counts), 12, 8), (sum(counts), 8)))
    groups = Groups.of_counts(torch.tensor(counts, device=DEVICE))
    own_x, own_weights = x.to(DEVICE).requires_grad_(), weights.to(DEVICE).requires_grad_()
    found = grouped_matmul(own_x, own_weights, groups, way)
    of_x, of_weights = torch.autograd.grad((found * factor.to(DEVICE)).sum(), (own_x, own_weights))
    exact_x, exact_weights = x.double().requires_grad_(), weights.double().requires_grad_()
    ids = torch.repeat_interleave(torch.tensor(counts))
    expected = torch.einsum("ri,rio->ro", exact_x, exact_weights[ids])
    exact = torch.autograd.grad((expected * factor.double()).sum(), (exact_x, exact_weights))
    for own, other in ((found, expected), (of_x, exact[0]), (of_weights, exact[1])):
        torch.testing.assert_close(own.detach().cpu().double(), other.detach(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("passes", [None, 2], ids=["as it suits", "two samples a pass"])
def test_a_run_shows_the_same_pictures(make: Make, passes: int | None) -> None:
    """A run that was trained on a GPU is looked at without one, and the other way round: phases, removal of what is
    empty and narrowing happen there, and the picture of its networks is that of the CPU."""
    config = make(grid__resolution=3, grid__narrow_to=0.7)
    config.machine.device_type = DEVICE.type
    trainer = train(config)
    model: Any = trainer.pipeline.model
    assert model.device.type == DEVICE.type
    model.eval()
    model.config.samples_per_pass = passes
    camera = trainer.pipeline.datamanager.eval_dataset.cameras[0:1]
    with torch.no_grad():
        there = model.get_outputs_for_camera(camera.to(DEVICE))
        found = {name: there[name].cpu() for name in ("rgb", "accumulation", "depth", "networks", "samples")}
        other = copy(model).cpu()
        here = other.get_outputs_for_camera(camera.to("cpu"))
    for name in ("rgb", "accumulation", "networks"):
        torch.testing.assert_close(found[name], here[name], atol=1e-3, rtol=0)
    # A ray that just ends, or just misses a voxel, may do otherwise there.
    for name in ("depth", "samples"):
        assert (found[name] - here[name]).abs().gt(1e-2).float().mean() < 0.01
    assert found["rgb"].std() > 0.01
