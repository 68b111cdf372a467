"""Tiny networks one by one, in float64: what stacked, packed and grouped ones have to agree with."""

import math

import torch
from torch import Tensor

from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape


def some_shape(width: int = 8, num_layers: int = 2) -> NetworkShape:
    """A small shape.

    Args:
        width: Neurons of a hidden layer.
        num_layers: Hidden layers.
    """
    return NetworkShape(width, num_layers, 2, 1)


def shaken(networks: TinyNetworks, seed: int = 0) -> TinyNetworks:
    """The same networks, each with weights of its own.

    Args:
        networks: Networks; changed in place.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return networks


def some_networks(count: int, shape: NetworkShape, seed: int = 0) -> TinyNetworks:
    """Networks that differ.

    Args:
        count: How many.
        shape: Their sizes.
        seed: Of the draw.
    """
    return shaken(TinyNetworks(count, shape, torch.Generator().manual_seed(seed)), seed)


def some_classes(counts: dict[int, int], seed: int = 0) -> NetworkClasses:
    """Networks of several widths, in a mixed order.

    Args:
        counts: Width -> how many networks.
        seed: Of the draw.
    """
    stacks = [some_networks(count, some_shape(width), seed + width) for width, count in counts.items()]
    order = torch.randperm(sum(counts.values()), generator=torch.Generator().manual_seed(seed)).int()
    return NetworkClasses(stacks, order)


def encode_by_hand(coordinates: Tensor, frequencies: int) -> Tensor:
    """The encoding by its definition."""
    parts = [coordinates]
    for k in range(frequencies):
        angles = coordinates * (math.pi / 2 * 2**k)
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=-1)


def single(networks: TinyNetworks, index: int, position: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """One network at some points, in float64, by plain products.

    Args:
        networks: The networks.
        index: Number of the one.
        position: Coordinates [points, 3].
        direction: Directions [points, 3].

    Returns:
        Density [points] and colour [points, 3].
    """
    p = {name: value[index].double() for name, value in networks.named_parameters()}
    shape = networks.shape
    hidden = encode_by_hand(position.double(), shape.position_frequencies)
    for i in range(1, shape.num_layers + 1):
        hidden = (hidden @ p[f"w{i}"] + p[f"b{i}"]).relu()
    raw = (hidden @ p["w_density"] + p["b_density"])[:, 0]
    seen = encode_by_hand(direction.double(), shape.direction_frequencies)
    feature = (hidden @ p["w_feature"] + seen @ p["w_direction"] + p["b_feature"]).relu()
    rgb = feature @ p["w_rgb"] + p["b_rgb"]
    return torch.nn.functional.softplus(raw), rgb.sigmoid()


def member(networks: NetworkClasses, network: int) -> tuple[TinyNetworks, int]:
    """Stack and row of a network.

    Args:
        networks: Networks of several widths.
        network: Its number.
    """
    row = int(networks.position[network])
    for stack in networks:
        if row < stack.num_networks:
            return stack, row
        row -= stack.num_networks
    raise IndexError(network)
