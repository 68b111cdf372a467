"""Which rasteriser renders where."""

import pytest
import torch

from nerfstudio_prune.raster.choosing import rasterizer_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_cpu_renders_on_a_cpu(name: str) -> None:
    """No option is needed on a machine without a GPU."""
    assert rasterizer_for(name, CPU).name == "cpu"


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("gsplat", CPU, "needs CUDA"),
        ("cpu", CUDA, "the Gaussians live on cuda.*--machine.device-type cpu"),
        ("fast", CPU, "must be one of auto, gsplat, cpu, got 'fast'"),
        ("auto", torch.device("mps"), "no rasteriser for Gaussians on mps"),
    ],
)
def test_what_cannot_render_is_refused(name: str, device: torch.device, message: str) -> None:
    """Never a silent way out: whoever asks for gsplat, or has a GPU, would wait hours for a CPU without a word."""
    with pytest.raises(ValueError, match=f"--pipeline.model.rasterizer.*{message}"):
        rasterizer_for(name, device)
