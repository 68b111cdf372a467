"""The space that cells are laid in: the world itself, or the ball that unbounded space is contracted into.

What differs between spaces stands here, and what pictures need of it in `kilonerf/spaces.py`.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.kilo.space import pixel_footprint
from nerfstudio_prune.kilonerf.march import Lattice, squeezed
from nerfstudio_prune.kilonerf.spaces import RenderedBall, RenderedSpace, RenderedWorld, SpaceName
from nerfstudio_prune.nerf.empty_space import reached_box


class Space(RenderedSpace, Protocol):
    """A space that cells are laid in. Points are places in it unless they are said to be in the world."""

    most_cells: int
    """Cells along the longest side by default."""
    crops: bool
    """Whether cells are laid around what views show alone; the rest is empty then, where it is not background."""
    holds_ends: bool
    """Whether the ends of rays have cells where they show what is behind everything: in the world a box around these
    would be many times as large as the scene."""

    def box(self, cameras: Cameras, far: float) -> Float[Tensor, "2 3"]:
        """Lower and upper corner of all that the rays of cameras reach, up to a distance."""
        ...

    def to_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """The same places in the world."""
        ...

    def holds(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Whether there is such a place in the world."""
        ...

    def extent(self, near: float, far: float) -> float:
        """Length of a ray."""
        ...

    def ends(self, lattice: Lattice, points: Float[Tensor, "points 3"], side: float = 0.0) -> Bool[Tensor, " points"]:
        """Whether places, or cubes of a side about them, reach to where the last steps of rays lie, if these have
        cells."""
        ...

    def footprint(self, cameras: Cameras, box: Float[Tensor, "2 3"]) -> float:
        """Width of a pixel where the scene is: the median of the cameras."""
        ...


class BoundedSpace(RenderedWorld):
    """The world."""

    most_cells = 16
    crops = True
    holds_ends = False

    def box(self, cameras: Cameras, far: float) -> Float[Tensor, "2 3"]:
        """See `Space.box`."""
        return reached_box(cameras, far)

    def to_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """See `Space.to_world`."""
        return points

    def holds(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """See `Space.holds`."""
        return torch.ones(len(points), dtype=torch.bool, device=points.device)

    def extent(self, near: float, far: float) -> float:
        """See `Space.extent`."""
        return far - near

    def ends(self, lattice: Lattice, points: Float[Tensor, "points 3"], side: float = 0.0) -> Bool[Tensor, " points"]:
        """See `Space.ends`."""
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)

    def footprint(self, cameras: Cameras, box: Float[Tensor, "2 3"]) -> float:
        """See `Space.footprint`."""
        return pixel_footprint(cameras, box)


class ContractedSpace(RenderedBall):
    """The ball that unbounded space is contracted into, as `nerf-prune-real` does."""

    most_cells = 24
    crops = False
    holds_ends = True

    def box(self, cameras: Cameras, far: float) -> Float[Tensor, "2 3"]:
        """See `Space.box`."""
        return torch.tensor([[-1.0] * 3, [1.0] * 3])

    def to_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """See `Space.to_world`. What lies beyond the ball is put as far away as single precision can tell."""
        radius = points.norm(dim=-1, keepdim=True)
        beyond = 1 / (2 * (1 - radius).clamp(min=1e-6))
        return torch.where(radius <= 0.5, 2 * points, points / radius.clamp(min=1e-9) * beyond)

    def holds(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """See `Space.holds`."""
        return points.norm(dim=-1) < 1

    def extent(self, near: float, far: float) -> float:
        """See `Space.extent`. That of a ray from the middle: from there, and outwards from anywhere far from it, steps
        of equal length in the ball are those of the lattice."""
        return squeezed(far) - squeezed(near)

    def ends(self, lattice: Lattice, points: Float[Tensor, "points 3"], side: float = 0.0) -> Bool[Tensor, " points"]:
        """See `Space.ends`. As seen from the middle: so far away it makes hardly a difference where a camera is."""
        begin = float(lattice.edges(torch.tensor(lattice.steps - 1)))
        nearest, farthest = (points.abs() - side / 2).clamp(min=0), points.abs() + side / 2
        return self.holds(nearest) & (farthest.norm(dim=-1) >= squeezed(begin))

    def footprint(self, cameras: Cameras, box: Float[Tensor, "2 3"]) -> float:
        """See `Space.footprint`. Of the undistorted part, where cameras are and what they look at."""
        half = torch.tensor([[-1.0] * 3, [1.0] * 3])
        return pixel_footprint(cameras, half) / 2


SPACES: Mapping[SpaceName, Space] = {"bounded": BoundedSpace(), "contracted": ContractedSpace()}
"""Name of a space -> the space."""
