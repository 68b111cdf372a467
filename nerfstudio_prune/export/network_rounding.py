"""Rounds the layers of networks, and tells beforehand what that would cost. Knows no runs."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from nerfstudio_prune.export.compensation import RoundedMoments, round_layer
from nerfstudio_prune.export.layers import LayerTensors, RoundedLayer
from nerfstudio_prune.export.rounding import MAX_BITS, MIN_BITS, dequantize, quantize
from nerfstudio_prune.neurons.groups import NeuronGroup, networks
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.samples import Samples, extra_columns
from nerfstudio_prune.neurons.statistics import LayerMoments

CHOICES = range(MIN_BITS, MAX_BITS + 1)
"""Bits that a layer may get."""


@torch.no_grad()
def round_networks(
    groups: Sequence[NeuronGroup], samples: Mapping[str, Samples], bits: Mapping[str, int]
) -> dict[str, RoundedLayer]:
    """Rounds layers front to back with compensation.

    Each layer reads what the layers before it give once they are rounded, and is to compute what it did in the network
    as it was: it makes up for their errors as well as for its own.

    Args:
        groups: All groups of all networks, each network in forward order.
        samples: Name of the network -> calibration samples.
        bits: Name of each layer to round -> bits of its weights, in [2, 8]. They lie before all others.

    Returns:
        Name of the layer -> its numbers.

    Raises:
        ValueError: If activations or moments are not finite, or a weight is too large for half precision; names the
            layer.
    """
    rounded = {}
    for walk, members in _walks(groups, samples):
        extra = extra_columns(members)
        for name, layer in _moments(walk, members, bits):
            with named(name):
                found = round_layer(layer, bits[name], True)
            # Moments have the columns that are no neurons first.
            order = torch.cat([extra[name].nonzero()[:, 0], (~extra[name]).nonzero()[:, 0]])
            codes = torch.empty_like(found.codes)
            codes[:, order] = found.codes
            rounded[name] = RoundedLayer(codes, found.scales, found.bias)
            walk.put({name: (dequantize(codes, found.scales, bits[name]), found.bias.float())})
    return rounded


@torch.no_grad()
def predicted_errors(
    groups: Sequence[NeuronGroup], samples: Mapping[str, Samples], names: Collection[str], compensated: bool
) -> dict[str, dict[int, float]]:
    """What rounding each layer alone would add to the squared error of the colours, to first order.

    A layer is really rounded at every number of bits; the weighted mean squared error of each of its outputs counts by
    the mean squared gradient of the colour with respect to it.

    Args:
        groups: All groups of all networks, each network in forward order.
        samples: Name of the network -> calibration samples, weighted by gradients.
        names: Layers to look at. They lie before all others.
        compensated: See `round_layer`.

    Returns:
        Name of the layer -> bits -> error, in any unit.

    Raises:
        ValueError: As `round_networks`.
    """
    errors = {}
    for walk, members in _walks(groups, samples):
        for name, layer in _moments(walk, members, names):
            with named(name):
                errors[name] = {bits: _error(layer, round_layer(layer, bits, compensated)) for bits in CHOICES}
    return errors


def relative_errors(layers: Mapping[str, LayerTensors]) -> dict[str, dict[int, float]]:
    """What rounding to nearest would cost, as far as weights tell: squared error of a layer's weights by their squares.

    Args:
        layers: Name of each layer -> its numbers.

    Returns:
        Name of the layer -> bits -> error; none where all weights are zero.

    Raises:
        ValueError: If a weight is too large for half precision; names the layer.
    """
    errors: dict[str, dict[int, float]] = {}
    for name, layer in layers.items():
        total = max(float(layer.weight.double().square().sum()), torch.finfo(torch.float64).tiny)
        for bits in CHOICES:
            with named(name):
                change = dequantize(*quantize(layer.weight, bits), bits).double() - layer.weight
            errors.setdefault(name, {})[bits] = float(change.square().sum()) / total
    return errors


@contextmanager
def named(name: str) -> Iterator[None]:
    """Puts the layer's name in front of what cannot be rounded.

    Args:
        name: Name of the layer.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}.weight: {error}") from error


def _error(layer: LayerMoments, rounded: RoundedMoments) -> float:
    return float((rounded.errors * layer.rows.square()).sum())


def _walks(
    groups: Sequence[NeuronGroup], samples: Mapping[str, Samples]
) -> Iterator[tuple[Propagation, list[NeuronGroup]]]:
    for network, members in networks(groups):
        yield Propagation(members, samples[network], 0.0), members


def _moments(
    walk: Propagation, members: Sequence[NeuronGroup], names: Collection[str]
) -> Iterator[tuple[str, LayerMoments]]:
    """Layers of a network in forward order with their moments; those before are as they have been put by then."""
    first = members[0]
    if first.name in names:
        yield first.name, walk.first_moments(first)
    for group in members:
        if not any(consumer.name in names for consumer in group.consumers):
            return
        layers = walk.statistics(group).layers
        for consumer, layer in zip(group.consumers, layers, strict=True):
            if consumer.name in names:
                yield consumer.name, layer
