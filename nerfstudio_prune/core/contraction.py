"""Unbounded space in the unit ball: the map of mip-NeRF 360 (Barron et al. 2022, arXiv 2111.12077, eq. 10), halved.

The inner half of the ball is the undistorted unit ball of the world.
"""

import torch
from jaxtyping import Float
from torch import Tensor

NEAREST = 1e-3
"""Distance from the edge of the ball at which lengths outside of it are no longer told apart."""


def contract(positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Places of the world in the ball.

    Args:
        positions: Places in the world.
    """
    length = torch.linalg.norm(positions, dim=-1, keepdim=True)
    return torch.where(length < 1, positions, (2 - 1 / length) * (positions / length)) / 2


def stretch(contracted: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
    """Length outside, along the radius, that a unit of length in the ball stands for, >= 2; unbounded at its edge.

    Args:
        contracted: Places in the ball.
    """
    # Outside of the unit ball the map is r -> 1 - 1 / (2 r), of slope 1 / (2 r^2).
    room = (1 - contracted.norm(dim=-1)).clamp(NEAREST, 0.5)
    return 1 / (2 * room.square())
