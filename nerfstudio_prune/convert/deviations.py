"""How far the numbers of Gaussians are from those of others, in terms of what is seen."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.raster.gaussians import Gaussians

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: what a coefficient adds to a colour."""


@dataclass(frozen=True)
class Deviation:
    """Of one kind of number, over all Gaussians."""

    name: str
    unit: str
    largest: float
    mean: float


def deviations_of(expected: Gaussians, found: Gaussians) -> list[Deviation]:
    """Deviations of each kind of number.

    Args:
        expected: As many Gaussians, in the same order.
        found: Those that are compared; harmonics that only one of both has count as zeros of the other.
    """
    if len(expected) != len(found):
        raise ValueError(f"expected {len(expected):,} Gaussians, found {len(found):,}")
    return [Deviation(name, unit, float(d.max()), float(d.mean())) for name, unit, d in _differences(expected, found)]


def _differences(expected: Gaussians, found: Gaussians) -> Iterator[tuple[str, str, Tensor]]:
    yield "position", "units of the scene", (found.means - expected.means).norm(dim=1)
    yield "scale", "% of itself", 100 * torch.expm1((found.scales - expected.scales).abs())
    yield "rotation", "degrees", rotation_between(expected.quats, found.quats)
    yield "opacity", "of 1", (found.opacities.sigmoid() - expected.opacities.sigmoid()).abs()
    yield "colour", "of 1", SH_C0 * (found.features_dc - expected.features_dc).abs()
    first, second = _of_one_degree(expected.features_rest, found.features_rest)
    if first.numel():
        yield "harmonics", "coefficients", (second - first).abs()


def rotation_between(first: Float[Tensor, "n 4"], second: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Angles in degrees by which one rotation is turned against the other.

    Args:
        first: Quaternions of any length; of length zero for no rotation at all.
        second: The others.
    """
    one, other = (torch.nn.functional.normalize(quats.double(), dim=1) for quats in (first, second))
    sign = torch.where((one * other).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    # By the chord: the arc cosine of a number near one knows little of small angles.
    half = (0.5 * (one - sign * other).norm(dim=1)).clamp(max=1)
    return torch.rad2deg(4 * torch.asin(half)).float()


def _of_one_degree(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    count = max(first.shape[1], second.shape[1])
    one, other = (torch.nn.functional.pad(part, (0, 0, 0, count - part.shape[1])) for part in (first, second))
    return one, other
