"""Weights to go on with after an event, other than the inherited ones."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def rewound_values(shapes: Mapping[str, tuple[int, ...]], saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values of an earlier step for parameters of given shapes (Frankle et al. 2020, arXiv 1903.01611).

    Args:
        shapes: Name of the parameter -> shape after the event.
        saved: Snapshot, already cut down to the neurons that stay.

    Raises:
        ValueError: If the snapshot lacks a parameter or has another shape.
    """
    for name, shape in shapes.items():
        found = tuple(saved[name].shape) if name in saved else "none"
        if found != shape:
            raise ValueError(f"rewind snapshot: parameter {name} must have shape {shape}, found {found}")
    return {name: saved[name] for name in shapes}


def fresh_values(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """New initial values, as `nn.Linear` draws them, without touching the global random state.

    Args:
        shapes: Name of the parameter (`path.weight`, `path.bias`) -> shape.
        seed: Seed of the draw.
    """
    values: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name, shape in shapes.items():
            path, _, attribute = name.rpartition(".")
            if attribute == "weight":
                layer = nn.Linear(shape[1], shape[0], bias=f"{path}.bias" in shapes)
                values.update({f"{path}.{key}": value.detach() for key, value in layer.named_parameters()})
    return values
