"""What a field and its teacher say of the same points, and losses between the two. Tensors only."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

POINT_FLOOR = 0.1
"""Share of the weight of the point-by-point loss that lies evenly on all points, so that empty space stays empty."""


@dataclass
class FieldValues:
    """What a field says of the points along some rays."""

    density: Float[Tensor, "rays samples 1"]
    """Density per unit of length."""
    rgb: Float[Tensor, "rays samples 3"]
    """Colour in [0, 1]."""
    deltas: Float[Tensor, "rays samples 1"]
    """Length of the step that each point stands for."""

    @property
    def alpha(self) -> Float[Tensor, "rays samples 1"]:
        """Share of the light that each step takes."""
        return alpha_of(self.density, self.deltas)

    @property
    def transmittance(self) -> Float[Tensor, "rays samples 1"]:
        """Share of the light that reaches each step."""
        passed = torch.cumsum(self.density * self.deltas, dim=-2)[..., :-1, :]
        return torch.exp(-torch.cat([torch.zeros_like(self.density[..., :1, :]), passed], dim=-2))

    @property
    def weights(self) -> Float[Tensor, "rays samples 1"]:
        """Contribution of each step to the colour of its ray."""
        return self.alpha * self.transmittance


def alpha_of(density: Float[Tensor, "*batch 1"], deltas: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 1"]:
    """1 - exp(-density * step): opacity of a step, which tames densities that may be any large number.

    Args:
        density: Density per unit of length, >= 0.
        deltas: Lengths of the steps.
    """
    return -torch.expm1(-density * deltas)


def spread(importance: Float[Tensor, "*points"], floor: float = POINT_FLOOR) -> Float[Tensor, "*points"]:
    """Weights of points that sum to 1: a share in proportion to their importance, the rest evenly.

    Args:
        importance: Importance of each point, >= 0.
        floor: The share that is even.
    """
    total = importance.sum().clamp_min(torch.finfo(importance.dtype).tiny)
    return (1 - floor) * importance / total + floor / importance.numel()


def point_loss(student: FieldValues, teacher: FieldValues) -> Float[Tensor, ""]:
    """Squared differences of opacity and of colour at the same points, without rendering.

    KiloNeRF (Reiser et al. 2021, arXiv 2103.13744, section 3.2) compares both at random points with one typical step.
    Here the points are those that the student's own pass evaluates, with their own steps, and each difference counts
    by what it does to the pixel: that of opacity by the teacher's transmittance in front of the point, that of colour
    by the teacher's weight of the point.

    Args:
        student: Carries the gradient.
        teacher: Its values at the same points.
    """
    opacity = (student.alpha - teacher.alpha).square()
    colour = (student.rgb - teacher.rgb).square().mean(dim=-1, keepdim=True)
    return (spread(teacher.transmittance) * opacity).sum() + (spread(teacher.weights) * colour).sum()
