"""From selections to smaller linear layers. Knows nothing of optimizers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nerfstudio_prune.core.optimizer_state import ParameterEdit
from nerfstudio_prune.neurons.groups import NeuronGroup, linears
from nerfstudio_prune.neurons.strategies import Selection


def plan_compaction(groups: Sequence[NeuronGroup], selections: Mapping[str, Selection]) -> list[ParameterEdit]:
    """Builds the smaller parameters without touching the network.

    A layer that loses rows (its own neurons) and columns (its input's neurons) gets one combined edit.

    Args:
        groups: All groups of the network.
        selections: Name of the group -> neurons that stay. Groups that are not named, or keep all, stay whole.

    Returns:
        One edit per parameter that changes, in forward order; dtype, device and `requires_grad` are kept.
    """
    edits = []
    for name, linear in linears(groups).items():
        out_features, in_features = linear.weight.shape
        rows = torch.arange(out_features)
        columns = torch.ones(in_features, dtype=torch.bool)
        scale = torch.ones(in_features, dtype=torch.float64)
        for group in groups:
            selection = selections.get(group.name)
            if selection is None:
                continue
            if group.name == name:
                rows = selection.keep
            for consumer in group.consumers:
                if consumer.name == name:
                    kept = torch.zeros(group.width, dtype=torch.bool)
                    kept[selection.keep] = True
                    span = slice(consumer.column_offset, consumer.column_offset + group.width)
                    columns[span] = kept
                    if selection.scale is not None:
                        scale[consumer.column_offset + selection.keep] = selection.scale
        keep: dict[int, Tensor] = {}
        if len(rows) < out_features:
            keep[0] = rows
        if not bool(columns.all()):
            keep[1] = columns.nonzero()[:, 0]
        if keep or bool((scale != 1).any()):
            edits.append(_edit(name, linear, "weight", keep, scale[columns]))
        if linear.bias is not None and 0 in keep:
            edits.append(_edit(name, linear, "bias", {0: keep[0]}, None))
    return edits


def _edit(
    name: str, linear: nn.Linear, attribute: str, keep: Mapping[int, Tensor], scale: Tensor | None
) -> ParameterEdit:
    old = getattr(linear, attribute)
    new = old.detach()
    for dim, index in keep.items():
        new = new.index_select(dim, index.to(new.device))
    if scale is not None and bool((scale != 1).any()):
        new = (new * scale.to(new.device, torch.float32 if new.device.type == "mps" else scale.dtype)).to(old.dtype)
    parameter = nn.Parameter(new.clone(), requires_grad=old.requires_grad)
    return ParameterEdit(f"{name}.{attribute}", linear, attribute, old, parameter, keep)


def apply_compaction(edits: Sequence[ParameterEdit]) -> None:
    """Puts the smaller parameters, with their part of the gradients, into the layers."""
    for edit in edits:
        edit.apply()
        if isinstance(edit.module, nn.Linear):
            edit.module.out_features, edit.module.in_features = edit.module.weight.shape
