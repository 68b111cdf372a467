"""Fits a model to the networks and cells of a checkpoint: check everything, then resize with identity kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, get_args

import torch
from torch import Tensor

from nerfstudio_prune.core.plain import check_plain, shown
from nerfstudio_prune.core.tensors import FLOATS, check_storage, check_tensor, different_keys
from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilo.spaces import SPACES
from nerfstudio_prune.kilo.state import VERSION, Background, KiloState
from nerfstudio_prune.kilo.stored_cells import TYPES, cells_of_buffers
from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.encoding import encoded_width
from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape
from nerfstudio_prune.kilonerf.spaces import SpaceName

EXTRA_STATE = "_extra_state"
STACK, CELLS, POSITION = "networks.stacks.{}.", "cells.", "networks.position"
ERRORS = ("errors.sums", "errors.weights")
"""What is known of the error of each network; a checkpoint before version 3 knows nothing of it."""
MAX_WIDTH, MAX_FREQUENCIES = 4096, 32


@dataclass(frozen=True)
class Stack:
    """Networks of one width."""

    shape: NetworkShape
    """Sizes of each."""
    weights: Mapping[str, Tensor]
    """Name of a parameter -> its values, a row for each network."""


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds, checked."""

    stacks: Sequence[Stack]
    """The networks of each width, ascending."""
    position: Tensor
    """Where each network stands in the row of all stacks."""
    cells: Mapping[str, Tensor]
    """Buffers of the cells."""
    errors: tuple[Tensor, Tensor]
    """Sums and weights of the errors of networks."""
    state: KiloState
    """All else."""


def checked_state(own: NetworkClasses, keys: Mapping[str, Any], entries: Mapping[str, Any]) -> Loaded:
    """What a model is to be loaded from; changes nothing.

    Args:
        own: The model's networks, of the right number of layers and classes, any number and any sizes.
        keys: Entries that the model itself would save.
        entries: Entries of the checkpoint, without the pipeline's prefix.

    Raises:
        ValueError: If keys are missing or unknown, an entry is no plain tensor, or the parts do not fit together.
    """
    expected = keys.keys() if entries.keys() & set(ERRORS) else keys.keys() - set(ERRORS)
    missing, unknown = sorted(expected - entries.keys()), sorted(map(str, entries.keys() - keys.keys()))
    if missing or unknown:
        raise ValueError(
            f"the checkpoint is not one of this model: {different_keys(missing, unknown)}. It must come from kilonerf "
            "with as many layers and widths; give --pipeline.grid.num-layers and --pipeline.grid.narrow-to as in its "
            "run"
        )
    tensors = {name: value for name, value in entries.items() if name != EXTRA_STATE}
    for name, value in tensors.items():
        kind = TYPES.get(name.removeprefix(CELLS)) if name.startswith(CELLS) else None
        kinds = FLOATS if kind is None else (kind,)
        check_tensor(value, name, (torch.int32,) if name == POSITION else kinds)
    check_storage({name: value for name, value in tensors.items() if value.numel()}, "the checkpoint's networks")
    stacks = [_stack_of(tensors, STACK.format(index), shape.num_layers) for index, shape in enumerate(own.shapes)]
    widths = [stack.shape.hidden_width for stack in stacks]
    if widths != sorted(set(widths)) or len({stack.shape.with_width(1) for stack in stacks}) > 1:
        shapes = "; ".join(str(stack.shape) for stack in stacks)
        raise ValueError(
            f"the networks in the checkpoint must differ in ascending widths and in nothing else: {shapes}"
        )
    count = sum(len(stack.weights["w1"]) for stack in stacks)
    position = tensors[POSITION]
    if position.shape != (count,) or not torch.equal(position.sort().values, torch.arange(count, dtype=torch.int32)):
        raise ValueError(f"{POSITION} must be an order of the {count} networks, got {shown(position.tolist()[:8])}")
    cells = {name.removeprefix(CELLS): value for name, value in tensors.items() if name.startswith(CELLS)}
    state = state_from_plain(entries[EXTRA_STATE])
    live, _ = cells_of_buffers(cells, SPACES[state.space].spacing)
    if live.count != count:
        raise ValueError(f"the checkpoint has {count} networks, and {live.count} cells with something in them")
    return Loaded(stacks, position, cells, _errors_of(tensors, count), state)


def _errors_of(tensors: Mapping[str, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """What is known of the errors of networks; zeros, which is nothing, where there are no such entries."""
    sums, weights = (tensors.get(name, torch.zeros(count)) for name in ERRORS)
    for name, value in zip(ERRORS, (sums, weights), strict=True):
        if value.shape != (count,) or bool((value < 0).any()):
            raise ValueError(f"{name} must be a number >= 0 for each of the {count} networks")
    return sums, weights


def _stack_of(tensors: Mapping[str, Tensor], prefix: str, num_layers: int) -> Stack:
    """Networks of one width, checked against each other."""
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    shape, count = _shape_of(weights, prefix, num_layers), len(weights["w1"])
    for name, parameter in TinyNetworks(0, shape, torch.Generator()).named_parameters():
        found, expected = tuple(weights[name].shape), (count, *parameter.shape[1:])
        if found != expected:
            raise ValueError(
                f"the shapes in the checkpoint do not form networks: {prefix}{name} has shape {found}, "
                f"expected {expected}"
            )
    return Stack(shape, weights)


def _shape_of(weights: Mapping[str, Tensor], prefix: str, num_layers: int) -> NetworkShape:
    """Sizes of networks, read off their tensors."""
    found: dict[str, tuple[int, int]] = {}
    for name in ("w1", "w_direction"):
        value = weights[name]
        inputs, width = value.shape[1:] if value.dim() == 3 else (0, 0)
        frequencies = (inputs - encoded_width(0)) // 6
        fits = (
            inputs == encoded_width(max(frequencies, 0)) and frequencies <= MAX_FREQUENCIES and 1 <= width <= MAX_WIDTH
        )
        if not fits:
            raise ValueError(
                f"the shapes in the checkpoint do not form networks: {prefix}{name} has shape {tuple(value.shape)}, "
                "expected networks, 3 + 6 x frequencies, and neurons"
            )
        found[name] = (frequencies, width)
    return NetworkShape(found["w1"][1], num_layers, found["w1"][0], found["w_direction"][0])


def state_from_plain(extra: Any) -> KiloState:
    """The state that `KiloState.plain` gave.

    Args:
        extra: Extra state of a model; anything, for it may come from a stranger.

    Raises:
        ValueError: Names what was found and what was expected.
    """
    where = "the checkpoint's state of KiloNeRF"
    if not isinstance(extra, Mapping):
        raise ValueError(f"{where} must be values by name, got {type(extra).__name__}")
    check_plain(extra, where)
    version: Any = extra.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"{where} has version {shown(version)}, expected at most {VERSION}; a later version wrote it")
    found: Any = [extra.get(name) for name in ("background", "teacher", "seed")]
    background, digest, seed = found
    if background not in get_args(Background):
        raise ValueError(
            f"{where}: background must be one of {', '.join(get_args(Background))}, got {shown(background)}"
        )
    if not isinstance(digest, str) or type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"{where}: expected a teacher's digest and a seed, got {shown(digest)} and {shown(seed)}")
    space: Any = extra.get("space", "bounded")  # version 1 knew no other
    if space not in get_args(SpaceName):
        raise ValueError(f"{where}: space must be one of {', '.join(get_args(SpaceName))}, got {shown(space)}")
    options: Optional[KiloOptions] = KiloOptions.from_plain(extra.get("options"))
    return KiloState(options, background, digest, seed, space)
