"""What a checkpoint says of optimizers, schedulers and the gradient scaler, checked before the host loads any of it.

The host hands each part to PyTorch, which takes moments of any shape, rates of any kind and attributes of any name, and
fails at the next step.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nerfstudio_prune.core.plain import check_plain, shown
from nerfstudio_prune.core.tensors import check_storage, check_tensor

Shape = tuple[int, ...]
RATES = dict.fromkeys(("lr", "initial_lr", "eps", "weight_decay", "momentum"), 1.0)
"""Option of an optimizer -> its largest value; what the options of a run may be at most."""
SCHEDULED = {"base_lrs": 1.0, "_last_lr": 1.0, "last_epoch": 1e9, "_step_count": 1e9}
"""Entry of a scheduler -> its largest value."""
UNIT = (1, 1)
"""Shape of the parameter that shows what an optimizer keeps of one."""


def saved_shapes(
    optimizers: Mapping[str, Optimizer], model: nn.Module, entries: Mapping[str, Any]
) -> dict[str, list[Optional[Shape]]]:
    """Shapes that the parameters of every optimizer have in a checkpoint.

    Args:
        optimizers: Live optimizers by name.
        model: Module that holds their parameters, the host's pipeline.
        entries: Name of the parameter in it -> tensor of the checkpoint.

    Returns:
        Name of the optimizer -> shapes in its order; None where the checkpoint does not know the parameter.
    """
    # Runs on several devices save every name behind this.
    entries = {name.replace("module.", "", 1): value for name, value in entries.items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {key: entries.get(name.replace("module.", "", 1)) for key, name in names.items()}
    shapes = {key: tuple(value.shape) if isinstance(value, Tensor) else None for key, value in tensors.items()}
    return {
        name: [shapes.get(id(p)) for group in optimizer.param_groups for p in group["params"]]
        for name, optimizer in optimizers.items()
    }


def check_saved_optimizers(
    saved: Any, optimizers: Mapping[str, Optimizer], shapes: Mapping[str, Sequence[Optional[Shape]]]
) -> None:
    """Checks the states of all optimizers.

    Args:
        saved: What the checkpoint says: name -> state of the optimizer.
        optimizers: Live optimizers by name; nothing is changed in them.
        shapes: See `saved_shapes`.

    Raises:
        ValueError: Names the optimizer, what was found and what was expected.
    """
    saved = _named(saved, "optimizers")
    if saved.keys() != optimizers.keys():
        raise ValueError(f"optimizers: the checkpoint has {_listed(saved)}, this run has {_listed(optimizers)}")
    for name, optimizer in optimizers.items():
        where = f"optimizer {name!r}"
        state = _named(saved[name], where)
        groups, states = state.get("param_groups"), state.get("state")
        if not isinstance(groups, list) or not isinstance(states, dict):
            raise ValueError(f"{where}: expected param_groups and state, got {_listed(state)}")
        members = _check_groups(groups, optimizer, where)
        strange = [key for key in states if type(key) is not int or key not in members]
        if strange:
            raise ValueError(f"{where}: has a state of parameter {shown(strange[0])}, which is in no group")
        expected = _kept(optimizer)
        tensors: dict[str, Tensor] = {}
        for shape, member in zip(shapes[name], members, strict=True):
            place = f"parameter {member} in {where}"
            if _named(states.get(member, {}), place):
                tensors.update(_check_state(states[member], expected, shape, place))
        check_storage(tensors, where)


def check_saved_schedulers(saved: Any, schedulers: Mapping[str, Any]) -> None:
    """Checks the states of all schedulers.

    Args:
        saved: What the checkpoint says: name of the optimizer -> state of its scheduler.
        schedulers: Live schedulers by the same names; nothing is changed in them.

    Raises:
        ValueError: Names the scheduler, what was found and what was expected.
    """
    saved = _named(saved, "schedulers")
    unknown = saved.keys() - schedulers.keys()
    if unknown:
        raise ValueError(
            f"schedulers: the checkpoint has one for {_listed(unknown)}, this run has {_listed(schedulers)}; give the "
            "scheduler of that run; --load-scheduler False leaves it out"
        )
    for name, found in saved.items():
        scheduler, where = schedulers[name], f"scheduler {name!r}"
        state, own = _named(found, where), scheduler.state_dict()
        check_plain({key: value for key, value in state.items() if key != "milestones"}, where)
        # What else there is would be set as an attribute of the scheduler: of a method of it, say.
        strange = [key for key in state if key not in own and hasattr(scheduler, key)]
        missing = [key for key, value in own.items() if key not in state and not isinstance(value, (bool, type(None)))]
        if strange or missing:
            raise ValueError(f"{where}: {'has an unknown' if strange else 'lacks the'} entry {[*strange, *missing][0]}")
        for key in own.keys() & state.keys():
            value = state[key]
            if key == "lr_lambdas" and isinstance(value, list) and len(value) == len(own[key]):
                # PyTorch saves plain functions as None, and keeps those that are there.
                value = [mine if saved is None else saved for saved, mine in zip(value, own[key], strict=True)]
            _check_like(value, own[key], f"{where}, {key}", whole=True)
            if key in SCHEDULED:
                _check_range(value, SCHEDULED[key], f"{where}, {key}")


def check_saved_scaler(saved: Any, scaler: Any) -> None:
    """Checks the state of the gradient scaler.

    Args:
        saved: What the checkpoint says.
        scaler: The live scaler; nothing is changed in it.

    Raises:
        ValueError: Names the value, what was found and what was expected.
    """
    saved, own = _named(saved, "scalers"), scaler.state_dict()
    check_plain(saved, "scalers")
    if own.keys() - saved.keys():
        raise ValueError(f"scalers: lacks {_listed(own.keys() - saved.keys())}; the run was of another precision")
    for key, value in own.items():
        _check_like(saved[key], value, f"scalers, {key}")
        if saved[key] < 0:
            raise ValueError(f"scalers, {key} must be at least 0, got {saved[key]}")


def _named(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: expected values by name, got {type(value).__name__}")
    return value


def _listed(names: Any) -> str:
    return ", ".join(f"{name:.40}" for name in sorted(names)) or "none"


def _check_groups(groups: Sequence[Any], optimizer: Optimizer, where: str) -> list[int]:
    """Checks the options of the groups of parameters, and gives the parameters' numbers in order."""
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    members: list[int] = []
    for i, group in enumerate(groups):
        place = f"{where}, group {i}"
        check_plain(group, place, tensors=True)
        numbers = _named(group, place).get("params")
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise ValueError(f"{place}: expected a list of numbers of parameters")
        members += numbers
        own = optimizer.param_groups[i] if i < len(sizes) else {}
        for key, value in own.items():
            if key in group and key != "params":
                _check_like(group[key], value, f"{place}, {key}")
            elif not isinstance(value, (bool, type(None))) and key not in ("params", "initial_lr"):
                raise ValueError(f"{place}: {key} is missing")
        for key in RATES.keys() & group.keys():
            _check_like(group[key], own.get(key, 0.0), f"{place}, {key}")
            _check_range(group[key], RATES[key], f"{place}, {key}")
        if "betas" in own and not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"{place}: betas must be in [0, 1), got {group['betas']}")
    if [len(group["params"]) for group in groups] != sizes or len(set(members)) != len(members):
        raise ValueError(f"{where}: expected {sum(sizes)} parameters in {len(sizes)} groups, got {len(members)}")
    return members


