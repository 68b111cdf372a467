"""Losses by which tiny networks learn from a teacher, and what to look at afterwards."""

from dataclasses import dataclass
from typing import Optional

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_prune.kilonerf.classes import NetworkClasses

RGB_FLOOR = 0.05
"""How much a colour counts where the teacher sees nothing."""


def opacity(density: Float[Tensor, "*batch"], step_size: float) -> Float[Tensor, "*batch"]:
    """1 - exp(-density * step), in [0, 1].

    Args:
        density: Density, per unit of length, >= 0.
        step_size: Length of the step.
    """
    return -torch.expm1(-density * step_size)


@dataclass(frozen=True, eq=False)
class DistillationLoss:
    """Errors of each network, means over its points."""

    alpha: Float[Tensor, " networks"]
    """Squared error of the opacity of a step."""
    rgb: Float[Tensor, " networks"]
    """Squared error of the colour, weighted, summed over its channels."""

    @property
    def of_networks(self) -> Float[Tensor, " networks"]:
        """Both."""
        return self.alpha + self.rgb

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum over the networks, not the mean: each has a gradient of its own, whatever their number."""
        return self.of_networks.sum()


def distillation_loss(
    density: Float[Tensor, "networks points"],
    rgb: Float[Tensor, "networks points 3"],
    teacher_density: Float[Tensor, "networks points"],
    teacher_rgb: Float[Tensor, "networks points 3"],
    step_size: float,
    behind: Optional[Bool[Tensor, "networks points"]] = None,
) -> DistillationLoss:
    """Squared errors of opacity and colour.

    As KiloNeRF (arXiv 2103.13744, equation 7), but that a colour counts by the teacher's opacity + `RGB_FLOOR`: where
    there is nothing to see the teacher's colour is arbitrary. What is behind everything shows its colour all the same.

    Args:
        density: Density of the networks, per unit of length.
        rgb: Their colour, in [0, 1].
        teacher_density: The teacher's density.
        teacher_rgb: The teacher's colour.
        step_size: Length of the step that opacity is that of; the mean step of the lattice.
        behind: Points whose colour is what is behind everything: it counts as that of something opaque. None: there
            are none.
    """
    wanted = opacity(teacher_density, step_size)
    alpha = (opacity(density, step_size) - wanted).square()
    shown = wanted if behind is None else wanted.masked_fill(behind, 1.0)
    colour = (rgb - teacher_rgb).square().sum(dim=-1) * (shown + RGB_FLOOR)
    return DistillationLoss(alpha.mean(dim=1), colour.mean(dim=1))


def mean_squares(errors: Float[Tensor, " networks"]) -> Float[Tensor, " networks"]:
    """Errors of networks in the unit of colours: means of four squares, of the opacity and of three channels.

    Args:
        errors: What `DistillationLoss.of_networks` gives.

    Returns:
        The means, in [0, 1] and without a gradient; 1 for what is no number.
    """
    return (errors.detach() / 4).nan_to_num(1.0).clamp(max=1)


def view_dependent_penalty(networks: NetworkClasses) -> Float[Tensor, ""]:
    """Sum of the squared weights of direction and colour, which fit photos by reflections that are none if they can.

    KiloNeRF (arXiv 2103.13744, section 3.2) adds 1e-6 times it while fine-tuning.

    Args:
        networks: The networks.
    """
    squares = [stack.get_parameter(name).square().sum() for stack in networks for name in ("w_direction", "w_rgb")]
    return torch.stack(squares).sum()


def saturated(
    rgb: Float[Tensor, "networks points 3"], teacher_rgb: Float[Tensor, "networks points 3"], margin: float = 1e-3
) -> Bool[Tensor, " networks"]:
    """Networks of which a channel is black, or white, at all points and should not be: its gradient is all but gone.

    Args:
        rgb: Colours of the networks.
        teacher_rgb: What they should be.
        margin: Distance from 0 or 1 that counts as that.
    """

    def stuck(colours: Float[Tensor, "networks points 3"]) -> Bool[Tensor, "networks 3"]:
        return (colours < margin).all(dim=1) | (colours > 1 - margin).all(dim=1)

    return (stuck(rgb) & ~stuck(teacher_rgb)).any(dim=1)
