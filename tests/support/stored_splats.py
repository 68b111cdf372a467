"""Gaussians that are stored in files, and how far those that were read are from them."""

from typing import Any

import torch

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians
from support.splats_by_hand import drawn

PLACEMENT = Placement(((1.0, 0.0, 0.0, 0.1), (0.0, 0.0, -1.0, 1 / 3), (0.0, 1.0, 0.0, -2.5)), 0.7)


def stored(count: int = 40, sh_degree: int = 2, seed: int = 0, **known: Any) -> StoredGaussians:
    """Random Gaussians, with what is known beside them."""
    return StoredGaussians(drawn(count, sh_degree, seed), **known)


def largest_deviations(first: Gaussians, second: Gaussians) -> dict[str, float]:
    """Largest deviation of each parameter: quaternions as rotations, opacities in [0, 1], others as they are."""
    pairs = {name: (tensor, getattr(second, name)) for name, tensor in first.items()}
    one, other = (torch.nn.functional.normalize(quats, dim=1) for quats in pairs["quats"])
    pairs["quats"] = one, other * torch.sign((one * other).sum(dim=1, keepdim=True))
    logits = pairs["opacities"]
    pairs["opacities"] = logits[0].sigmoid(), logits[1].sigmoid()
    return {name: float((a - b).abs().max()) if a.numel() else 0.0 for name, (a, b) in pairs.items()}
