"""The space that cells lie in: the world itself, or the ball that unbounded space is contracted into.

A network says density per unit of length of the space of the cells; what differs between spaces stands here.
"""

from collections.abc import Mapping
from math import floor
from typing import Literal, Optional, Protocol

import torch
from jaxtyping import Bool, Float, Int32
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.kilo.space import pixel_footprint
from nerfstudio_prune.kilonerf.march import Contraction, Lattice, Spacing, squeezed
from nerfstudio_prune.nerf.empty_space import reached_box
from nerfstudio_prune.nerf.field import UnitBallContraction

SpaceName = Literal["bounded", "contracted"]
"""bounded: the world; contracted: the unit ball, whose inner half is the undistorted unit ball of the world."""


class Space(Protocol):
    """A space that cells lie in. Points are places in it unless they are said to be in the world."""

    name: SpaceName
    most_cells: int
    """Cells along the longest side by default."""
    spacing: Spacing
    """How steps of rays are spaced."""
    contraction: Optional[Contraction]
    """From the world; None: it is the world."""
    crops: bool
    """Whether cells are laid around what views show alone; the rest is empty then, where it is not background."""
    holds_ends: bool
    """Whether the ends of rays have cells where they show what is behind everything: in the world a box around these
    would be many times as large as the scene."""

    def box(self, cameras: Cameras, far: float) -> Float[Tensor, "2 3"]:
        """Lower and upper corner of all that the rays of cameras reach, up to a distance."""
        ...

    def from_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Places of the world."""
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

    def lengths(
        self, lattice: Lattice, step: Int32[Tensor, " points"], points: Float[Tensor, "points 3"]
    ) -> Float[Tensor, " points"]:
        """What densities of samples are multiplied by for their optical depths."""
        ...

    def ends(self, lattice: Lattice, points: Float[Tensor, "points 3"], side: float = 0.0) -> Bool[Tensor, " points"]:
        """Whether places, or cubes of a side about them, reach to where the last steps of rays lie, if these have
        cells."""
        ...

    def footprint(self, cameras: Cameras, box: Float[Tensor, "2 3"]) -> float:
        """Width of a pixel where the scene is: the median of the cameras."""
        ...

    def evaluated(self, lattice: Lattice) -> Lattice:
        """The steps of rays in evaluation, which begin at the camera, as in the host."""
        ...


class BoundedSpace:
    """The world."""

    name: SpaceName = "bounded"
    most_cells = 16
    spacing: Spacing = "uniform"
    contraction: Optional[Contraction] = None
    crops = True
    holds_ends = False

    def box(self, cameras: Cameras, far: float) -> Float[Tensor, "2 3"]:
        """See `Space.box`."""
        return reached_box(cameras, far)

    def from_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """See `Space.from_world`."""
        return points

    def to_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """See `Space.to_world`."""
        return points

    def holds(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """See `Space.holds`."""
        return torch.ones(len(points), dtype=torch.bool, device=points.device)

    def extent(self, near: float, far: float) -> float:
        """See `Space.extent`."""
        return far - near

    def lengths(
        self, lattice: Lattice, step: Int32[Tensor, " points"], points: Float[Tensor, "points 3"]
    ) -> Float[Tensor, " points"]:
        """See `Space.lengths`."""
        return lattice.lengths(step)

    def ends(self, lattice: Lattice, points: Float[Tensor, "points 3"], side: float = 0.0) -> Bool[Tensor, " points"]:
        """See `Space.ends`."""
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)

    def footprint(self, cameras: Cameras, box: Float[Tensor, "2 3"]) -> float:
        """See `Space.footprint`."""
        return pixel_footprint(cameras, box)

    def evaluated(self, lattice: Lattice) -> Lattice:
        """See `Space.evaluated`."""
        more = floor(lattice.near / lattice.step_size)
        near = max(0.0, lattice.near - more * lattice.step_size)
        return Lattice(near, lattice.far, lattice.steps + more)


class ContractedSpace:
    """The ball that unbounded space is contracted into, as `nerf-prune-real` does."""

    name: SpaceName = "contracted"
    most_cells = 24
    spacing: Spacing = "piecewise"
    crops = False
    holds_ends = True

    def __init__(self) -> None:
        self._ball = UnitBallContraction()
        self.contraction: Optional[Contraction] = self.from_world

    def box(self, cameras: Cameras, far: float) -> Float[Tensor, "2 3"]:
        """See `Space.box`."""
        return torch.tensor([[-1.0] * 3, [1.0] * 3])

    def from_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """See `Space.from_world`."""
        return self._ball(points)

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

    def lengths(
        self, lattice: Lattice, step: Int32[Tensor, " points"], points: Float[Tensor, "points 3"]
    ) -> Float[Tensor, " points"]:
        """See `Space.lengths`."""
        return lattice.lengths(step) / self._ball.stretch(points)

    def ends(self, lattice: Lattice, points: Float[Tensor, "points 3"], side: float = 0.0) -> Bool[Tensor, " points"]:
        """See `Space.ends`. As seen from the middle: so far away it makes hardly a difference where a camera is."""
        begin = float(lattice.edges(torch.tensor(lattice.steps - 1)))
        nearest, farthest = (points.abs() - side / 2).clamp(min=0), points.abs() + side / 2
        return self.holds(nearest) & (farthest.norm(dim=-1) >= squeezed(begin))

    def footprint(self, cameras: Cameras, box: Float[Tensor, "2 3"]) -> float:
        """See `Space.footprint`. Of the undistorted part, where cameras are and what they look at."""
        half = torch.tensor([[-1.0] * 3, [1.0] * 3])
        return pixel_footprint(cameras, half) / 2

    def evaluated(self, lattice: Lattice) -> Lattice:
        """See `Space.evaluated`. The near plane of photographs is close enough to the camera."""
        return lattice


SPACES: Mapping[SpaceName, Space] = {"bounded": BoundedSpace(), "contracted": ContractedSpace()}
"""Name of a space -> the space."""
