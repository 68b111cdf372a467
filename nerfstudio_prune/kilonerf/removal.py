"""Networks that leave or become narrower, in parameters and optimizers alike: edits, as in the pruning of neurons."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import nn
from torch.optim import Optimizer

from nerfstudio_prune.core.optimizer_state import ParameterEdit, prepare_rebind
from nerfstudio_prune.core.subject import BufferEdit, PreparedEdits
from nerfstudio_prune.kilonerf.classes import NetworkClasses


@torch.no_grad()
def prepare_removal(
    networks: NetworkClasses,
    stays: Bool[torch.Tensor, " networks"],
    optimizers: Mapping[str, Optimizer],
    parameter_lists: Mapping[str, list[nn.Parameter]],
    path: str = "networks",
) -> PreparedEdits:
    """Prepares and checks the removal of networks without changing anything.

    Args:
        networks: All networks.
        stays: Whether each stays. For a tightening: true at `LiveCells.kept_of`.
        optimizers: Live optimizers by name.
        parameter_lists: The host's second list of the same parameters, by optimizer name; edited in place.
        path: Dotted path of the networks in the model, for the edits' names.

    Returns:
        Edits of the stacks that become smaller; weights, gradients and moments of those that stay are as they were.
        None where all stay.

    Raises:
        ValueError: If none would be left, or an optimizer does not know a parameter.
    """
    if not bool(stays.any()):
        raise ValueError(f"none of the {len(stays)} networks would be left; nothing was removed")
    rows, position = networks.kept(stays)
    edits = []
    for index, (stack, kept) in enumerate(zip(networks, rows, strict=True)):
        if len(kept) == stack.num_networks:
            continue
        for name, old in stack.named_parameters():
            new = nn.Parameter(old.detach().index_select(0, kept), requires_grad=old.requires_grad)
            edits.append(ParameterEdit(f"{path}.stacks.{index}.{name}", stack, name, old, new, {0: kept}))
    rebind = prepare_rebind(optimizers, parameter_lists, edits)
    buffers = [BufferEdit(networks._buffers, "position", position)] if edits else []
    return PreparedEdits(edits, rebind, buffers)


@torch.no_grad()
def prepare_replacement(
    networks: NetworkClasses,
    others: NetworkClasses,
    optimizers: Mapping[str, Optimizer],
    parameter_lists: Mapping[str, list[nn.Parameter]],
    path: str = "networks",
) -> PreparedEdits:
    """Prepares and checks that networks become others, of the same classes, without changing anything.

    Optimizers forget what they know of them. Gradients have to be gone when the edits are applied.

    Args:
        networks: The networks.
        others: What they become; `narrowed` made them, say.
        optimizers: Live optimizers by name.
        parameter_lists: The host's second list of the same parameters, by optimizer name; edited in place.
        path: Dotted path of the networks in the model, for the edits' names.

    Raises:
        ValueError: If the classes differ, or an optimizer does not know a parameter.
    """
    if networks.shapes != others.shapes:
        raise ValueError(f"networks must have the same classes, {networks.shapes}, got {others.shapes}")
    edits = []
    for index, (stack, other) in enumerate(zip(networks, others, strict=True)):
        for name, old in stack.named_parameters():
            new = nn.Parameter(other.get_parameter(name).detach().clone(), requires_grad=old.requires_grad)
            edits.append(ParameterEdit(f"{path}.stacks.{index}.{name}", stack, name, old, new, {}, forget=True))
    rebind = prepare_rebind(optimizers, parameter_lists, edits)
    return PreparedEdits(edits, rebind, [BufferEdit(networks._buffers, "position", others.position.clone())])
