"""Replaces parameters inside a live optimizer: rebind the references, slice the moments, keep the step counters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True, eq=False)
class ParameterEdit:
    """One parameter that is replaced by a part of itself."""

    name: str
    """Dotted path of the parameter in the model."""
    module: nn.Module
    """Module that owns the parameter."""
    attribute: str
    """Name of the parameter in its module."""
    old: nn.Parameter
    """Parameter that leaves."""
    new: nn.Parameter
    """Parameter that takes its place."""
    keep: Mapping[int, Int64[Tensor, " kept"]]
    """Dimension of the old tensor -> sorted indices that stay. Dimensions that are not named stay whole."""
    moment_factor: Optional[Shaped[Tensor, "..."]] = None
    """Factor for the moments of the new parameter, broadcast to its shape; second moments get it squared. None: 1."""
    forget: bool = False
    """Whether the optimizers forget moments and step counter of the parameter."""

    def select(self, tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Takes the kept part of a tensor that has the old parameter's shape."""
        for dim, index in self.keep.items():
            tensor = tensor.index_select(dim, index.to(tensor.device))
        return tensor.clone() if not self.keep else tensor

    def apply(self) -> None:
        """Puts the new parameter, with its part of the gradient, into the module."""
        if self.old.grad is not None:
            self.new.grad = self.select(self.old.grad)
        setattr(self.module, self.attribute, self.new)


@dataclass
class Rebinding:
    """What a set of edits changes in optimizers. Made by `prepare_rebind`, which checks; `apply` only assigns."""

    optimizers: Mapping[str, Optimizer]
    parameter_lists: Mapping[str, list[nn.Parameter]]
    replacements: dict[int, nn.Parameter]
    """id of the old parameter -> new parameter."""
    states: dict[str, dict[nn.Parameter, dict]] = field(default_factory=dict)
    """Optimizer name -> state of each new parameter."""

    def apply(self) -> None:
        """Rebinds `param_groups`, the host's parameter lists and the state of every optimizer."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if id(p) in self.replacements:
                        optimizer.state.pop(p, None)
                group["params"] = [self.replacements.get(id(p), p) for p in group["params"]]
            for parameter, state in self.states[name].items():
                optimizer.state[parameter] = state
        for parameters in self.parameter_lists.values():
            parameters[:] = [self.replacements.get(id(p), p) for p in parameters]


def prepare_rebind(
    optimizers: Mapping[str, Optimizer],
    parameter_lists: Mapping[str, list[nn.Parameter]],
    edits: Sequence[ParameterEdit],
) -> Rebinding:
    """Prepares the replacement of parameters inside optimizers without changing anything yet.

    Every state tensor that has the old parameter's shape (the moments of Adam, AdamW, RAdam, AMSGrad, the momentum
    of SGD) is index-selected like the parameter, and multiplied where the edit says so. Everything else, such as
    step counters, is kept as it is.

    Args:
        optimizers: Live optimizers by name.
        parameter_lists: Other lists that hold the same parameters, by name; edited in place (Nerfstudio clips
            gradients over `Optimizers.parameters`).
        edits: Parameters to replace.

    Returns:
        A change of the optimizers whose `apply` cannot fail half-way.

    Raises:
        ValueError: If a trainable parameter is in none of the optimizers, where it would silently stop learning, or a
            new value is not finite.
    """
    known = {id(p) for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]}
    for edit in edits:
        if edit.old.requires_grad and id(edit.old) not in known:
            raise ValueError(
                f"parameter {edit.name} of shape {tuple(edit.old.shape)} is in none of the optimizers "
                f"{sorted(optimizers)}; it would stop learning after the replacement"
            )
        bad = int((~torch.isfinite(edit.new)).sum())
        if bad:
            raise ValueError(
                f"{edit.name}: {bad} of {edit.new.numel()} values would not be finite after the cut; nothing was "
                "changed"
            )
    rebind = Rebinding(optimizers, parameter_lists, {id(edit.old): edit.new for edit in edits})
    for name, optimizer in optimizers.items():
        rebind.states[name] = {
            edit.new: {key: _select_state(edit, key, value) for key, value in optimizer.state[edit.old].items()}
            for edit in edits
            if edit.old in optimizer.state and not edit.forget
        }
    return rebind


def _select_state(edit: ParameterEdit, key: str, value: object) -> object:
    if not torch.is_tensor(value) or value.shape != edit.old.shape:
        return value
    kept = edit.select(value)
    if edit.moment_factor is None:
        return kept
    factor = edit.moment_factor.to(kept)
    return kept * (factor.square() if key.endswith("_sq") else factor)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that later training steps cannot reach."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def clear_state(optimizers: Mapping[str, Optimizer], parameters: Iterable[nn.Parameter]) -> None:
    """Forgets the moments and step counters of the given parameters."""
    parameters = list(parameters)
    for optimizer in optimizers.values():
        for parameter in parameters:
            optimizer.state.pop(parameter, None)


def check_optimizers(
    optimizers: Mapping[str, Optimizer],
    parameter_lists: Mapping[str, Sequence[nn.Parameter]],
    param_groups: Mapping[str, Sequence[nn.Parameter]],
) -> None:
    """Checks that optimizers hold the model's own tensors, in order, with moments of fitting shape.

    `Optimizer.load_state_dict` accepts moments of any shape and fails only at the next step, so a resumed run
    checks here.

    Args:
        optimizers: Live optimizers by name.
        parameter_lists: The host's second list of the same parameters, by optimizer name.
        param_groups: The model's trainable parameters by optimizer name, the truth.

    Raises:
        ValueError: Names the optimizer, and what was found and expected.
    """
    for name, expected in param_groups.items():
        if name not in optimizers:
            raise ValueError(f"optimizer {name!r} is missing; found {sorted(optimizers)}")
        optimizer = optimizers[name]
        found = [p for group in optimizer.param_groups for p in group["params"]]
        listed = list(parameter_lists.get(name, ()))
        for label, parameters in ((f"optimizer {name!r}", found), (f"list {name!r}", listed)):
            if [id(p) for p in parameters] != [id(p) for p in expected]:
                common = len({id(p) for p in parameters} & {id(p) for p in expected})
                raise ValueError(
                    f"{label} must hold the model's {len(expected)} parameters in their order, got {len(parameters)} "
                    f"parameters of which {common} are the model's"
                )
        for index, parameter in enumerate(found):
            for key, value in optimizer.state.get(parameter, {}).items():
                if torch.is_tensor(value) and value.dim() > 0 and value.shape != parameter.shape:
                    raise ValueError(
                        f"state {key!r} of parameter {index} in optimizer {name!r} has shape {tuple(value.shape)}, "
                        f"expected {tuple(parameter.shape)}"
                    )


def sync_lists(optimizers: Mapping[str, Optimizer], parameter_lists: Mapping[str, list[nn.Parameter]]) -> None:
    """Brings the host's second lists of parameters in line with the optimizers, after something replaced parameters in
    these alone, as gsplat's densification does.

    Args:
        optimizers: Live optimizers by name.
        parameter_lists: Other lists that are to hold the same parameters, by name; edited in place.
    """
    for name, optimizer in optimizers.items():
        parameter_lists[name][:] = [p for group in optimizer.param_groups for p in group["params"]]
