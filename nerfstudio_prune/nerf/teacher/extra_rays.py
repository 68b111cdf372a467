"""Rays beside those of the batch: from poses near it, and training rays with a large error."""

from collections.abc import Callable
from typing import Any, Optional

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn.functional import normalize


def _rebuilt(function: Callable[[list[Tensor]], Tensor], *bundles: RayBundle) -> RayBundle:
    """A bundle made of what the model reads of others; near and far are the collider's to set."""

    def made(name: str) -> Any:
        tensors = [getattr(rays, name) for rays in bundles]
        return None if tensors[0] is None else function(tensors)

    return RayBundle(
        origins=made("origins"),
        directions=made("directions"),
        pixel_area=made("pixel_area"),
        camera_indices=made("camera_indices"),
        times=made("times"),
    )


def chosen(rays: RayBundle, indices: Int[Tensor, "chosen"]) -> RayBundle:
    """Some rays of a flat bundle."""
    return _rebuilt(lambda tensors: tensors[0][indices], rays)


def jittered(rays: RayBundle, distance: float, degrees: float, generator: torch.Generator) -> RayBundle:
    """The same rays from poses nearby, each from its own.

    LightGaussian (Fan et al. 2023, arXiv 2311.17245, section 3.3) moves cameras by Gaussian noise and lets the teacher
    render them. A bounded move has no outliers that start inside of things.

    Args:
        rays: Flat bundle.
        distance: Origins move evenly within a ball of this radius, in units of the scene.
        degrees: Directions turn evenly within a cone of this half angle.
        generator: Source of chance, on the CPU.
    """

    def noise(*shape: int, normal: bool = False) -> Tensor:
        draw = torch.randn if normal else torch.rand
        return draw(*shape, generator=generator).to(rays.origins)

    count = len(rays)
    shift = normalize(noise(count, 3, normal=True), dim=-1) * noise(count, 1) ** (1 / 3)
    side = normalize(torch.linalg.cross(rays.directions, noise(count, 3, normal=True)), dim=-1)
    angle = torch.deg2rad(degrees * noise(count, 1).sqrt())
    moved = _rebuilt(lambda tensors: tensors[0], rays)
    moved.origins = rays.origins + distance * shift
    moved.directions = rays.directions * angle.cos() + side * angle.sin()
    return moved


class HardRays:
    """A pool of the training rays with the largest error, to be seen again (R2L, Wang et al. 2022, arXiv 2203.17261).

    An error is that of when its ray was last rendered; rays that are learnt leave when they are drawn and lose to
    newer ones.

    Args:
        size: Rays that the pool keeps.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rays: Optional[RayBundle] = None
        self.colours: Float[Tensor, "pool channels"] = torch.empty(0, 3)
        self.errors: Float[Tensor, "pool"] = torch.empty(0)

    def draw(self, count: int, generator: torch.Generator) -> Int[Tensor, "drawn"]:
        """Places of different rays in the pool, all equally likely; as many as there are if that is fewer.

        Args:
            count: Rays that are wanted.
            generator: Source of chance, on the CPU.
        """
        return torch.randperm(len(self.errors), generator=generator)[:count].to(self.errors.device)

    def update(self, places: Int[Tensor, "drawn"], errors: Float[Tensor, "drawn"]) -> None:
        """Notes new errors of rays that were drawn."""
        self.errors[places] = errors

    def offer(self, rays: RayBundle, colours: Float[Tensor, "rays channels"], errors: Float[Tensor, "rays"]) -> None:
        """Takes in the rays whose errors are among the largest.

        Args:
            rays: Flat bundle.
            colours: True colours, with opacity if the photos have it.
            errors: Squared errors.
        """
        if self.rays is not None:
            rays = _rebuilt(torch.cat, self.rays, rays)
            colours, errors = torch.cat([self.colours, colours]), torch.cat([self.errors, errors])
        keep = errors.topk(min(self.size, len(errors))).indices
        self.rays, self.colours, self.errors = chosen(rays, keep), colours[keep], errors[keep]
