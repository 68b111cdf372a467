"""The network from right before an event, kept to go back to and to compare with."""

from collections.abc import Mapping
from typing import Any, Optional

import torch
from nerfstudio.engine.optimizers import Optimizers
from torch import Tensor, nn

from nerfstudio_prune.core.optimizer_state import ParameterEdit, copied, prepare_rebind
from nerfstudio_prune.core.subject import Picture, Subject


class NetworkSnapshot:
    """Parameters, moments, buffers, rewind snapshot and history as they are when it is made.

    One copy, on the CPU. It is no module and belongs to none: neither optimizers nor checkpoints see it.

    Args:
        subject: What is about to be pruned.
        optimizers: The host's optimizers over the model's parameters.
        leaving: What `Subject.leaving` gave for the change that is about to be applied.
    """

    def __init__(
        self, subject: Subject[Any], optimizers: Optimizers, leaving: Optional[Mapping[str, Tensor]] = None
    ) -> None:
        self.subject = subject.detached(torch.device("cpu"))
        self.leaving = copied(leaving or {})
        self.history = list(subject.state.history)
        self.buffers = copied(subject.buffers())
        self.rewind_snapshot = copied(subject.state.rewind_snapshot)
        self._moments = {
            name: {
                optimizer_name: {key: _on_cpu(value) for key, value in optimizer.state[parameter].items()}
                for optimizer_name, optimizer in optimizers.optimizers.items()
                if parameter in optimizer.state
            }
            for name, parameter in subject.parameters().items()
        }
        self._views: dict[torch.device, Subject[Any]] = {torch.device("cpu"): self.subject}
        self._pictures: dict[torch.device, Mapping[str, Picture]] = {}

    def view(self, device: torch.device) -> Any:
        """The model as it was, for rendering; copied to a device on first use, and kept there with this.

        Args:
            device: Where the model that is trained lives.
        """
        return self._on(device).model

    def pictures(self, device: torch.device) -> Mapping[str, Picture]:
        """Further outputs of the viewer that the event gave; kept like `view`.

        Args:
            device: Where the model that is trained lives.
        """
        if device not in self._pictures:
            self._pictures[device] = self._on(device).pictures({}, self.leaving)
        return self._pictures[device]

    def _on(self, device: torch.device) -> Subject[Any]:
        if device not in self._views:
            self._views[device] = self.subject.detached(device)
        return self._views[device]

    def restore(self, subject: Subject[Any], optimizers: Optimizers) -> None:
        """Puts everything back; gradients that are being accumulated are lost. Steps and learning rates go on.

        Args:
            subject: What was pruned.
            optimizers: The host's optimizers over the model's parameters.

        Raises:
            ValueError: If an optimizer does not know a parameter; nothing is changed then.
        """
        saved = self.subject.parameters()
        edits: list[ParameterEdit] = []
        for name, old in subject.parameters().items():
            path, _, attribute = name.rpartition(".")
            new = nn.Parameter(saved[name].detach().to(old.device, copy=True), requires_grad=old.requires_grad)
            edits.append(ParameterEdit(name, subject.model.get_submodule(path), attribute, old, new, {}, forget=True))
        rebind = prepare_rebind(optimizers.optimizers, optimizers.parameters, edits)
        for edit in edits:
            for name, values in self._moments[edit.name].items():
                rebind.states[name][edit.new] = {key: _back(value) for key, value in values.items()}
        buffers = {name: tensor.to(subject.device) for name, tensor in self.buffers.items()}
        for edit in edits:
            setattr(edit.module, edit.attribute, edit.new)
        rebind.apply()
        subject.set_buffers(buffers)
        subject.synced()
        subject.state.history, subject.state.rewind_snapshot = self.history, self.rewind_snapshot


def _on_cpu(value: Any) -> Any:
    """An entry of an optimizer's state, with the device that it came from."""
    return (value.detach().cpu().clone(), value.device) if torch.is_tensor(value) else value


def _back(value: Any) -> Any:
    return value[0].to(value[1], copy=True) if isinstance(value, tuple) and torch.is_tensor(value[0]) else value
