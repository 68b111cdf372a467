"""One pruning event on a network and its optimizers: prepare, check, apply. All or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nerfstudio_prune.core.events import RecoveryMode
from nerfstudio_prune.core.optimizer_state import ParameterEdit, Rebinding, clear_state, prepare_rebind
from nerfstudio_prune.neurons.compaction import MomentsMode, apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.edges import apply_masks
from nerfstudio_prune.neurons.groups import NeuronGroup, expected_shapes, linears
from nerfstudio_prune.neurons.recovery import fresh_values, rewound_values
from nerfstudio_prune.neurons.strategies import Selection


class NonFiniteWeightsError(ValueError):
    """A network with NaN or infinite weights cannot be scored."""


def named_parameters(groups: Sequence[NeuronGroup]) -> dict[str, nn.Parameter]:
    """Weights and biases of every layer that the groups touch, by module path, in forward order."""
    return {f"{name}.{key}": p for name, layer in linears(groups).items() for key, p in layer.named_parameters()}


def check_finite(groups: Sequence[NeuronGroup]) -> None:
    """Checks every weight and bias that the groups touch.

    Raises:
        NonFiniteWeightsError: Names the first layer with NaN or infinite values.
    """
    for name, parameter in named_parameters(groups).items():
        bad = int((~torch.isfinite(parameter)).sum())
        if bad:
            raise NonFiniteWeightsError(
                f"{name}: {bad} of {parameter.numel()} values are not finite; nothing was pruned. A lower learning "
                "rate, or gradient clipping (max_norm), keeps training from diverging"
            )


@dataclass
class Pruning:
    """A checked event that is ready to be applied. `apply` only assigns."""

    groups: Sequence[NeuronGroup]
    """Groups of the networks that the event touches."""
    edits: list[ParameterEdit]
    """Parameters that become smaller."""
    rebind: Rebinding
    """What that changes in the optimizers."""
    clear_moments: bool
    """Whether the optimizers forget what they know of the touched networks."""
    values: dict[str, Tensor]
    """Name of the parameter -> value to go on with, where it is not the inherited one."""
    masks: dict[str, Tensor]
    """Edge masks that hold after the event."""
    snapshot: dict[str, Tensor]
    """Rewind snapshot, cut down to the neurons that stay."""

    @torch.no_grad()
    def apply(self) -> None:
        """Carries the event out."""
        apply_compaction(self.edits)
        self.rebind.apply()
        parameters = named_parameters(self.groups)
        for name, value in self.values.items():
            parameters[name].copy_(value)
            parameters[name].grad = None  # it belongs to the weights that were replaced
        apply_masks(parameters, {name: mask for name, mask in self.masks.items() if name in parameters})
        if self.clear_moments:
            clear_state(self.rebind.optimizers, parameters.values())


def prepare_pruning(
    groups: Sequence[NeuronGroup],
    selections: Mapping[str, Selection],
    recovery: RecoveryMode,
    optimizers: Mapping[str, Optimizer],
    parameter_lists: Mapping[str, list[nn.Parameter]],
    seed: int,
    masks: Mapping[str, Tensor] | None = None,
    snapshot: Mapping[str, Tensor] | None = None,
    moments: MomentsMode = "keep",
) -> Pruning:
    """Prepares and checks an event without changing the network.

    Args:
        groups: All groups of the networks that the event touches; with `rewind` and `scratch` every layer of them
            gets new values.
        selections: Name of the group -> neurons that stay; empty for edge pruning.
        recovery: `continue` inherits weights and sliced moments, `retrain` inherits weights and clears the moments,
            `rewind` takes the weights of the snapshot, `scratch` draws new ones; both clear the moments.
        optimizers: Live optimizers by name.
        parameter_lists: The host's second list of the same parameters, by optimizer name; edited in place.
        seed: Seed for `scratch`.
        masks: Edge masks that hold after the event, shaped like the weights before it.
        snapshot: Rewind snapshot, shaped like the weights before the event.
        moments: What becomes of the moments of refitted layers, see `prepare_compaction`.

    Raises:
        NonFiniteWeightsError: If a weight is not finite, before or after re-weighting.
        ValueError: If an optimizer does not know a parameter, or a mask or the snapshot does not fit.
    """
    check_finite(groups)
    edits = prepare_compaction(groups, selections, moments)
    for edit in edits:
        if not bool(torch.isfinite(edit.new).all()):
            raise NonFiniteWeightsError(f"{edit.name}: re-weighting or refit gave values that are not finite")
    by_name = {edit.name: edit for edit in edits}
    parameters = named_parameters(groups)

    def cut(label: str, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        for name, tensor in (tensors or {}).items():
            shape = tuple(parameters[name].shape) if name in parameters else tuple(tensor.shape)
            if tensor.shape != shape:
                raise ValueError(f"{label}: parameter {name} must have shape {shape}, found {tuple(tensor.shape)}")
        return {k: by_name[k].select(t) if k in by_name else t for k, t in (tensors or {}).items()}

    rebind = prepare_rebind(optimizers, parameter_lists, edits)
    masks, snapshot = cut("edge mask", masks), cut("rewind snapshot", snapshot)
    shapes = expected_shapes(groups, {name: len(selection.keep) for name, selection in selections.items()})
    values = {}
    if recovery == "rewind":
        values = rewound_values(shapes, snapshot)
    elif recovery == "scratch":
        values = fresh_values(shapes, seed)
    return Pruning(groups, edits, rebind, recovery != "continue", values, masks, snapshot)
