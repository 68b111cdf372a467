"""Where Gaussians start: points inside the cameras' view for data without any, and scales that are small.

For photographs the numbers are those of a sketch on pictures of a phone: depths even in their logarithm along the rays
of random pixels, and a quarter of the usual scale. Every length is relative to the distance of the cameras, so that the
scale of the scene does not matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf, log
from typing import Optional

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped, UInt8
from nerfstudio.cameras.cameras import Cameras
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

DEPTHS = (0.4, 6.0)
"""Nearest and farthest depth of points in photographs, times the cameras' distance; even in its logarithm."""
OBJECT_DEPTHS = (0.3, 1.7)
"""The same for pictures of an object before nothing."""
OPAQUE = 0.5
"""Opacity from which on a pixel shows an object."""
CLEAR = 0.01
"""Share of pixels that must be clear for pictures to be taken for ones of an object."""
AGREE = 0.95
"""Share of the views that see a point and must see the object there."""
SEEN = 0.5
"""Share of the views that must see a point of an object."""
ROUNDS = 48
"""How often a depth is drawn for a ray that has met no object."""
VIEWS, HULL_VIEWS = 300, 100
"""Views that are read at most, and those of them that are asked whether a point lies in an object."""
SILHOUETTE = 256
"""Pixels a side of a silhouette at most."""
CHUNK = 65536
"""Points that are looked at together."""
PARALLEL = 1e-3
"""Mean square of the sine between optical axes, below which they say nothing about where they meet: about 2 degrees."""
BASELINES = 4.0
"""Distance of what parallel cameras look at, times their root mean square distance from their middle."""
NEIGHBOURS = 3
SMALLEST = 1e-3
"""Smallest scale, times the median: points may coincide."""


def camera_distance(cameras: Cameras) -> float:
    """How far the cameras stand from what they look at: the length that everything else is relative to.

    It is the median distance from the point nearest to all optical axes. Where these are parallel, or do not meet in
    front of the cameras, it is four times the root mean square distance of the cameras from their middle; and 1, the
    unit of a scene that the host has scaled, where they stand at one place.

    Args:
        cameras: Cameras of shape [views], at least one.

    Returns:
        A length in world units, above 0.
    """
    poses = cameras.camera_to_worlds.detach().cpu().double()
    places, axes = poses[:, :, 3], -torch.nn.functional.normalize(poses[:, :, 2], dim=-1)
    spread = float((places - places.mean(dim=0)).square().sum(dim=-1).mean().sqrt())
    if spread <= 1e-6 * max(1.0, float(places.abs().max())):
        return 1.0
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    matrix = across.mean(dim=0)
    if float(torch.linalg.eigvalsh(matrix)[0]) > PARALLEL:
        focus = torch.linalg.solve(matrix, (across @ places[:, :, None]).mean(dim=0)).flatten()
        if float(((focus - places) * axes).sum(dim=-1).median()) > 0:
            return float((focus - places).norm(dim=-1).median())
    return BASELINES * spread


def seed_from_views(
    cameras: Cameras,
    image: Callable[[int], Shaped[Tensor, "height width channels"]],
    count: int,
    generator: torch.Generator,
    pixels: Optional[Callable[[int], Optional[Bool[Tensor, "height width"]]]] = None,
) -> tuple[Float32[Tensor, "count 3"], UInt8[Tensor, "count 3"]]:
    """Points at random inside the cameras' view, each of the colour of the pixel that it is seen in.

    Photographs: random pixels of the views, with depths even in their logarithm. Pictures with opacity: opaque pixels
    only, and depths at which nearly all views that see the point see the object there (its visual hull); a ray that
    finds none takes the depth at which most do.

    Args:
        cameras: Pinhole cameras of the training views, of shape [views].
        image: Picture of a view, bytes or floats in [0, 1], with 3 channels, or 4 where it has opacity.
        count: Number of points, at least 1.
        generator: Random numbers; with the same ones the points are the same.
        pixels: The pixels of a view that count; None where all do. Others give no point, and say nothing about one.

    Returns:
        Positions in world units, and colours in 0 to 255.

    Raises:
        ValueError: If there is no view, or no view has a pixel that counts and is opaque.
    """
    if count < 1 or len(cameras.fx) < 1:
        raise ValueError(f"seed points need a count of at least 1 and a view, got {count} and {len(cameras.fx)} views")
    lenses = _Lenses.of(cameras)
    rays, silhouettes, hull = _read(lenses, image, pixels, count, generator)
    distance = camera_distance(cameras)
    if not silhouettes:
        low, high = (log(bound * distance) for bound in DEPTHS)
        depths = torch.exp(low + (high - low) * torch.rand(count, generator=generator))
        return lenses.points(rays, depths), rays.colours
    return _within_hull(lenses, rays, silhouettes, hull, distance, generator), rays.colours


