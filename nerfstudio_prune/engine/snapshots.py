"""The network from right before an event, kept to go back to and to compare with."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from torch import Tensor, nn

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.optimizer_state import ParameterEdit, plan_rebind
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.pruner import named_parameters


class KeptNetwork:
    """Weights, moments, masks, snapshot and history as they are when it is made.

    One copy, on the CPU. It is no module and belongs to none: neither optimizers nor checkpoints see it.

    Args:
        model: Model that is about to be pruned.
        optimizers: The host's optimizers over its parameters.
    """

    def __init__(self, model: PruneModel, optimizers: Optimizers) -> None:
        state = model.prune_state
        self.fields: dict[str, NeRFField] = {name: deepcopy(getattr(model, name)).cpu() for name in FIELDS}
        self.history: list[PruneEvent] = list(state.history)
        self.edge_masks = _copied(state.edge_masks)
        self.rewind_snapshot = _copied(state.rewind_snapshot)
        self._moments = {
            name: {
                optimizer_name: {key: _on_cpu(value) for key, value in optimizer.state[parameter].items()}
                for optimizer_name, optimizer in optimizers.optimizers.items()
                if parameter in optimizer.state
            }
            for name, parameter in named_parameters(model.neuron_groups()).items()
        }
        self._views: dict[torch.device, PruneModel] = {}

    def view(self, model: PruneModel) -> PruneModel:
        """The model as it was, for rendering; copied to the model's device on first use, and kept there with this.

        Args:
            model: The model that is trained.
        """
        device = model.device
        if device not in self._views:
            fields = self.fields
            if device.type != "cpu":
                fields = {name: deepcopy(field).to(device) for name, field in fields.items()}
            self._views[device] = model.with_fields(fields)
        return self._views[device]

    def restore(self, model: PruneModel, optimizers: Optimizers) -> None:
        """Puts weights, moments, masks, snapshot and history back; gradients that are being accumulated are lost.

        Steps and learning rates are not touched.

        Args:
            model: The model that was pruned.
            optimizers: The host's optimizers over its parameters.

        Raises:
            ValueError: If an optimizer does not know a parameter; nothing is changed then.
        """
        kept = named_parameters(model.with_fields(self.fields).neuron_groups())
        edits: list[ParameterEdit] = []
        for path, layer in linears(model.neuron_groups()).items():
            for attribute, old in layer.named_parameters():
                value = kept[f"{path}.{attribute}"].detach().to(old.device, copy=True)
                new = nn.Parameter(value, requires_grad=old.requires_grad)
                edits.append(ParameterEdit(f"{path}.{attribute}", layer, attribute, old, new, {}, forget=True))
        plan = plan_rebind(optimizers.optimizers, optimizers.parameters, edits)
        for edit in edits:
            for name, values in self._moments[edit.name].items():
                plan.states[name][edit.new] = {key: _back(value) for key, value in values.items()}
        state = model.prune_state
        masks = {name: mask.to(model.device) for name, mask in self.edge_masks.items()}
        for edit in edits:
            setattr(edit.module, edit.attribute, edit.new)
        plan.apply()
        model.sync_widths()
        state.history, state.edge_masks, state.rewind_snapshot = self.history, masks, self.rewind_snapshot


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _on_cpu(value: Any) -> Any:
    """An entry of an optimizer's state, with the device that it came from."""
    return (value.detach().cpu().clone(), value.device) if torch.is_tensor(value) else value


def _back(value: Any) -> Any:
    return value[0].to(value[1], copy=True) if isinstance(value, tuple) and torch.is_tensor(value[0]) else value
