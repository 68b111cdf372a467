"""What a tiny network is told of a place and of a direction."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def encoded_width(frequencies: int) -> int:
    """Numbers that three coordinates become: themselves, and a sine and a cosine of each at every frequency.

    Args:
        frequencies: Number of frequencies, >= 0.
    """
    return 3 + 6 * frequencies


def encode(coordinates: Float[Tensor, "*batch 3"], frequencies: int) -> Float[Tensor, "*batch encoded"]:
    """Coordinates, and sin and cos of pi / 2 * 2^k * coordinate for k = 0, 1, ...

    The encoding of NeRF (Mildenhall et al. 2020, arXiv 2003.08934, equation 4) for a cell of side 2: the first period
    is twice that, so that the faces of a cell differ. One sine and one cosine; those of the other frequencies follow
    from sin 2a = 2 sin a cos a and cos 2a = (cos a - sin a) (cos a + sin a). In single precision that is as exact as
    the sine of the angle itself, 7e-5 at the tenth frequency; with cos 2a = 1 - 2 sin² a it would be 6e-4.

    Args:
        coordinates: In [-1, 1].
        frequencies: Number of frequencies, >= 0.

    Returns:
        The coordinates, then for each frequency three sines and three cosines.
    """
    if not frequencies:
        return coordinates
    angles = coordinates * (math.pi / 2)
    sine, cosine = angles.sin(), angles.cos()
    parts = [coordinates, sine, cosine]
    for _ in range(frequencies - 1):
        sine, cosine = 2 * sine * cosine, (cosine - sine) * (cosine + sine)
        parts += [sine, cosine]
    return torch.cat(parts, dim=-1)


def frequencies_for(cell_size: float, footprint: float, most: int = 10) -> int:
    """As many frequencies as have periods of at least two pixels, within [1, most].

    The finest period is from two to four pixels. It is longer where `most` cuts it off, and shorter where a cell is
    smaller than a pixel, for there is always one frequency.

    Args:
        cell_size: Side of a cell, > 0.
        footprint: Width of a pixel where the scene is, > 0, in the same unit.
        most: Most frequencies; KiloNeRF (arXiv 2103.13744, appendix) has 10 in every cell.

    Returns:
        A number in [1, most].

    Raises:
        ValueError: If a size is not positive.
    """
    if not (cell_size > 0 and footprint > 0):
        raise ValueError(f"cell_size and footprint must be positive, got {cell_size:g} and {footprint:g}")
    # The period at frequency k is 2 * cell_size / 2^k.
    finest = math.floor(math.log2(cell_size / footprint) + 1e-9)
    return min(max(finest + 1, 1), most)
