"""How large the network is now, and was before the first event."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.budget import cost_of
from nerfstudio_prune.neurons.groups import linears


@dataclass(frozen=True)
class Sizes:
    """Size of both fields."""

    groups: Mapping[str, int]
    """Name of the group -> its neurons, or the edges of its layer that live."""
    parameters: int
    """Weights and biases; of masked layers what lives."""
    macs_per_ray: int
    """Multiply-accumulates per ray, coarse and fine; masks save none."""


def sizes_of(model: PruneModel, masks: Mapping[str, Tensor], edges: bool = False) -> Sizes:
    """Sizes read off the tensors.

    Args:
        model: The model as it is.
        masks: Name of the parameter -> mask of the edges that live; only for `edges`.
        edges: Whether edges are counted instead of neurons.
    """
    groups = model.neuron_groups()
    parameters, macs = (sum(column) for column in zip(*model.layer_costs().values(), strict=True))
    if not edges:
        return Sizes({group.name: group.width for group in groups}, parameters, macs)
    weights = {name: layer.weight.numel() for name, layer in linears(groups).items()}
    living = {name: int(masks[f"{name}.weight"].sum()) for name in weights if f"{name}.weight" in masks}
    sizes = {group.name: living.get(group.name, weights[group.name]) for group in groups}
    return Sizes(sizes, parameters - sum(weights[name] - count for name, count in living.items()), macs)


def initial_sizes_of(model: PruneModel) -> Sizes:
    """Sizes before the first event; the present ones where the model does not know better."""
    groups = model.neuron_groups()
    widths = model.prune_state.initial_sizes or {group.name: group.width for group in groups}
    layers = list(linears(groups))
    per_ray = {layer: model.samples_per_ray(layer.split(".")[0]) for layer in layers}
    return Sizes(
        widths,
        round(cost_of(groups, widths, dict.fromkeys(layers, 1), count_bias=True)),
        round(cost_of(groups, widths, per_ray, count_bias=False)),
    )
