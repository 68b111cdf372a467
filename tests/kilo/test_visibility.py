"""Cells are laid around what is seen: what a voxel does to a pixel, and which of them the box is around."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from nerfstudio_prune.kilo.visibility import effects, seen_box
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.march import Samples

DARK, WHITE = 0.1, 1.0


def test_effects_are_those_of_a_loop() -> None:
    """The pixel as it is, against the pixel of the ray without the thing: samples that follow each other."""
    generator = torch.Generator().manual_seed(1)
    steps = [[3, 4, 9], [], [0, 1, 2, 5, 6], [7], [2, 3, 4, 5]]
    ray = torch.arange(5).repeat_interleave(torch.tensor([len(row) for row in steps]))
    step = torch.tensor([s for row in steps for s in row])
    depths = torch.rand(len(ray), generator=generator, dtype=torch.float64)
    depths[10] = 1e-3  # a gap that is not quite empty
    rgb, background = torch.rand(len(ray), 3, generator=generator, dtype=torch.float64), 0.7

    def pixel(rows: list[int]) -> torch.Tensor:
        colour, light = torch.zeros(3, dtype=torch.float64), 1.0
        for i in rows:
            alpha = 1 - math.exp(-float(depths[i]))
            colour, light = colour + light * alpha * rgb[i], light * (1 - alpha)
        return colour + light * background

    things = [[0, 1], [2], [3, 4, 5], [6, 7], [8], [9], [10], [11, 12]]
    expected = torch.zeros(len(ray), dtype=torch.float64)
    for thing in things:
        of = [i for i in range(len(ray)) if ray[i] == ray[thing[0]]]
        front = [i for i in of if i < thing[0]]
        light = math.exp(-float(depths[front].sum()))
        # What comes from behind it comes to where it was; the rest of the ray stays as it is.
        rest = pixel([i for i in of if i > thing[-1]])
        expected[thing] = (pixel([*thing, *[i for i in of if i > thing[-1]]]) - rest).abs().max() * light
    expected[10] = 0.0
    nothing = torch.zeros(len(ray))
    samples = Samples(ray.int(), step.int(), nothing.int(), nothing)
    assert effects(depths, rgb, samples, 5, background).tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_what_lets_no_light_through_counts_by_its_weight() -> None:
    """A white wall before white hides what is behind it, which no view knows: without the wall that would be seen."""
    numbers = torch.tensor([0, 0, 1], dtype=torch.int32)
    samples = Samples(numbers, torch.tensor([1, 5, 3], dtype=torch.int32), numbers, numbers.float())
    depths = torch.tensor([0.5, 20.0, 30.0], dtype=torch.float64)
    found = effects(depths, torch.ones(3, 3), samples, 2, 1.0)
    assert found.tolist() == pytest.approx([0.0, math.exp(-0.5), 1.0], abs=1e-6)


def all_around(count: int = 6) -> Cameras:
    """Cameras on a circle about the middle, which they look at."""
    poses = []
    for i in range(count):
        angle = torch.tensor(2 * torch.pi * i / count)
        back = torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)])
        up = torch.tensor([0.0, 0.0, 1.0])
        right = torch.linalg.cross(up, back)
        poses.append(torch.stack([right, up, back, 4 * back], dim=1))
    size: dict[str, Any] = {"width": 40, "height": 40, "cx": 20.0, "cy": 20.0, "fx": 35.0, "fy": 35.0}
    return Cameras(camera_to_worlds=torch.stack(poses), camera_type=CameraType.PERSPECTIVE, **size)


def field_of(blocks: Any, background: str = "white") -> Any:
    """A teacher that shows cubes of half a unit a side: middle, brightness, density."""

    def values(points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        density, bright = torch.zeros(len(points)), torch.zeros(len(points))
        for middle, brightness, dense in blocks:
            inside = ((points - torch.tensor(middle)).abs() < 0.25).all(dim=1)
            density, bright = torch.where(inside, dense, density), torch.where(inside, brightness, bright)
        return density, bright[:, None, None].expand(*directions.shape).contiguous()

    return SimpleNamespace(values=values, near=2.0, far=6.0, samples=60, background=background)


CUBE = ([0.0, 0.0, 0.0], DARK, 50.0)


@pytest.mark.parametrize(
    ("blocks", "axis", "low", "high"),
    [
        ([CUBE], 0, -0.25, 0.25),
        # White before white: above, where from no camera it is before the cube.
        ([CUBE, ([0.0, 0.0, 1.25], WHITE, 4.0)], 2, -0.25, 0.25),
        # Haze that changes a pixel by less than what counts.
        ([CUBE, ([0.0, 0.0, 1.25], DARK, 0.05)], 2, -0.25, 0.25),
        ([CUBE, ([0.0, 0.0, 1.25], DARK, 50.0)], 2, -0.25, 1.5),
        # White before something dark: a view is changed by it.
        ([CUBE, ([-1.25, 0.0, 0.0], WHITE, 4.0)], 0, -1.5, 0.25),
    ],
)
def test_the_box_is_around_what_is_seen(blocks: Any, axis: int, low: float, high: float) -> None:
    """Of a teacher's fog nothing is to be kept, of what it shows everything: an eighth of a unit is a voxel, and one
    more stays around it."""
    live = LiveCells(CellGrid(torch.full((3,), -2.0), 1.0, (4, 4, 4), 8), torch.ones(32, 32, 32, dtype=torch.bool))
    box = seen_box(field_of(blocks), live, all_around())
    assert box[:, axis].tolist() == pytest.approx([low - 0.125, high + 0.125])


@pytest.mark.parametrize("brightness", [0.0, 1.0])
def test_without_a_background_of_its_own(brightness: float) -> None:
    """Pictures with alpha know black things and white ones."""
    live = LiveCells(CellGrid(torch.full((3,), -2.0), 1.0, (4, 4, 4), 8), torch.ones(32, 32, 32, dtype=torch.bool))
    box = seen_box(field_of([([0.0, 0.0, 0.0], brightness, 4.0)], "random"), live, all_around())
    assert box[:, 0].tolist() == pytest.approx([-0.375, 0.375])


def test_views_past_everything() -> None:
    """A field is not asked for no point at all, which the host's encoding does not bear."""
    live = LiveCells(CellGrid(torch.full((3,), -2.0), 1.0, (4, 4, 4), 8), torch.ones(32, 32, 32, dtype=torch.bool))
    away = all_around()
    away.camera_to_worlds[0, :, 2] *= -1
    away.camera_to_worlds[0, :, 0] *= -1
    teacher = field_of([CUBE])
    asked: list[int] = []
    values = teacher.values
    teacher.values = lambda points, seen: (asked.append(len(points)), values(points, seen))[1]
    box = seen_box(teacher, live, away)
    assert min(asked) > 0 and box[:, 0].tolist() == pytest.approx([-0.375, 0.375])


def test_where_nothing_is_seen() -> None:
    """A teacher of fog alone has a box, of which everything else then follows."""
    live = LiveCells(CellGrid(torch.full((3,), -2.0), 1.0, (4, 4, 4), 2), torch.ones(8, 8, 8, dtype=torch.bool))
    assert torch.equal(seen_box(field_of([]), live, all_around()), live.grid.aabb)
