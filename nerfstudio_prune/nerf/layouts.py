"""Which layers of a field share a neuron axis, told by the field's class.

A model with one field, with several, or with a field that is evaluated more than once for a ray needs nothing here; a
field of another class is one more entry of the registry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nerfstudio.field_components.mlp import MLP
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from torch import nn

from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup, mlp_groups

TRUNK, HEAD = "trunk", "head"
"""Roles of layers, for options that tell them apart."""


@dataclass(frozen=True)
class Layout:
    """What is known of a class of fields."""

    groups: Callable[[str, Any], list[NeuronGroup]]
    """Name of a field in its model, and the field -> its hidden layers in forward order, with the columns that read
    them."""
    synced: Callable[[Any], None]
    """Brings a field's own notes of its widths in line with its tensors."""
    densities: Callable[[str], tuple[str, ...]]
    """Name of a field -> module paths of the layers whose outputs are its density."""


LAYOUTS: dict[type[nn.Module], Layout] = {}
"""Class of a field -> its layout; holds for subclasses too."""


def layout_of(field: nn.Module) -> Layout:
    """The layout of a field.

    Raises:
        KeyError: If its class is not registered.
    """
    return next(LAYOUTS[cls] for cls in type(field).__mro__ if cls in LAYOUTS)


def fields_of(model: nn.Module) -> dict[str, Any]:
    """Fields of a model whose class has a layout, by the name of the attribute, in the order they were set."""
    children = dict(model.named_children())
    return {name: child for name, child in children.items() if any(cls in LAYOUTS for cls in type(child).__mro__)}


def mlp_layers(mlp: MLP) -> list[nn.Linear]:
    """Layers of the host's multilayer perceptron."""
    return list(mlp.layers)  # type: ignore[arg-type]


def _nerf_groups(name: str, field: NeRFField) -> list[NeuronGroup]:
    base, head = field.mlp_base, field.mlp_head
    position_width = field.position_encoding.get_out_dim()
    direction_width = field.direction_encoding.get_out_dim()
    colour, density = field.field_heads[0].net, field.field_output_density.net
    assert isinstance(colour, nn.Linear) and isinstance(density, nn.Linear)
    readers = [
        Consumer(_nerf_densities(name)[0], density, 0),
        Consumer(f"{name}.mlp_head.layers.0", mlp_layers(head)[0], direction_width),
    ]
    skips = set(base.skip_connections or ())
    trunk = mlp_groups(f"{name}.mlp_base.layers", mlp_layers(base), readers, skips, position_width, name, TRUNK)
    readers = [Consumer(f"{name}.field_heads.0.net", colour, 0)]
    return trunk + mlp_groups(f"{name}.mlp_head.layers", mlp_layers(head), readers, network=name, role=HEAD)


def _nerf_densities(name: str) -> tuple[str, ...]:
    return (f"{name}.field_output_density.net",)


def _nerf_synced(field: NeRFField) -> None:
    for layer in field.modules():
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = layer.weight.shape
    base, head = field.mlp_base, field.mlp_head
    base.out_dim = mlp_layers(base)[-1].out_features
    head.in_dim, head.out_dim = mlp_layers(head)[0].in_features, mlp_layers(head)[-1].out_features
    field.field_output_density.in_dim = base.out_dim
    field.field_heads[0].in_dim = head.out_dim  # type: ignore[assignment]


LAYOUTS[NeRFField] = Layout(_nerf_groups, _nerf_synced, _nerf_densities)
