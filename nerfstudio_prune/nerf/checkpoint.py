"""Fits a network to the widths of a checkpoint: check everything, then resize with the parameters' identity kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.core.tensors import FLOATS, check_storage, check_tensor, different_keys
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.neurons.groups import NeuronGroup, expected_shapes
from nerfstudio_prune.occupancy import grids_from_dict, grids_to_dict

EXTRA_STATE = "_extra_state"
OCCUPANCY = "occupancy"
"""Name of the grids for training in it."""
ENCODING = "position_max_freq_exp"
"""Name of the highest frequency of the encoding in it, where that is not the host's."""
MAX_FREQ_EXP = 8.0
"""The host's."""
IGNORED_PREFIX = "lpips."
"""Stock checkpoints carry the metric network; it is not part of the model."""


def fit_to_checkpoint(
    model: nn.Module, groups: Sequence[NeuronGroup], state_dict: Mapping[str, Any], finite: bool = True
) -> dict[str, Any]:
    """Resizes the model's parameters to those of a checkpoint.

    Parameters keep their identity (only `.data` changes), so that optimizers built before still hold them. That is
    safe at load time because no autograd graph lives yet.

    Args:
        model: Model of the right number of layers, of any widths.
        groups: All its groups of neurons.
        state_dict: See `checked_state`.
        finite: See `checked_state`.

    Returns:
        What `checked_state` gives.

    Raises:
        ValueError: If the checkpoint does not fit. The model is then as it was.
    """
    state = checked_state(model, groups, state_dict, finite)
    resized = {
        parameter: parameter.data.new_empty(state[key].shape)
        for key, parameter in model.named_parameters()
        if parameter.shape != state[key].shape
    }
    for parameter, value in resized.items():
        parameter.data = value
        parameter.grad = None
    return state


def checked_state(
    model: nn.Module, groups: Sequence[NeuronGroup], state_dict: Mapping[str, Any], finite: bool = True
) -> dict[str, Any]:
    """What a model is to be loaded from; changes nothing.

    Args:
        model: Model of the right number of layers, of any widths.
        groups: All its groups of neurons.
        state_dict: Entries of the checkpoint, without the pipeline's prefix.
        finite: Whether weights must be finite; a network that is only looked at may have others.

    Returns:
        Exactly the entries that the model expects. A missing pruning state (stock `vanilla-nerf`) becomes an empty
        one, so that the checkpoint's widths are the initial ones.

    Raises:
        ValueError: If keys are missing or unknown, an entry is no plain tensor, the shapes do not form a network, or
            the pruning state does not fit.
    """
    own = dict(model.state_dict())
    own_extra = own.pop(EXTRA_STATE, None)
    state = {key: value for key, value in state_dict.items() if not str(key).startswith(IGNORED_PREFIX)}
    extra = state.pop(EXTRA_STATE, None)
    missing, unknown = sorted(own.keys() - state.keys()), sorted(map(str, state.keys() - own.keys()))
    if missing or unknown:
        raise ValueError(
            f"the checkpoint is not one of this network: {different_keys(missing, unknown)}. It must come "
            "from nerf-prune or vanilla-nerf with the same numbers of layers "
            f"(model.base_mlp_num_layers, model.head_mlp_num_layers){_missing_option(missing, unknown)}"
        )
    shapes = _network_shapes(groups, state)
    for key, value in own.items():
        expected = shapes.get(key, tuple(value.shape))
        found = tuple(state[key].shape) if torch.is_tensor(state[key]) else type(state[key]).__name__
        if found != expected:
            raise ValueError(
                f"the shapes in the checkpoint do not form a network: {key} has shape {found}, expected {expected}"
            )
        check_tensor(state[key], key, FLOATS if value.is_floating_point() else (value.dtype,), finite)
    check_storage(state, "the checkpoint's network")
    _check_encoding(extra, own_extra)
    prune_state = PruneState.from_dict(pruning_entries(extra)) if extra is not None else PruneState()
    _check_prune_state(prune_state, groups, shapes)
    known = prune_state.to_dict()
    if extra is not None and OCCUPANCY in extra:
        known[OCCUPANCY] = grids_to_dict(grids_from_dict(extra[OCCUPANCY]))
    if extra is not None and ENCODING in extra:
        known[ENCODING] = extra[ENCODING]
    return {**state, EXTRA_STATE: known}


