"""Gaussians of a file as the start of a training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.formats import read_splats
from nerfstudio_prune.splat_files.numbers import SH_C0
from nerfstudio_prune.splat_files.stored import Placement

NEAR = 1e-4
"""Difference of two numbers of a placement that is none."""
LAST_COLOUR = 1 / 510
"""How near to 0 and 1 a colour of a model of degree 0 may be: half a step of eight bits."""


def initial_gaussians(path: Path, sh_degree: int, placement: Placement) -> Gaussians:
    """Gaussians of a file, as a model of some degree trains them.

    Harmonics of higher degrees are left out, those of missing ones are zero. A model of degree 0 has logits of colours,
    as the host's.

    Args:
        path: The file, of any format that is read.
        sh_degree: Degree of the model.
        placement: Where the present scene lies in the space of its data.

    Raises:
        ValueError: If the file cannot be read, or says that it lies elsewhere in the space of the data.
    """
    stored = read_splats(path)
    if stored.placement is not None and not _same(stored.placement, placement):
        raise ValueError(
            f"{path}: lies elsewhere in the space of the data, with scale {stored.placement.scale:g}; expected the "
            f"transform of the present scene, with scale {placement.scale:g}. Give the data parser that run's options"
        )
    gaussians = stored.gaussians
    if sh_degree == 0:
        shown = (0.5 + SH_C0 * gaussians.features_dc).clamp(0, 1)
        gaussians = replace(gaussians, features_dc=torch.logit(shown, eps=LAST_COLOUR))
    count = (sh_degree + 1) ** 2 - 1
    rest = gaussians.features_rest[:, :count]
    missing = count - rest.shape[1]
    return replace(gaussians, features_rest=torch.nn.functional.pad(rest, (0, 0, 0, missing)))


def placement_of(transform: Tensor, scale: float) -> Placement:
    """Where a scene lies, as its data parser says.

    Args:
        transform: Rotation and shift [3, 4], or [4, 4].
        scale: What that is multiplied with.
    """
    rows: Any = tuple(tuple(map(float, row)) for row in transform[:3])
    return Placement(rows, float(scale))


def _same(first: Placement, second: Placement) -> bool:
    def numbers(placement: Placement) -> Tensor:
        return torch.tensor([*(value for row in placement.transform for value in row), placement.scale])

    return torch.allclose(numbers(first), numbers(second), rtol=NEAR, atol=NEAR)
