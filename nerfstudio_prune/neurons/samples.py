"""Points at which a network is really evaluated, what it reads there besides neurons, and how much each one counts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nerfstudio_prune.neurons.groups import NeuronGroup, linears

SampleWeights = Literal["gradient", "contribution"]
"""What samples and outputs count by: the gradient of the pixel's colour, or the contribution to the pixel."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Calibration samples of one network."""

    extra: Mapping[str, Float[Tensor, "samples columns"]]
    """Module path of the layer -> the inputs that are not neurons (encoded position or direction), in their order;
    zero columns for layers that read neurons only."""
    weights: Mapping[str, Float[Tensor, " samples"]]
    """Module path of the layer -> how much an error of its pre-activations counts at each sample; mean 1."""
    rows: Mapping[str, Float[Tensor, " outputs"]]
    """Module path of the layer -> how much a squared error of each of its pre-activations counts."""
    taylor: Mapping[str, Float[Tensor, " neurons"]] = field(default_factory=dict)
    """Name of the group -> mean over batches of rays of (sum over the batch of activation * gradient of the loss)^2;
    empty if no gradients of the loss were asked for."""
    fisher: Mapping[str, Float[Tensor, " neurons"]] = field(default_factory=dict)
    """Name of the group -> mean over rays of (sum along the ray of activation * gradient of the ray's loss)^2; as
    `taylor`."""


def extra_columns(groups: Sequence[NeuronGroup]) -> dict[str, Bool[Tensor, " inputs"]]:
    """Columns of every layer that read no neurons, by module path."""
    columns = {name: torch.ones(layer.weight.shape[1], dtype=torch.bool) for name, layer in linears(groups).items()}
    for group in groups:
        for consumer in group.consumers:
            columns[consumer.name][consumer.column_offset : consumer.column_offset + group.width] = False
    return columns


@dataclass
class LayerRecord:
    """What one layer saw in one call."""

    extra: Float[Tensor, "samples columns"]
    """Its inputs that are not neurons, detached."""
    output: Float[Tensor, "*leading outputs"]
    """Its pre-activations as they are in the graph, of any leading shape."""


@contextmanager
def recorded_layers(groups: Sequence[NeuronGroup]) -> Iterator[dict[str, list[LayerRecord]]]:
    """Records every layer that the groups touch while the body runs forward passes.

    Gives:
        Module path of the layer -> a record of each of its calls, in order: a network may be evaluated more than once
        for a ray. Filled by the body.
    """
    columns = extra_columns(groups)
    records: dict[str, list[LayerRecord]] = {}
    handles = []
    for name, layer in linears(groups).items():

        def record(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            wanted = columns[name].to(output.device)
            extra = arguments[0].detach().flatten(0, -2)[:, wanted]
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_()  # a frozen network has no graph of its own
            records.setdefault(name, []).append(LayerRecord(extra, output))

        handles.append(layer.register_forward_hook(record))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()
