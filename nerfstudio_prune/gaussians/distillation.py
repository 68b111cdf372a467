"""Lowering the degree of the spherical harmonics with the Gaussians before as teacher (LightGaussian, section 3.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.raster.interface import View


def centre_of(view: View) -> Float[Tensor, "3"]:
    """Where a camera stands, in world units."""
    return -view.viewmat[:3, :3].T @ view.viewmat[:3, 3]


def median_neighbour_distance(views: Sequence[View]) -> float:
    """Median over cameras of the distance to the nearest other one, in world units: the yardstick of `sigma`.

    The paper's 0.1 fits its scenes' scale only.

    Args:
        views: At least two. Cameras at the same place are at distance 0 from each other.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(views) < 2:
        raise ValueError(f"the distance of neighbouring cameras needs at least 2 training views, got {len(views)}")
    centres = torch.stack([centre_of(view).detach().cpu().double() for view in views])
    distances = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
    return float(distances.fill_diagonal_(float("inf")).amin(dim=1).median())


def pseudo_pose(
    camera_to_world: Float[Tensor, "*batch 3 4"], sigma: float, generator: torch.Generator
) -> Float[Tensor, "*batch 3 4"]:
    """A camera beside another one that looks the same way: t + N(0, σ²) (LightGaussian, arXiv 2311.17245, Eq. 7).

    Args:
        camera_to_world: Pose of a training camera.
        sigma: Standard deviation along each axis, in world units, >= 0.
        generator: On the CPU; the only source of randomness.

    Raises:
        ValueError: If `sigma` is negative or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma must be a length that is at least 0, got {sigma}")
    pose = camera_to_world.clone()
    pose[..., :3, 3] += (sigma * torch.randn(3, generator=generator)).to(pose)
    return pose


def is_pseudo_step(step: int, share: float) -> bool:
    """Whether a step of the distillation takes a pseudo view: exactly `share` of any number of steps, evenly spread.

    A rule of the step alone goes on after resuming where it was, without any state.

    Args:
        step: Step, counted from 0.
        share: Share of steps, in [0, 1].

    Raises:
        ValueError: If the share is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of pseudo views must be in [0, 1], got {share}")
    return int((step + 1) * share) > int(step * share)


def distillation_loss(
    student: Float[Tensor, "height width channels"], teacher: Float[Tensor, "height width channels"]
) -> Float[Tensor, ""]:
    """Mean over pixels of the squared distance of colours (LightGaussian, arXiv 2311.17245, Eq. 6).

    Args:
        student: Picture of the lower degree; gets the gradient.
        teacher: Picture of the degree before, of the same view and background.
    """
    return (student - teacher.detach()).square().sum(dim=-1).mean()
