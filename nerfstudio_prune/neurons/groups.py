"""Which tensors share a neuron axis.

`nn.Linear.weight` is [out, in]: a neuron is one row of the layer that produces it (and one bias entry) and one column
in every layer that consumes it.
"""

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Optional

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_prune.neurons.statistics import GroupStatistics


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that reads the neurons of a group."""

    name: str
    """Module path of the layer."""
    linear: nn.Linear
    """The layer."""
    column_offset: int
    """Column of its weight that reads the group's first neuron."""


@dataclass(frozen=True, eq=False)
class NeuronGroup:
    """The neurons of one hidden layer with everything that has to shrink together."""

    name: str
    """Module path of the producer."""
    producer: nn.Linear
    """Layer whose rows (and bias entries) are the neurons."""
    consumers: tuple[Consumer, ...]
    """Layers that read the neurons."""
    statistics: Optional[GroupStatistics] = None
    """What is known of the neurons on calibration samples; None where none were collected."""
    network: str = ""
    """Network that the layer belongs to, by its name in the model; groups of one network are walked front to back."""
    role: str = ""
    """What the layer is in its network, for options that tell them apart: `trunk` or `head` of a radiance field."""

    @property
    def layer(self) -> str:
        """Module path of the producer within its network."""
        return self.name.removeprefix(f"{self.network}.")

    @property
    def width(self) -> int:
        """Number of neurons, read off the tensor."""
        return self.producer.weight.shape[0]

    @property
    def incoming(self) -> Float[Tensor, "neurons fan_in"]:
        """Incoming weights, without bias."""
        return self.producer.weight.detach()

    @property
    def outgoing(self) -> Float[Tensor, "outputs neurons"]:
        """Outgoing weights, the rows of all consumers stacked."""
        columns = [c.linear.weight.detach()[:, c.column_offset : c.column_offset + self.width] for c in self.consumers]
        return torch.cat(columns)


def mlp_groups(
    prefix: str,
    layers: Sequence[nn.Linear],
    readers: Sequence[Consumer],
    skip_layers: Collection[int] = (),
    skip_width: int = 0,
    network: str = "",
    role: str = "",
) -> list[NeuronGroup]:
    """Groups of a multilayer perceptron whose every layer is hidden.

    Args:
        prefix: Module path of the layer list; layer i is called `prefix.i`.
        layers: The layers in forward order.
        readers: Layers outside that read the last layer's neurons.
        skip_layers: Indices of layers whose input is the network's input followed by the previous layer's neurons.
        skip_width: Size of the network's input, the column offset at those layers.
        network: Network that the layers belong to.
        role: What they are in it.

    Returns:
        One group per layer in forward order.
    """
    groups = []
    for i, layer in enumerate(layers):
        consumers = tuple(readers)
        if i + 1 < len(layers):
            offset = skip_width if i + 1 in skip_layers else 0
            consumers = (Consumer(f"{prefix}.{i + 1}", layers[i + 1], offset),)
        groups.append(NeuronGroup(f"{prefix}.{i}", layer, consumers, network=network, role=role))
    return groups


def networks(groups: Iterable[NeuronGroup]) -> Iterator[tuple[str, list[NeuronGroup]]]:
    """Groups by network, in order."""
    for name, members in groupby(groups, key=lambda group: group.network):
        yield name, list(members)


def match_groups(groups: Iterable[NeuronGroup], patterns: Iterable[str], option: str = "groups") -> list[NeuronGroup]:
    """Groups whose name matches at least one pattern.

    Args:
        groups: All groups.
        patterns: `fnmatch` patterns such as `field_fine.mlp_base.layers.[1-7]`.
        option: Name of the option for the error message.

    Raises:
        ValueError: If a pattern matches no group; lists the groups.
    """
    groups = list(groups)
    matched = set()
    for pattern in patterns:
        names = fnmatch.filter([group.name for group in groups], pattern)
        if not names:
            listing = "\n  ".join(group.name for group in groups)
            raise ValueError(f"{option}: pattern {pattern!r} matches no group of neurons; the groups are\n  {listing}")
        matched.update(names)
    return [group for group in groups if group.name in matched]


def linears(groups: Iterable[NeuronGroup]) -> dict[str, nn.Linear]:
    """Every layer that the groups touch, by module path, in forward order."""
    found: dict[str, nn.Linear] = {}
    for group in groups:
        found.setdefault(group.name, group.producer)
        for consumer in group.consumers:
            found.setdefault(consumer.name, consumer.linear)
    return found


def count_parameters(layers: Iterable[nn.Linear]) -> int:
    """Number of weights and biases, read off the tensors."""
    return sum(p.numel() for layer in layers for p in layer.parameters())


def macs_per_sample(layers: Iterable[nn.Linear]) -> int:
    """Multiply-accumulates of one evaluation at one sample; biases and activations are not counted."""
    return sum(layer.weight.numel() for layer in layers)


def expected_shapes(groups: Sequence[NeuronGroup], widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights and biases if the groups had other widths.

    Args:
        groups: All groups of a network.
        widths: Name of the group -> width; groups that are not named keep theirs.

    Returns:
        Name of the parameter -> shape.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, linear in linears(groups).items():
        rows, columns = linear.weight.shape
        for group in groups:
            new_width = widths.get(group.name, group.width)
            if group.name == name:
                rows = new_width
            columns += (new_width - group.width) * sum(c.name == name for c in group.consumers)
        shapes[f"{name}.weight"] = (rows, columns)
        if linear.bias is not None:
            shapes[f"{name}.bias"] = (rows,)
    return shapes
