"""Which rasteriser renders."""

import torch

from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.gsplat import GsplatRasterizer
from nerfstudio_prune.raster.interface import Rasterizer

OPTION = "--pipeline.model.rasterizer"
"""How a person chooses one."""
RASTERIZERS = ("auto", "gsplat", "cpu")
"""What may be chosen."""


def rasterizer_for(name: str, device: torch.device) -> Rasterizer:
    """The rasteriser of that name, for Gaussians that live on a device.

    Args:
        name: One of `RASTERIZERS`. auto: gsplat on CUDA, cpu on a CPU. There is never a silent way out: on CUDA without
            gsplat's kernels a person is told, and may choose a CPU for everything.
        device: Where the Gaussians live.

    Raises:
        ValueError: If there is no such rasteriser, or it cannot render there.
    """
    if name not in RASTERIZERS:
        raise ValueError(f"{OPTION} must be one of {', '.join(RASTERIZERS)}, got {name!r}")
    on_cuda = device.type == "cuda"
    if name == "cpu" and device.type != "cpu":
        raise ValueError(
            f"{OPTION} cpu renders on the CPU, but the Gaussians live on {device}; "
            "set --machine.device-type cpu as well, or leave the option at auto"
        )
    if name == "gsplat" and not on_cuda:
        raise ValueError(f"{OPTION} gsplat needs CUDA, but the Gaussians live on {device}; choose cpu, or auto")
    if device.type == "cpu":
        return CpuRasterizer()
    if not on_cuda:
        raise ValueError(
            f"{OPTION} {name}: no rasteriser for Gaussians on {device}; set --machine.device-type cpu, or cuda"
        )
    return GsplatRasterizer()
