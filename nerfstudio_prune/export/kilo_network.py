"""Tiny networks of one width as a file has them: layer by layer, front to back, and what each of them reads."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

StackLayer = tuple[Float[Tensor, "networks rows columns"], Float[Tensor, "networks rows"]]
"""Weight and bias of a layer of some networks."""
StackLayers = Mapping[str, StackLayer]
"""Name of each layer -> it, in forward order: `hidden.0`, ..., `density`, `feature`, `colour`."""


def preactivations(
    layers: StackLayers, encoded: Float[Tensor, "networks points _"], seen: Float[Tensor, "networks points _"]
) -> dict[str, Float[Tensor, "networks points rows"]]:
    """What each layer gives, before its activation.

    Args:
        layers: All layers of some networks.
        encoded: Encoded positions.
        seen: Encoded directions.
    """
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        found[name] = preactivation(layer, reads(name, found, encoded, seen))
    return found


def preactivation(
    layer: StackLayer, inputs: Float[Tensor, "networks points columns"]
) -> Float[Tensor, "networks points rows"]:
    """What one layer gives, before its activation.

    Args:
        layer: The layer.
        inputs: What it reads.
    """
    weight, bias = layer
    return torch.baddbmm(bias[:, None], inputs, weight.transpose(1, 2))


def reads(
    name: str,
    before: Mapping[str, Float[Tensor, "networks points _"]],
    encoded: Float[Tensor, "networks points _"],
    seen: Float[Tensor, "networks points _"],
) -> Float[Tensor, "networks points columns"]:
    """What a layer reads.

    Args:
        name: Name of the layer.
        before: What the layers in front of it give, perhaps with those behind it.
        encoded: Encoded positions.
        seen: Encoded directions.
    """
    if name == "colour":
        return before["feature"].relu()
    trunk = encoded
    for layer, value in before.items():
        if layer == name or not layer.startswith("hidden."):
            break
        trunk = value.relu()
    return torch.cat([trunk, seen], dim=-1) if name == "feature" else trunk
