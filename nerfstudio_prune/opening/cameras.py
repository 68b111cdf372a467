"""Cameras of a page: where they stand, what rays they have, and where the first one stands. No Nerfstudio."""

import math
from dataclasses import dataclass
from typing import Any, Optional

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.export.kinds import AnyMetadata

LARGEST = 1e6
"""Coordinates of a camera that is rendered from."""
MOST_ASPECT = 16.0
"""Width by height, or height by width, of a page's picture."""
ABOVE = 0.5
"""Height of the first camera over what it looks at, by its distance on the ground."""
INSIDE = 0.7
"""Distance of the first camera from the middle of an unbounded scene, whose undistorted part is the unit ball."""


@dataclass(frozen=True)
class Pose:
    """A camera."""

    rotation: Float[Tensor, "3 3"]
    """Its axes in the scene as columns: x to the right, y down, it looks along z (as OpenCV has it)."""
    position: Float[Tensor, " 3"]
    """In units of the scene."""
    fov: float
    """Vertical field of view in radians."""
    aspect: float
    """Width of the picture by its height."""


def pose_of(camera: Any) -> Optional[Pose]:
    """The camera of a page; None if it is none, for a page may say anything.

    Args:
        camera: What has `wxyz`, `position`, `fov` and `aspect`, as viser's cameras do.
    """
    try:
        numbers = [*map(float, camera.wxyz), *map(float, camera.position), float(camera.fov), float(camera.aspect)]
    except (TypeError, ValueError):
        return None
    if len(numbers) != 9 or not all(math.isfinite(x) and abs(x) <= LARGEST for x in numbers):
        return None
    length = math.hypot(*numbers[:4])
    fov, aspect = numbers[7:]
    if length < 1e-6 or not 0 < fov < math.pi or not 1 / MOST_ASPECT <= aspect <= MOST_ASPECT:
        return None
    w, x, y, z = (number / length for number in numbers[:4])
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return Pose(torch.tensor(rotation), torch.tensor(numbers[4:7]), fov, aspect)


def rays_of(
    pose: Pose, width: int, height: int, begin: int, end: int
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    """Rays through the middles of the pixels of some rows, row by row.

    Args:
        pose: The camera.
        width: Pixels of a row.
        height: Rows of the whole picture.
        begin: First row.
        end: Row behind the last.

    Returns:
        Origins, and directions of length 1.
    """
    side = 2 * math.tan(pose.fov / 2) / height
    y = (torch.arange(begin, end) + 0.5 - height / 2) * side
    x = (torch.arange(width) + 0.5 - width / 2) * side
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    local = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).view(-1, 3)
    directions = torch.nn.functional.normalize(local, dim=-1) @ pose.rotation.T
    return pose.position.expand_as(directions), directions


def first_look(metadata: AnyMetadata) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Where the first camera stands, and what it looks at: the middle of the box, from where training views may have
    been taken.

    Args:
        metadata: What the file says of itself.
    """
    box = metadata.scene.box
    middle = tuple((a + b) / 2 for a, b in zip(*box, strict=True)) if box is not None else (0.0, 0.0, 0.0)
    # Between the planes of a training view lies the scene.
    distance = INSIDE if metadata.unbounded else sum(metadata.planes) / 2
    flat = distance / math.hypot(1.0, ABOVE)
    x, y, z = middle
    return (x + flat * math.sqrt(0.5), y - flat * math.sqrt(0.5), z + flat * ABOVE), (x, y, z)
