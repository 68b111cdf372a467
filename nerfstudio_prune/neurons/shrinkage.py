"""Draws the outgoing weights of neurons that are about to leave towards zero, before the cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.strategies import Selection


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """Penalty on the weights that read doomed neurons; AIRe (arXiv 2510.23943) ramps it up in the same way."""

    columns: list[tuple[nn.Linear, Tensor]]
    """Layers and the columns of their weights that are to vanish."""
    last_step: int
    """Training step at whose end the cut is due."""
    steps: int
    """Training steps that the penalty acts for, >= 1."""
    weight: float
    """Factor of the penalty in the last of these steps, > 0."""

    def penalty(self, step: int) -> Float[Tensor, ""]:
        """Mean absolute value of the doomed weights, times a factor that rises linearly from step to step.

        Args:
            step: Training step.
        """
        ramp = min(1.0, max(0, step - self.last_step + self.steps) / self.steps)
        doomed = torch.cat([layer.weight[:, columns].flatten() for layer, columns in self.columns])
        return self.weight * ramp * doomed.abs().mean()


def leaving_neurons(groups: Sequence[NeuronGroup], selections: Mapping[str, Selection]) -> dict[str, list[int]]:
    """Name of the group -> neurons that a cut would remove, of groups that lose any.

    Args:
        groups: All groups.
        selections: Name of the group -> neurons that stay.
    """
    widths = {group.name: group.width for group in groups}
    stay = {name: set(selection.keep.tolist()) for name, selection in selections.items()}
    leaving = {name: [i for i in range(widths[name]) if i not in kept] for name, kept in stay.items()}
    return {name: neurons for name, neurons in leaving.items() if neurons}


def leaving_columns(
    groups: Sequence[NeuronGroup], leaving: Mapping[str, Sequence[int]]
) -> list[tuple[nn.Linear, Tensor]]:
    """Columns that a cut would remove from the layers behind the groups.

    Args:
        groups: All groups.
        leaving: Name of the group -> neurons that leave.

    Raises:
        ValueError: If there is no such group or neuron.
    """
    widths = {group.name: group.width for group in groups}
    for name, neurons in leaving.items():
        if not all(0 <= neuron < widths.get(name, 0) for neuron in neurons):
            raise ValueError(f"{name}: expected neurons of a layer with {widths.get(name, 0)}, got {shown(neurons)}")
    columns = []
    for group in groups:
        if group.name in leaving:
            for consumer in group.consumers:
                index = torch.tensor(leaving[group.name]) + consumer.column_offset
                columns.append((consumer.linear, index.to(consumer.linear.weight.device)))
    return columns