def _kept(optimizer: Optimizer) -> dict[str, Any]:
    """What an optimizer keeps of a parameter, shown by a step on a single number."""
    parameter = nn.Parameter(torch.zeros(UNIT))
    parameter.grad = torch.zeros(UNIT)
    probe = copy.copy(optimizer)
    probe.state = defaultdict(dict)
    probe.param_groups = [{**optimizer.param_groups[0], "params": [parameter]}]
    type(probe).step(probe)
    return dict(probe.state[parameter])


def _check_state(state: Any, expected: Mapping[str, Any], shape: Optional[Shape], where: str) -> dict[str, Tensor]:
    """Checks what is kept of one parameter, and gives the tensors in it."""
    state = _named(state, where)
    if state.keys() != expected.keys():
        raise ValueError(f"{where}: expected {_listed(expected)}, got {_listed(state)}")
    tensors: dict[str, Tensor] = {}
    for key, own in expected.items():
        value, place = state[key], f"state {key!r} of {where}"
        if not isinstance(own, Tensor):
            _check_like(value, own, place)
            continue
        if own.dim() == 0 and type(value) in (int, float):
            check_plain(value, place)
            value = torch.tensor(float(value))  # as earlier versions of PyTorch kept it
        check_tensor(value, place)
        wanted = shape if own.shape == UNIT else tuple(own.shape)
        if wanted is not None and tuple(value.shape) != wanted:
            raise ValueError(f"{place} has shape {tuple(value.shape)}, expected {wanted}")
        if (own.dim() == 0 or key.endswith("_sq")) and bool((value < 0).any()):
            raise ValueError(f"{place} must be at least 0")
        tensors[key] = value
    return {f"{where}.{key}": value for key, value in tensors.items()}


def _check_range(value: Any, most: float, where: str) -> None:
    """Checks a number, or all of a list, that is known to be finite."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if not 0 <= number <= most:
            raise ValueError(f"{where} must be in [0, {most:g}], got {shown(number)}")


def _check_like(value: Any, own: Any, where: str, whole: bool = False) -> None:
    """Checks that a value is of the kind of the one whose place it takes.

    Args:
        value: What was found.
        own: What is there now. A switch has to stand as it does: no run changes one.
        where: What it is called in an error.
        whole: Whether a whole number has to stay one; options may be given as 0 and be 0.1.
    """
    if own is None:
        fits = value is None
    elif isinstance(own, bool):
        fits = isinstance(value, (bool, type(None))) and bool(value) == own
    elif isinstance(own, (int, float)):
        kinds = int if whole and isinstance(own, int) else (int, float)
        fits = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    elif isinstance(own, (list, tuple)):
        fits = isinstance(value, (list, tuple)) and len(value) == len(own)
        for i, (part, own_part) in enumerate(zip(value, own, strict=True) if fits else ()):
            _check_like(part, own_part, f"{where}[{i}]")
    else:
        fits = isinstance(value, type(own))
    if not fits:
        raise ValueError(f"{where}: expected a value like {shown(own)}, got {shown(value)}")
