"""A radiance field out of a file, as the host evaluates it."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, relu, softplus

from nerfstudio_prune.core.contraction import contract
from nerfstudio_prune.export.layers import LayerTensors
from nerfstudio_prune.export.schema import Encoding, Metadata, colour_name, density_name


def encode(values: Float[Tensor, "*batch 3"], encoding: Encoding) -> Float[Tensor, "*batch width"]:
    """Points or directions as sines and cosines, see `Encoding`.

    Args:
        values: Three coordinates each.
        encoding: Frequencies, and whether the coordinates follow.
    """
    powers = torch.linspace(encoding.lowest, encoding.highest, encoding.frequencies, device=values.device)
    phases = ((2 * torch.pi * values)[..., None] * 2**powers).flatten(-2)
    waves = torch.sin(torch.cat([phases, phases + torch.pi / 2.0], dim=-1))
    return torch.cat([waves, values], dim=-1) if encoding.input else waves


class ExportedField(nn.Module):
    """One field of a file.

    Args:
        name: Its name in the model.
        metadata: What the file says of itself.
        layers: Numbers of its layers, by name; they are taken as they are, not copied.
    """

    def __init__(self, name: str, metadata: Metadata, layers: Mapping[str, LayerTensors]) -> None:
        super().__init__()
        own = metadata.fields[name]
        self.metadata = metadata
        trunk, head = (
            [layers[f"{name}.{part}.layers.{i}"] for i in range(len(forms))]
            for part, forms in (("mlp_base", own.trunk), ("mlp_head", own.head))
        )
        self.trunk, self.head = nn.ModuleList(map(_linear, trunk)), nn.ModuleList(map(_linear, head))
        self.density = _linear(layers[density_name(name)])
        self.colour = None if own.colour is None else _linear(layers[colour_name(name)])

    def features(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch width"]:
        """What the trunk makes of places.

        Args:
            positions: Places in the scene.
        """
        if self.metadata.contraction is not None:
            positions = contract(positions)
        encoded = encode(positions, self.metadata.position)
        hidden = encoded
        for i, layer in enumerate(self.trunk):
            if i > 0 and i in self.metadata.skips:
                hidden = torch.cat([encoded, hidden], dim=-1)
            hidden = relu(layer(hidden))
        return hidden

    def density_of(self, features: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Density, not negative, per unit of length.

        Args:
            features: What `features` gave.
        """
        return softplus(self.density(features))[..., 0]

    def colour_of(
        self, features: Float[Tensor, "rays samples width"], directions: Float[Tensor, "rays 3"]
    ) -> Float[Tensor, "rays samples 3"]:
        """Colour, in [0, 1].

        Args:
            features: What `features` gave for the samples of each ray.
            directions: Directions of the rays, of length 1.
        """
        assert self.colour is not None
        first: Any
        first, *others = self.head
        encoded = encode(directions, self.metadata.direction)
        # All samples of a ray are seen from the same direction: its part of the product is that of the ray.
        weight = first.weight.split([encoded.shape[-1], features.shape[-1]], dim=1)
        hidden = relu(linear(encoded, weight[0], first.bias)[:, None] + linear(features, weight[1]))
        for layer in others:
            hidden = relu(layer(hidden))
        return torch.sigmoid(self.colour(hidden))


def _linear(tensors: LayerTensors) -> nn.Linear:
    """A layer that holds the given tensors."""
    layer = nn.Linear(tensors.weight.shape[1], tensors.weight.shape[0], device="meta")
    layer.weight = nn.Parameter(tensors.weight, requires_grad=False)
    layer.bias = nn.Parameter(tensors.bias, requires_grad=False)
    return layer
