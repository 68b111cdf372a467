"""What pictures make of an error in a number of a Gaussian: by it steps of rounding are chosen."""

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from nerfstudio_prune.raster.gaussians import Gaussians

LIGHT = 1e-3
"""Sum over all Gaussians of what a colour's error of 1 does to the mean square of a picture; about that of a scene that
fills half of its pictures."""
SMALLEST_SHARE = 1e-4
"""Of the scene's extent: sizes below it are alike, where nothing is known of the pixels."""
POSITION, SCALE, ROTATION, OPACITY = 0.05, 0.2, 3.0, 3.0
"""How much more than an error of the colour one of a centre counts, in units of the middle axis, or one of the
logarithm of a size, of a rotation, or of an opacity's logit."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Means over pixels and colours of the squared derivative by each number, for each Gaussian."""

    positions: Float[ndarray, " gaussians"]
    """By a coordinate of the centre; the mean over the three."""
    scales: Float[ndarray, "gaussians 3"]
    """By the logarithm of each size."""
    rotations: Float[ndarray, " gaussians"]
    """By a part of the unit quaternion; the mean over the three that it can change in."""
    opacities: Float[ndarray, " gaussians"]
    """By the logit."""
    colors: Float[ndarray, " gaussians"]
    """By a coefficient of the constant harmonic; the mean over the three colours."""
    smallest_scale: float
    """Sizes far below it look alike; in world units, above 0."""
    directions: Optional[Float[ndarray, "coefficients coefficients"]] = None
    """Mean products of two harmonics over the directions that Gaussians are seen from, the first of which is 1. None:
    all directions are alike."""


def assumed_evidence(gaussians: Gaussians) -> Evidence:
    """What can be said without views: a Gaussian counts by what it covers and how opaque it is.

    Args:
        gaussians: On the CPU, finite.
    """
    sizes = np.sort(gaussians.scales.double().clamp(-40, 40).exp().numpy(), axis=1)
    opacity = gaussians.opacities.double().sigmoid().numpy()[:, 0]
    means = gaussians.means.double().numpy()
    smallest = SMALLEST_SHARE * max(float(np.ptp(means, axis=0).max()), float(np.median(sizes[:, 2])), 1e-20)
    middle = np.maximum(sizes[:, 1], smallest)
    # Not in proportion: most of what a large one would cover is covered by others.
    seen = opacity * np.sqrt(np.minimum(middle * np.maximum(sizes[:, 2], smallest), 1e30))
    colors = LIGHT * seen / max(float(seen.sum()), 1e-30)
    return Evidence(
        positions=POSITION * colors / np.square(middle),
        scales=np.repeat(SCALE * colors[:, None], 3, axis=1),
        rotations=ROTATION * colors,
        opacities=OPACITY * colors * np.square(1 - opacity),
        colors=colors,
        smallest_scale=smallest,
    )


def is_usable(evidence: Evidence, count: int, degree: int) -> bool:
    """Whether evidence is of so many Gaussians of a degree, finite and not negative.

    Args:
        evidence: What was gathered.
        count: Gaussians.
        degree: Of their spherical harmonics.
    """
    one = [evidence.positions, evidence.rotations, evidence.opacities, evidence.colors]
    arrays = [*one, evidence.scales]
    directions = evidence.directions
    return (
        all(array.shape == (count,) for array in one)
        and evidence.scales.shape == (count, 3)
        and all(bool(np.isfinite(array).all()) and bool((array >= 0).all()) for array in arrays)
        and math.isfinite(evidence.smallest_scale)
        and evidence.smallest_scale > 0
        and (directions is None or directions.shape == ((degree + 1) ** 2,) * 2)
    )
