"""Density and colour of any points, each by the network of its cell: sorted, in parts, and put back in order."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn.functional import pad, softplus

from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.encoding import encode
from nerfstudio_prune.kilonerf.grouped import Evaluation, Groups, grouped_matmul
from nerfstudio_prune.kilonerf.networks import Packed, aligned

POINTS_AT_ONCE = 12_000
"""Points that a CPU evaluates at once where no graph is kept: their activations fit its cache."""
POINTS_AT_ONCE_ON_GPU = 2**21
"""Those of a GPU, beside which the time to launch its kernels is short."""


def encode_directions(directions: Float[Tensor, "rays 3"], frequencies: int) -> Float[Tensor, "rays encoded"]:
    """Directions as packed networks read them, once for each ray.

    Args:
        directions: Directions of length 1.
        frequencies: Number of frequencies.
    """
    encoded = encode(directions, frequencies)
    return pad(encoded, (0, aligned(encoded.shape[1]) - encoded.shape[1]))


def evaluate(
    networks: NetworkClasses,
    coordinates: Float[Tensor, "points 3"],
    network: Int32[Tensor, " points"],
    ray: Int32[Tensor, " points"],
    directions: Float[Tensor, "rays 3"],
    way: Evaluation = "auto",
) -> tuple[Float[Tensor, " points"], Float[Tensor, "points 3"]]:
    """Density and colour of points on rays, in the order of the points.

    Args:
        networks: The networks.
        coordinates: Coordinates in the cell of each point's network, in [-1, 1].
        network: Network of each point, in [0, networks).
        ray: Ray of each point.
        directions: Direction of each ray, of length 1.
        way: How grouped products are computed.

    Returns:
        Density per unit of length, >= 0; colour in [0, 1].

    Raises:
        ValueError: If a point has a network that does not exist.
    """
    if len(network) and not 0 <= int(network.min()) <= int(network.max()) < networks.num_networks:
        raise ValueError(
            f"points must have networks in [0, {networks.num_networks}), got {int(network.min())} to "
            f"{int(network.max())}"
        )
    if not len(network):
        return coordinates.new_zeros(0), coordinates.new_zeros(0, 3)
    key, order = networks.position.index_select(0, network).sort(stable=True)
    ends = key.long().bincount(minlength=networks.num_networks).cumsum(dim=0)
    seen = encode_directions(directions, networks.shapes[0].direction_frequencies)
    coordinates, ray = coordinates.index_select(0, order), ray.index_select(0, order)
    at_once = POINTS_AT_ONCE if coordinates.device.type == "cpu" else POINTS_AT_ONCE_ON_GPU
    most = len(network) if torch.is_grad_enabled() else at_once
    first_network, begin, parts = 0, 0, []
    for stack, count in zip(networks, networks.counts, strict=True):
        bounds = [begin, *ends[first_network : first_network + count].tolist()]
        packed = stack.pack() if bounds[-1] > begin else None
        for first, last, start, stop in _chunks(bounds, most):
            rows = slice(start, stop)
            groups = Groups((ends[first_network + first : first_network + last].int() - start).clamp(max=stop - start))
            assert packed is not None
            parts.append(_forward(packed.part(first, last), coordinates[rows], seen, ray[rows], groups, way))
        first_network, begin = first_network + count, bounds[-1]
    values = torch.cat(parts)
    values = torch.zeros_like(values).index_copy(0, order, values)
    return values[:, 3], values[:, :3]


def _chunks(bounds: list[int], most: int) -> Iterator[tuple[int, int, int, int]]:
    """First and last network, and first and last row, of each part of at most `most` points: as many whole networks as
    fit, and those that have more points in parts of their own."""
    first = 0
    while first < len(bounds) - 1:
        last = first + 1
        while last < len(bounds) - 1 and bounds[last + 1] - bounds[first] <= most:
            last += 1
        for start in range(bounds[first], bounds[last], most):
            yield first, last, start, min(start + most, bounds[last])
        first = last


def _forward(
    packed: Packed,
    coordinates: Float[Tensor, "points 3"],
    seen: Float[Tensor, "rays encoded"],
    ray: Int32[Tensor, " points"],
    groups: Groups,
    way: Evaluation,
) -> Float[Tensor, "points 4"]:
    """Colour and density of sorted points."""
    width = packed.shape.hidden_width
    encoded = encode(coordinates, packed.shape.position_frequencies)
    one = torch.zeros(packed.trunk[0].shape[1] - encoded.shape[1], dtype=encoded.dtype, device=encoded.device)
    one[0] = 1
    hidden = torch.cat([encoded, one.expand(len(encoded), -1)], dim=1)
    for layer in packed.trunk:
        hidden = grouped_matmul(hidden, layer, groups, way).relu_()
    hidden = torch.cat([hidden, seen.index_select(0, ray)], dim=1)
    hidden = grouped_matmul(hidden, packed.head, groups, way)
    # Read before the activation of the colour's layer, which works in place.
    density = softplus(hidden[:, width + 1].clone())
    # The colour's layer has a row of zeros for it: times infinity they would be no number.
    hidden[:, width + 1].zero_()
    rgb = grouped_matmul(hidden.relu_(), packed.rgb, groups, way)[:, :3].sigmoid()
    return torch.cat([rgb, density[:, None]], dim=1)