def initial_scales(
    xyz: Float[Tensor, "points 3"], factor: float = 1.0, largest: float = inf
) -> Float32[Tensor, "points 1"]:
    """Standard deviations of round Gaussians at some points, not their logarithms.

    The host takes the mean distance to three neighbours (`factor` 1). Where points are thin, every Gaussian covers much
    of the picture then; a quarter made a step five times as fast.

    Args:
        xyz: Positions, at least one.
        factor: Part of the mean distance to the nearest neighbours.
        largest: Bound in world units.

    Returns:
        Lengths in world units, above 0 and at most `largest`, also where points coincide or one is alone.
    """
    points = xyz.detach().cpu().double().numpy()
    near = min(NEIGHBOURS, len(points) - 1)
    if near < 1:
        return torch.full((len(points), 1), min(factor, largest))
    distances = np.asarray(KDTree(points).query(points, k=near + 1)[0])[:, 1:].mean(axis=1)
    apart = distances[distances > 0]
    smallest = SMALLEST * float(np.median(apart)) if len(apart) else 1.0
    scales = np.minimum(factor * np.maximum(distances, smallest), largest)
    return torch.from_numpy(scales).float()[:, None]


@dataclass(frozen=True)
class _Rays:
    """A ray of a pixel for each point."""

    views: Int64[Tensor, " rays"]
    places: Float32[Tensor, "rays 2"]
    """Column and row."""
    colours: UInt8[Tensor, "rays 3"]

    def select(self, index: Int64[Tensor, " some"]) -> "_Rays":
        return _Rays(self.views[index], self.places[index], self.colours[index])


@dataclass(frozen=True)
class _Lenses:
    """Poses and lenses of the views as plain tensors."""

    rotations: Float32[Tensor, "views 3 3"]
    origins: Float32[Tensor, "views 3"]
    focal: Float32[Tensor, "views 2"]
    centre: Float32[Tensor, "views 2"]
    size: Float32[Tensor, "views 2"]
    """Width and height."""

    @classmethod
    def of(cls, cameras: Cameras) -> "_Lenses":
        def pair(x: Tensor, y: Tensor) -> Tensor:
            return torch.cat([x, y], dim=-1).detach().cpu().float()

        poses = cameras.camera_to_worlds.detach().cpu().float()
        return cls(
            poses[:, :, :3],
            poses[:, :, 3],
            pair(cameras.fx, cameras.fy),
            pair(cameras.cx, cameras.cy),
            pair(cameras.width, cameras.height),
        )

    def points(self, rays: _Rays, depths: Float32[Tensor, " rays"]) -> Float32[Tensor, "rays 3"]:
        """Points on rays at depths along the optical axes. Cameras look along -z, with y upwards."""
        across = (rays.places - self.centre[rays.views]) / self.focal[rays.views]
        local = torch.stack([across[:, 0], -across[:, 1], -torch.ones_like(depths)], dim=-1) * depths[:, None]
        return (self.rotations[rays.views] @ local[:, :, None])[..., 0] + self.origins[rays.views]

    def project(
        self, view: int, points: Float32[Tensor, "points 3"]
    ) -> tuple[Float32[Tensor, "points 2"], Bool[Tensor, " points"]]:
        """Place in a view as a share of its width and height, and whether the view sees it."""
        local = (points - self.origins[view]) @ self.rotations[view]
        depth = -local[:, 2]
        flat = torch.stack([local[:, 0], -local[:, 1]], dim=-1) / depth.clamp(min=1e-9)[:, None]
        share = (flat * self.focal[view] + self.centre[view]) / self.size[view]
        return share, (depth > 0) & ((share >= 0) & (share < 1)).all(dim=-1)


