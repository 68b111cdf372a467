"""Gaussians start where the cameras look, in the colours that these see, and small, whatever the scale of the scene."""

import math
from collections.abc import Callable
from typing import Any, Optional

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.splats.seeding import DEPTHS, camera_distance, initial_scales, seed_from_views

WIDE, HIGH = 40, 30
CENTRE = torch.tensor([0.3, -0.2, 0.1])


def looking(places: Tensor, at: Tensor) -> Tensor:
    """Poses of cameras at places that look at points."""
    back = normalize(places - at, dim=-1)
    up = torch.tensor([0.1, 0.05, 1.0]).expand_as(back)
    right = normalize(torch.linalg.cross(up, back), dim=-1)
    return torch.stack([right, torch.linalg.cross(back, right), back, places], dim=-1)


def cameras_of(poses: Tensor, focal: float = 50.0) -> Cameras:
    """Cameras of one lens, whose middle is not that of the picture."""
    return Cameras(poses, fx=focal, fy=focal + 4, cx=WIDE / 2 + 1, cy=HIGH / 2 - 2, width=WIDE, height=HIGH)


def around(count: int = 24, radius: float = 4.0) -> Cameras:
    """Cameras all around a point, evenly."""
    i = torch.arange(count) + 0.5
    height, turn = 1 - 2 * i / count, math.pi * (1 + 5**0.5) * i
    flat = (1 - height.square()).sqrt()
    places = radius * torch.stack([flat * turn.cos(), flat * turn.sin(), height], dim=-1) + CENTRE
    return cameras_of(looking(places, CENTRE.expand(count, 3)))


def told_pixels(view: int) -> Tensor:
    """A picture whose colours say where they are from."""
    rows, columns = torch.meshgrid(torch.arange(HIGH), torch.arange(WIDE), indexing="ij")
    return torch.stack([torch.full_like(rows, view), columns, rows], dim=-1).byte()


def seen(cameras: Cameras, view: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """Places of points in a view, column and row, and their depths: by the inverse of the pose."""
    pose = torch.eye(4)
    pose[:3] = cameras.camera_to_worlds[view]
    local = (torch.linalg.inv(pose) @ torch.cat([points, torch.ones(len(points), 1)], dim=1).T).T
    depth = -local[:, 2]
    column = cameras.fx[view] * local[:, 0] / depth + cameras.cx[view]
    row = -cameras.fy[view] * local[:, 1] / depth + cameras.cy[view]
    return torch.stack([column, row], dim=-1), depth


def sphere(cameras: Cameras, radius: float = 0.6) -> Callable[[int], Tensor]:
    """Pictures of a ball before nothing, in colours that say where they are from."""

    def picture(view: int) -> Tensor:
        rays = cameras.generate_rays(camera_indices=view, keep_shape=True)
        along = ((CENTRE - rays.origins) * rays.directions).sum(dim=-1, keepdim=True)
        hit = (rays.origins + along * rays.directions - CENTRE).norm(dim=-1) < radius
        return torch.cat([told_pixels(view), (hit[..., None] * 255).byte()], dim=-1)

    return picture


def seeds(
    cameras: Cameras, image: Any = told_pixels, count: int = 500, seed: int = 0, pixels: Optional[Any] = None
) -> tuple[Tensor, Tensor]:
    """Points with a generator of their own."""
    return seed_from_views(cameras, image, count, torch.Generator().manual_seed(seed), pixels)


def assert_seen_in_their_pixels(cameras: Cameras, xyz: Tensor, rgb: Tensor) -> Tensor:
    """Each point lies in the pixel that its colour tells, before the camera. Returns the depths."""
    depths = torch.zeros(len(xyz))
    for view in range(len(cameras.fx)):
        mine = rgb[:, 0] == view
        place, depths[mine] = seen(cameras, view, xyz[mine])
        expected = rgb[mine, 1:].float() + 0.5
        assert bool(((place - expected).abs() <= 0.502).all()) and bool((depths[mine] > 0).all())
    return depths


def test_points_of_photographs_lie_in_view() -> None:
    """The host starts in a cube of edge 10 wherever the cameras are. Here each point lies in a pixel of its colour, at
    depths that are even in their logarithm, and every view has as many."""
    cameras = around()
    xyz, rgb = seeds(cameras, count=2400)
    depths = assert_seen_in_their_pixels(cameras, xyz, rgb) / 4
    assert xyz.shape == rgb.shape == (2400, 3) and xyz.dtype == torch.float32 and rgb.dtype == torch.uint8
    assert rgb[:, 0].bincount().tolist() == [100] * 24
    low, high = DEPTHS
    assert float(depths.min()) > low * 0.99 and float(depths.max()) < high * 1.01
    shares = (depths / low).log() / math.log(high / low)
    assert torch.allclose(shares.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), atol=0.03)


