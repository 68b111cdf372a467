"""Calibration samples of a miniature NeRF, and the same network by other means, for the tests."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nerfstudio_prune.neurons.samples import Samples, recorded_layers
from nerfstudio_prune.neurons.strategies import Selection
from support.tiny_field import PREFIX, TinyField, gates_of, inputs

ROWS = 60


def relu_field(seed: int = 0, **options: Any) -> TinyField:
    """A field with the activation of a NeRF."""
    return TinyField(seed=seed, activation=torch.relu, **options)


def outputs_of(field: TinyField, position: Tensor, direction: Tensor, **options: Any) -> dict[str, Tensor]:
    """Pre-activations of every layer, detached."""
    with recorded_layers(field.groups()) as records:
        field(position, direction, **options)
    return {name: record.output.detach() for name, (record,) in records.items()}


def samples_of(field: TinyField, points: tuple[Tensor, Tensor], even: bool = False, seed: int = 5) -> Samples:
    """What the layers of a field read besides neurons, with weights of samples and rows.

    Args:
        field: The field.
        points: Positions and directions.
        even: Whether all samples and rows count alike; else they are drawn.
        seed: Seed of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    with recorded_layers(field.groups()) as records:
        field(*points)
    weights, rows = {}, {}
    for name, (record,) in records.items():
        drawn = torch.rand(len(record.extra), generator=generator, dtype=torch.float64) ** 2 + 0.05
        weights[name] = (torch.ones_like(drawn) if even else drawn / drawn.mean()).to(record.extra)
        importance = torch.rand(record.output.shape[-1], generator=generator, dtype=torch.float64) + 0.1
        rows[name] = torch.ones_like(importance) if even else importance
    return Samples({name: record.extra for name, (record,) in records.items()}, weights, rows)


def points(seed: int = 1, rows: int = ROWS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Positions and directions."""
    return inputs(seed, rows, dtype)


def with_selections(field: TinyField, selections: Mapping[str, Selection]) -> tuple[TinyField, dict[str, Tensor]]:
    """The large network that computes what the selections promise.

    Returns:
        A copy of the field with refitted values in full size, and the gates to call it with.
    """
    large = copy.deepcopy(field)
    layers = large.layers()
    with torch.no_grad():
        for selection in selections.values():
            for name, (weight, bias) in selection.refit.items():
                layers[name].weight.copy_(weight)
                if bias is not None:
                    layers[name].bias.copy_(bias)
    return large, gates_of({group.name: group.width for group in field.groups()}, selections)


def network_samples(field: TinyField, rows: int = ROWS, seed: int = 1, even: bool = False) -> dict[str, Samples]:
    """Samples as `select_neurons` takes them."""
    return {PREFIX: samples_of(field, points(seed, rows), even)}