def _read(
    lenses: _Lenses,
    image: Callable[[int], Tensor],
    pixels: Optional[Callable[[int], Optional[Tensor]]],
    count: int,
    generator: torch.Generator,
) -> tuple[_Rays, list[Bool[Tensor, "rows columns"]], list[int]]:
    """Reads every picture once: rays of its pixels, and its silhouette where the pictures show an object.

    Returns:
        As many rays as asked for; silhouettes, none for photographs; and their views.
    """
    views = _spread(len(lenses.origins), VIEWS)
    asked = {views[i] for i in _spread(len(views), HULL_VIEWS)}
    each = ceil(count / len(views))
    parts: list[_Rays] = []
    silhouettes: list[Tensor] = []
    clear = total = 0
    for view in views:
        picture = image(view).detach().cpu()
        counts = None if pixels is None else pixels(view)
        usable = torch.ones(picture.shape[:2], dtype=torch.bool) if counts is None else counts.cpu()
        opaque = torch.ones_like(usable)
        if picture.shape[-1] == 4:
            opaque = picture[..., 3] >= (OPAQUE if picture.is_floating_point() else OPAQUE * 255)
        clear, total = clear + int((usable & ~opaque).sum()), total + int(usable.sum())
        if view in asked:
            silhouettes.append(_silhouette(opaque | ~usable))
        found = (usable & opaque).nonzero()
        if len(found):
            parts.append(_draw(view, picture, found, each, generator))
    if not parts:
        raise ValueError(f"seed points: none of the {len(views)} views has a pixel that counts and is opaque")
    pool = _Rays(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("views", "places", "colours")),
    )
    have = len(pool.views)
    chosen = torch.randperm(have, generator=generator)[:count]
    again = torch.randint(have, (count - len(chosen),), generator=generator)  # where views had nothing to give
    is_object = clear > CLEAR * total
    return pool.select(torch.cat([chosen, again])), silhouettes if is_object else [], sorted(asked)


def _draw(view: int, picture: Tensor, found: Int64[Tensor, "pixels 2"], each: int, generator: torch.Generator) -> _Rays:
    """Rays through random ones of some pixels of a view, anywhere within the pixel."""
    rows, columns = found[torch.randint(len(found), (each,), generator=generator)].unbind(-1)
    colours = picture[rows, columns, :3]
    if colours.is_floating_point():
        colours = (colours.clamp(0, 1) * 255).round().byte()
    within = torch.rand((each, 2), generator=generator)
    return _Rays(torch.full((each,), view), torch.stack([columns, rows], dim=-1) + within, colours)


def _silhouette(opaque: Bool[Tensor, "height width"]) -> Bool[Tensor, "rows columns"]:
    """What may be object, in fewer pixels: one that holds such a pixel is one."""
    height, width = (min(side, SILHOUETTE) for side in opaque.shape)
    return adaptive_max_pool2d(opaque[None].float(), (height, width))[0] > 0


def _within_hull(
    lenses: _Lenses,
    rays: _Rays,
    silhouettes: list[Bool[Tensor, "rows columns"]],
    hull: list[int],
    distance: float,
    generator: torch.Generator,
) -> Float32[Tensor, "rays 3"]:
    """A point on each ray that lies in the visual hull, or as nearly so as one was found."""
    count = len(rays.views)
    best, points = torch.full((count,), -1.0), torch.zeros(count, 3)
    low, high = (bound * distance for bound in OBJECT_DEPTHS)
    for _ in range(ROUNDS):
        left = (best < AGREE).nonzero()[:, 0]
        if len(left) == 0:
            break
        depths = low + (high - low) * torch.rand(len(left), generator=generator)
        tried = lenses.points(rays.select(left), depths)
        score = torch.cat([_agreement(lenses, part, silhouettes, hull) for part in tried.split(CHUNK)])
        better = score > best[left]
        best[left[better]], points[left[better]] = score[better], tried[better]
    return points


def _agreement(
    lenses: _Lenses, points: Float32[Tensor, "points 3"], silhouettes: list[Tensor], hull: list[int]
) -> Float32[Tensor, " points"]:
    """Share of the views that see a point and may see the object there; less where few views see it at all."""
    seen, agreed = torch.zeros(len(points)), torch.zeros(len(points))
    for view, silhouette in zip(hull, silhouettes, strict=True):
        share, inside = lenses.project(view, points)
        size = torch.tensor(silhouette.shape[::-1])
        column, row = (share * size).long().clamp(torch.zeros(2, dtype=torch.long), size - 1).unbind(-1)
        seen += inside
        agreed += inside & silhouette[row, column]
    return agreed / seen.clamp(min=1) * (seen / ceil(SEEN * len(hull))).clamp(max=1)


def _spread(length: int, most: int) -> list[int]:
    """At most so many indices, evenly spread over a length."""
    return [i * length // min(length, most) for i in range(min(length, most))]