def test_generator_decides_alone() -> None:
    """Two runs of one seed must start alike; the global random state has no say."""
    first = seeds(around())
    torch.rand(5)
    again, other = seeds(around()), seeds(around(), seed=1)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("image", ["photographs", "object"])
def test_points_grow_with_the_scene(image: str) -> None:
    """Nothing may depend on the unit of the scene: the same draws in a scene of a hundred times the size."""
    cameras = around()
    large = around()
    large.camera_to_worlds[:, :, 3] = large.camera_to_worlds[:, :, 3] * 100
    pictures: Any = told_pixels if image == "photographs" else sphere(cameras)
    assert camera_distance(large) == pytest.approx(100 * camera_distance(cameras), rel=1e-4)
    assert torch.allclose(seeds(large, pictures)[0], 100 * seeds(cameras, pictures)[0], rtol=1e-3, atol=1e-2)


def test_points_of_an_object_lie_in_it() -> None:
    """The hull of a ball of 24 views is hardly more than the ball. Points before and behind it would have to be made
    transparent one by one."""
    cameras = around()
    xyz, rgb = seeds(cameras, sphere(cameras), count=2000)
    assert_seen_in_their_pixels(cameras, xyz, rgb)
    distances = (xyz - CENTRE).norm(dim=-1)
    assert float(distances.quantile(0.9)) < 0.66 and float(distances.max()) < 0.8
    # Even along the rays through a ball, and not on its surface alone.
    assert float(distances.min()) < 0.15


def test_opaque_pictures_with_opacity_are_photographs() -> None:
    """Four channels alone say nothing of an object."""

    def opaque(view: int) -> Tensor:
        return torch.cat([told_pixels(view), torch.full((HIGH, WIDE, 1), 255, dtype=torch.uint8)], dim=-1)

    assert torch.equal(seeds(around(), opaque)[0], seeds(around())[0])


def test_pictures_in_floats_are_the_same() -> None:
    """The data manager caches either."""
    cameras = around()
    byte = sphere(cameras)
    found, expected = seeds(cameras, lambda view: byte(view) / 255), seeds(cameras, byte)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_only_pixels_that_count_give_points() -> None:
    """What is masked out is a tripod or a passer-by: no colour of it, and its outline is no object's."""
    cameras = around()
    counts = torch.zeros(HIGH, WIDE, dtype=torch.bool)
    counts[5:20, 8:] = True
    for image in (told_pixels, sphere(cameras)):
        xyz, rgb = seeds(cameras, image, pixels=lambda view: counts if view % 2 else None)
        half = rgb[rgb[:, 0] % 2 == 1].long()
        assert len(half) > 200 and bool(counts[half[:, 2], half[:, 1]].all())
        assert_seen_in_their_pixels(cameras, xyz, rgb)


def test_count_is_exact_where_hardly_anything_survives() -> None:
    """Pictures whose silhouettes contradict each other have no hull; every ray takes the depth that most views agree
    to. Fewer views than points and fewer points than views, too."""
    noise = torch.rand(24, HIGH, WIDE, generator=torch.Generator().manual_seed(0)) < 0.2

    def image(view: int) -> Tensor:
        return torch.cat([told_pixels(view), (noise[view, ..., None] * 255).byte()], dim=-1)

    for count in (1, 7, 25, 500):
        xyz, rgb = seeds(around(), image, count=count)
        assert xyz.shape == rgb.shape == (count, 3) and bool(torch.isfinite(xyz).all())
        assert bool(noise[rgb[:, 0].long(), rgb[:, 2].long(), rgb[:, 1].long()].all())


