"""From selections to smaller linear layers. Knows nothing of optimizers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from nerfstudio_prune.core.optimizer_state import ParameterEdit
from nerfstudio_prune.neurons.groups import NeuronGroup, linears
from nerfstudio_prune.neurons.strategies import Selection

MomentsMode = Literal["keep", "rescale", "reset"]


def prepare_compaction(
    groups: Sequence[NeuronGroup], selections: Mapping[str, Selection], moments: MomentsMode = "keep"
) -> list[ParameterEdit]:
    """Builds the smaller parameters without touching the network.

    A layer that loses rows (its own neurons) and columns (its input's neurons) gets one combined edit.

    Args:
        groups: All groups of the network.
        selections: Name of the group -> neurons that stay. Groups that are not named, or keep all, stay whole.
        moments: What the optimizers remember of refitted layers: `keep` it, `rescale` it with the norm of each column,
            or `reset` it with the step counter.

    Returns:
        One edit per parameter that changes, in forward order; dtype, device and `requires_grad` are kept.
    """
    edits = []
    for name, linear in linears(groups).items():
        out_features, in_features = linear.weight.shape
        rows = torch.arange(out_features)
        columns = torch.ones(in_features, dtype=torch.bool)
        scale = torch.ones(in_features, dtype=torch.float64)
        weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        refitted = False
        for group in groups:
            selection = selections.get(group.name)
            if selection is None:
                continue
            if group.name == name:
                rows = selection.keep
            for consumer in group.consumers:
                if consumer.name == name:
                    if name in selection.refit:
                        weight, bias = selection.refit[name]
                        refitted = True
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
        if keep or refitted or bool((scale != 1).any()):
            edits.append(_edit(name, linear, "weight", weight, keep, scale[columns]))
        if bias is not None and (refitted or 0 in keep):
            edits.append(_edit(name, linear, "bias", bias, {0: rows} if 0 in keep else {}, None))
        if refitted and moments != "keep":
            own = edits[-2:] if bias is not None else edits[-1:]
            edits[-len(own) :] = [_with_moments(edit, moments) for edit in own]
    return edits


def _with_moments(edit: ParameterEdit, moments: MomentsMode) -> ParameterEdit:
    if moments == "reset":
        return replace(edit, forget=True)
    if edit.attribute != "weight":
        return edit
    before = edit.select(edit.old.detach()).norm(dim=0)
    factor = edit.new.detach().norm(dim=0) / before.clamp_min(torch.finfo(before.dtype).tiny)
    # A column that was zero before has no norm to compare with.
    return replace(edit, moment_factor=torch.where(before > 0, factor, 1.0))


def _edit(
    name: str, linear: nn.Linear, attribute: str, new: Tensor, keep: Mapping[int, Tensor], scale: Tensor | None
) -> ParameterEdit:
    old = getattr(linear, attribute)
    for dim, index in keep.items():
        new = new.index_select(dim, index.to(new.device))
    if scale is not None and bool((scale != 1).any()):
        new = (new * scale.to(new.device, torch.float32 if new.device.type == "mps" else scale.dtype)).to(old.dtype)
    parameter = nn.Parameter(new.to(old, copy=True), requires_grad=old.requires_grad)
    return ParameterEdit(f"{name}.{attribute}", linear, attribute, old, parameter, keep)


def apply_compaction(edits: Sequence[ParameterEdit]) -> None:
    """Puts the smaller parameters, with their part of the gradients, into the layers."""
    for edit in edits:
        edit.apply()
        if isinstance(edit.module, nn.Linear):
            edit.module.out_features, edit.module.in_features = edit.module.weight.shape
