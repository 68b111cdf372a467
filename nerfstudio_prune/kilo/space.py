"""Which part of space training views look at, and how large a pixel is there."""

from collections.abc import Callable, Iterator
from math import ceil, sqrt

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.nerf.empty_space import pieces_of_rays
from nerfstudio_prune.occupancy import DensityFn

MARGIN = 0.05
"""Of a picture's side: what lies so far beside it counts as seen, for lenses bend."""
FIRST_CAMERAS, MOST_CAMERAS = 2, 64
"""Cameras that points are looked at from at once: few at first, for the first ones see nearly all that is seen at all,
and twice as many each time for what is left."""
PIECES = 64
"""Pieces of each training ray that are looked at in one place each."""


def seen_by(
    cameras: Cameras, near: float, far: float
) -> Callable[[Float[Tensor, "points 3"]], Bool[Tensor, " points"]]:
    """Whether points lie in the view of a camera: a field has learnt nothing about others, and shows anything there.

    For cameras that are no pinholes only the distance counts.

    Args:
        cameras: Training cameras.
        near: Distance from a camera where its rays begin.
        far: Where they end.
    """
    poses = cameras.camera_to_worlds.float()
    pinhole = (cameras.camera_type == CameraType.PERSPECTIVE.value).view(-1, 1)
    focal = torch.cat([cameras.fx, cameras.fy], dim=1)[:, None].float()
    centre = torch.cat([cameras.cx, cameras.cy], dim=1)[:, None].float()
    size = torch.cat([cameras.width, cameras.height], dim=1)[:, None].float()

    def seen(points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        found = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        first, count = 0, FIRST_CAMERAS
        while first < len(poses):
            left = (~found).nonzero()[:, 0]
            if not len(left):
                break
            part = slice(first, first + count)
            first, count = first + count, min(2 * count, MOST_CAMERAS)
            pose = poses[part].to(points.device)
            offsets = points[left] - pose[:, None, :, 3]
            distance = offsets.norm(dim=-1)
            local = offsets @ pose[:, :, :3]
            # The host's cameras look along -z, and rows of a picture run downwards.
            plane = local[..., :2] / (-local[..., 2:]).clamp(min=1e-9) * torch.tensor([1.0, -1.0], device=points.device)
            pixel = centre[part].to(points.device) + focal[part].to(points.device) * plane
            room = MARGIN * size[part].to(points.device)
            inside = ((pixel >= -room) & (pixel <= size[part].to(points.device) + room)).all(dim=-1)
            inside &= local[..., 2] < 0
            inside |= ~pinhole[part].to(points.device)
            found[left] = (inside & (distance >= near) & (distance <= far)).any(dim=0)
        return found

    return seen


def where_seen(
    density_fn: DensityFn, seen: Callable[[Float[Tensor, "points 3"]], Bool[Tensor, " points"]]
) -> DensityFn:
    """A density that is zero where no view looks.

    Args:
        density_fn: The density.
        seen: See `seen_by`.
    """

    def density(points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        index = seen(points).nonzero()[:, 0]
        found = points.new_zeros(len(points))
        return found.index_copy(0, index, density_fn(points[index])) if len(index) else found

    return density


def places_on_rays(cameras: Cameras, lattice: Lattice, generator: torch.Generator) -> Float[Tensor, "places 3"]:
    """A place in each piece of some training rays: what is small and alone is missed by places drawn in space.

    Args:
        cameras: Training cameras.
        lattice: Where rays begin and end, and how their pieces are spaced; not how many there are.
        generator: Random numbers, of the CPU.
    """
    bounds = Lattice(lattice.near, lattice.far, PIECES, lattice.spacing).edges(torch.arange(PIECES + 1))
    pieces = pieces_of_rays(cameras, bounds).flatten(0, 1)
    return torch.lerp(pieces[:, 0], pieces[:, 1], torch.rand((len(pieces), 1), generator=generator))


def pixels_of_views(cameras: Cameras, most: int) -> tuple[Iterator[tuple[int, Float[Tensor, "pixels 2"]]], int]:
    """Number of each view and some of its pixels, as rows and columns.

    Args:
        cameras: The cameras.
        most: Pixels in all, about: rows and columns are left out evenly.

    Returns:
        The views, and how many rows and columns there are to one of these.
    """
    every = max(1, ceil(sqrt(int((cameras.height * cameras.width).sum()) / most)))

    def views() -> Iterator[tuple[int, Float[Tensor, "pixels 2"]]]:
        for view in range(len(cameras)):
            # Not the whole view's, of which next to nothing may be wanted: pictures may have millions of pixels.
            sides = cameras.height[view], cameras.width[view]
            yield view, torch.cartesian_prod(*(torch.arange(0, int(side), every) + 0.5 for side in sides))

    return views(), every


def rays_of_views(
    cameras: Cameras, most: int, device: torch.device | str
) -> Iterator[tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]]:
    """Origins and directions of rays through all views, a view at a time.

    Args:
        cameras: The cameras.
        most: Rays in all, about: rows and columns of pixels are left out evenly.
        device: Where they are to live.
    """
    views, _ = pixels_of_views(cameras, most)
    for view, pixels in views:
        bundle = cameras.generate_rays(torch.full((len(pixels), 1), view), pixels)
        yield bundle.origins.to(device), bundle.directions.to(device)


def pixel_footprint(cameras: Cameras, box: Float[Tensor, "2 3"]) -> float:
    """Width of a pixel where the scene is, in units of the scene: the median of the cameras.

    Args:
        cameras: Training cameras.
        box: Lower and upper corner of the scene.
    """
    middle, half = (box[0] + box[1]).cpu() / 2, float((box[1] - box[0]).max()) / 2
    places = cameras.camera_to_worlds[:, :, 3].cpu()
    distance = (places - middle).norm(dim=1).clamp(min=half)
    return float((distance / cameras.fx[:, 0].cpu()).median())