def test_views_that_show_nothing() -> None:
    """Others give their points; if there are none, that is said, and no loop runs for ever."""
    cameras = around()
    ball = sphere(cameras)

    def image(view: int) -> Tensor:
        return ball(view) if view < 2 else ball(view) * torch.tensor([1, 1, 1, 0], dtype=torch.uint8)

    assert set(seeds(cameras, image)[1][:, 0].tolist()) == {0, 1} and len(seeds(cameras, image)[0]) == 500
    none = torch.zeros(HIGH, WIDE, dtype=torch.bool)
    with pytest.raises(ValueError, match="none of the 24 views has a pixel that counts and is opaque"):
        seeds(cameras, pixels=lambda view: none)
    with pytest.raises(ValueError, match="a count of at least 1 and a view, got 0 and 24 views"):
        seeds(cameras, count=0)


PLACES = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [2.0, 2.0, 0.0]])
AWAY = (PLACES - 1) * 3 + 1


@pytest.mark.parametrize(
    ("places", "targets", "distance"),
    [
        (PLACES[:1], AWAY[:1], 1.0),
        (torch.zeros(4, 3), AWAY, 1.0),
        (PLACES, PLACES - torch.tensor([0.0, 0.0, 1.0]), 4 * 2**0.5),
        (PLACES, AWAY, 4 * 2**0.5),
        (PLACES, torch.tensor([[1.0, 1.0, -3.0]]).expand(4, 3), 11**0.5),
    ],
    ids=["one view", "one place", "parallel", "apart", "towards"],
)
def test_distance_of_cameras_of_every_kind(places: Tensor, targets: Tensor, distance: float) -> None:
    """A panorama, a wall photographed straight on, a room from its middle: axes that never meet in front of the
    cameras must neither fail nor put the points at infinity or on the cameras."""
    cameras = cameras_of(looking(places, targets))
    assert camera_distance(cameras) == pytest.approx(distance, rel=1e-4)
    xyz, rgb = seeds(cameras)
    depths = assert_seen_in_their_pixels(cameras, xyz, rgb) / distance
    assert DEPTHS[0] * 0.99 < float(depths.min()) and float(depths.max()) < DEPTHS[1] * 1.01


def test_one_axis_that_goes_astray_changes_little() -> None:
    """Pictures of something else among the others."""
    cameras = around()
    cameras.camera_to_worlds[0] = looking(torch.tensor([[50.0, 0.0, 0.0]]), torch.tensor([[50.0, 50.0, 0.0]]))[0]
    assert camera_distance(cameras) == pytest.approx(4.0, rel=0.3)


def test_scales_are_those_of_three_neighbours() -> None:
    """By hand: on a line at 0, 1, 3 and 7 the mean distances to the three others."""
    line = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [3.0, 0, 0], [7.0, 0, 0]])
    mean = torch.tensor([[11 / 3], [9 / 3], [9 / 3], [17 / 3]])
    assert torch.allclose(initial_scales(line), mean)
    assert torch.allclose(initial_scales(line, factor=0.25, largest=0.8), (mean / 4).clamp(max=0.8))


def test_scales_against_every_distance() -> None:
    """The same by brute force; the host's rule is a factor of 1."""
    xyz = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.cdist(xyz.double(), xyz.double()).sort(dim=1).values[:, 1:4].mean(dim=1, keepdim=True)
    assert torch.allclose(initial_scales(xyz, 0.25), expected.float() / 4) and initial_scales(xyz).shape == (300, 1)


@pytest.mark.parametrize(
    "xyz",
    [torch.zeros(1, 3), torch.zeros(5, 3), torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]), torch.zeros(8, 3)],
)
def test_scales_have_logarithms(xyz: Tensor) -> None:
    """Points coincide in many a file, and one alone has no neighbour; a scale of 0 is trained as minus infinity."""
    others = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    for points in (xyz, torch.cat([xyz, others])):
        for largest in (math.inf, 0.01):
            scales = initial_scales(points, 0.25, largest)
            assert scales.shape == (len(points), 1) and bool(torch.isfinite(scales.log()).all())
            assert float(scales.max()) <= largest
