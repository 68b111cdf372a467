"""What a file of Gaussians holds."""

from dataclasses import dataclass
from typing import Optional

from nerfstudio_prune.raster.gaussians import Gaussians


@dataclass(frozen=True)
class Placement:
    """How the space of the Gaussians came about from that of the data."""

    transform: tuple[tuple[float, float, float, float], ...]
    """Three rows: x of the scene = transform @ (x of the data, 1), before the scale."""
    scale: float
    """What that is multiplied with."""


@dataclass(frozen=True, eq=False)
class StoredGaussians:
    """Gaussians with what a renderer has to know beside them. What a format cannot say is None."""

    gaussians: Gaussians
    """On the CPU, float32, all finite."""
    antialiased: Optional[bool] = None
    """Whether opacities are those of the antialiased rasterization."""
    placement: Optional[Placement] = None
    """Where the scene lies in the space of the data."""