def pruning_entries(extra: Any) -> Any:
    """What of a model's extra state is the state of pruning.

    Args:
        extra: The extra state, or what a damaged checkpoint has in its place.
    """
    if not isinstance(extra, Mapping):
        return extra
    return {name: value for name, value in extra.items() if name not in (OCCUPANCY, ENCODING)}


def _check_encoding(extra: Any, own: Any) -> None:
    """Checks that a network was trained with the encoding that it is to be evaluated with: no shape tells.

    Args:
        extra: Extra state of the checkpoint.
        own: That of the model.

    Raises:
        ValueError: If it was another one.
    """
    found, expected = (
        entries.get(ENCODING, MAX_FREQ_EXP) if isinstance(entries, Mapping) else MAX_FREQ_EXP
        for entries in (extra, own)
    )
    if found != expected:
        raise ValueError(
            f"the checkpoint's network was trained with model.{ENCODING} {shown(found)}, this run has {expected:g}; "
            "give that one"
        )


def _check_prune_state(state: PruneState, groups: Sequence[NeuronGroup], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that a pruning state is one of the network beside it.

    Args:
        state: The state of a checkpoint.
        groups: All groups of the model.
        shapes: Name of the parameter -> shape in the checkpoint.

    Raises:
        ValueError: Names what does not fit.
    """
    names = {group.name for group in groups}
    if state.initial_sizes and state.initial_sizes.keys() != names:
        raise ValueError(
            f"the checkpoint's pruning state names {len(state.initial_sizes)} groups of neurons, among them "
            f"{min(state.initial_sizes)}; expected the network's {len(groups)}"
        )
    for name, size in state.initial_sizes.items():
        width = shapes[f"{name}.weight"][0]
        if not width <= size:
            raise ValueError(
                f"the checkpoint's pruning state says that {name} had {size} neurons at first, and it has {width}"
            )
    for event in state.plan:
        for name, size in event.targets.items():
            largest = state.initial_sizes.get(name, 0)
            if not 1 <= size <= largest:
                raise ValueError(
                    f"the checkpoint's plan leaves {size} neurons of {name} at step {event.step}; expected at least 1 "
                    f"and at most the first {largest}"
                )
    for label, tensors in (("mask", state.masks), ("rewind snapshot", state.rewind_snapshot)):
        for key, tensor in tensors.items():
            if key not in shapes or tuple(tensor.shape) != shapes[key]:
                raise ValueError(
                    f"the checkpoint's {label} of {key} has shape {tuple(tensor.shape)}, expected {shapes.get(key)}"
                )
    absent = shapes.keys() - state.rewind_snapshot.keys()
    if state.rewind_snapshot and absent:
        raise ValueError(f"the checkpoint's rewind snapshot lacks {len(absent)} parameters, among them {min(absent)}")
    _check_options(state)


def _check_options(state: PruneState) -> None:
    """Checks the types of all options: those in force, those that were given and those of events.

    Ranges, and whether they contradict each other, count only where they are taken up: a network can be evaluated
    whatever its plan was.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    try:
        for options in (state.options, state.given or {}, *(event.options for event in state.history)):
            PruneConfig.from_plain(options)
    except ValueError as error:
        raise ValueError(f"the checkpoint's pruning options: {error}") from error


def _missing_option(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """The option that a checkpoint with a network of its own asks for, or one without that network."""
    for keys, value in ((unknown, True), (missing, False)):
        if any(key.startswith("temporal_distortion.") for key in keys):
            return f", and here with --pipeline.model.enable-temporal-distortion {value}"
    return ""


def _network_shapes(groups: Sequence[NeuronGroup], state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes that every layer must have, given the rows of the producers in the checkpoint."""
    widths = {}
    for group in groups:
        weight = state[f"{group.name}.weight"]
        if not torch.is_tensor(weight) or weight.dim() != 2 or weight.shape[0] < 1:
            found = tuple(weight.shape) if torch.is_tensor(weight) else type(weight).__name__
            raise ValueError(
                f"the shapes in the checkpoint do not form a network: {group.name}.weight is {found}, expected a matrix"
            )
        widths[group.name] = weight.shape[0]
    return expected_shapes(groups, widths)
