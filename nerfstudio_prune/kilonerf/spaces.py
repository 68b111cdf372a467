"""The space that cells lie in, as far as pictures need it: the world itself, or the ball that it is contracted into.

A network says density per unit of length of the space of the cells.
"""

from collections.abc import Mapping
from math import floor
from typing import Literal, Optional, Protocol

from jaxtyping import Float, Int32
from torch import Tensor

from nerfstudio_prune.core.contraction import contract, stretch
from nerfstudio_prune.kilonerf.march import Contraction, Lattice, Spacing

SpaceName = Literal["bounded", "contracted"]
"""bounded: the world; contracted: the unit ball, whose inner half is the undistorted unit ball of the world."""


class RenderedSpace(Protocol):
    """A space that cells lie in. Points are places in it unless they are said to be in the world."""

    name: SpaceName
    spacing: Spacing
    """How steps of rays are spaced."""
    contraction: Optional[Contraction]
    """From the world; None: it is the world."""

    def from_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Places of the world."""
        ...

    def lengths(
        self, lattice: Lattice, step: Int32[Tensor, " points"], points: Float[Tensor, "points 3"]
    ) -> Float[Tensor, " points"]:
        """What densities of samples are multiplied by for their optical depths."""
        ...

    def evaluated(self, lattice: Lattice) -> Lattice:
        """The steps of rays in evaluation, which begin at the camera, as in the host."""
        ...


class RenderedWorld:
    """The world."""

    name: SpaceName = "bounded"
    spacing: Spacing = "uniform"
    contraction: Optional[Contraction] = None

    def from_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """See `RenderedSpace.from_world`."""
        return points

    def lengths(
        self, lattice: Lattice, step: Int32[Tensor, " points"], points: Float[Tensor, "points 3"]
    ) -> Float[Tensor, " points"]:
        """See `RenderedSpace.lengths`."""
        return lattice.lengths(step)

    def evaluated(self, lattice: Lattice) -> Lattice:
        """See `RenderedSpace.evaluated`."""
        more = floor(lattice.near / lattice.step_size)
        near = max(0.0, lattice.near - more * lattice.step_size)
        return Lattice(near, lattice.far, lattice.steps + more)


class RenderedBall:
    """The ball that unbounded space is contracted into, as `nerf-prune-real` does."""

    name: SpaceName = "contracted"
    spacing: Spacing = "piecewise"

    def __init__(self) -> None:
        self.contraction: Optional[Contraction] = self.from_world

    def from_world(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """See `RenderedSpace.from_world`."""
        return contract(points)

    def lengths(
        self, lattice: Lattice, step: Int32[Tensor, " points"], points: Float[Tensor, "points 3"]
    ) -> Float[Tensor, " points"]:
        """See `RenderedSpace.lengths`."""
        return lattice.lengths(step) / stretch(points)

    def evaluated(self, lattice: Lattice) -> Lattice:
        """See `RenderedSpace.evaluated`. The near plane of photographs is close enough to the camera."""
        return lattice


RENDERED_SPACES: Mapping[SpaceName, RenderedSpace] = {"bounded": RenderedWorld(), "contracted": RenderedBall()}
"""Name of a space -> the space."""
