"""Fits a model to the Gaussians of a checkpoint: check everything, then resize with the parameters' identity kept."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.tensors import FLOATS, check_storage, check_tensor, different_keys
from nerfstudio_prune.raster.gaussians import MAX_SH_DEGREE, Gaussians
from nerfstudio_prune.splats.config import SplatPruneConfig

EXTRA_STATE = "_extra_state"
IGNORED_PREFIX = "lpips."
"""Stock checkpoints carry the metric network; it is not part of the model."""
NAMES = tuple(f.name for f in fields(Gaussians))
PREFIX = "gauss_params."
PARTS = ("gaussians", "sh_degree")
"""What the pruning state has sizes of."""


def fit_to_checkpoint(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Resizes the model's Gaussians to those of a checkpoint.

    Parameters keep their identity (only `.data` changes), so that optimizers built before still hold them. That is
    safe at load time because no autograd graph lives yet.

    Args:
        model: The model.
        state_dict: See `checked_state`.

    Returns:
        What `checked_state` gives.

    Raises:
        ValueError: If the checkpoint does not fit. The model is then as it was.
    """
    state = checked_state(model, state_dict)
    for key, parameter in model.named_parameters():
        if parameter.shape != state[key].shape:
            parameter.data = parameter.data.new_empty(state[key].shape)
            parameter.grad = None
    return state


def checked_state(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is to be loaded from; changes nothing.

    Args:
        model: The model.
        state_dict: Entries of the checkpoint, without the pipeline's prefix; also as early versions of splatfacto
            named them.

    Returns:
        Exactly the entries that the model expects. A missing pruning state (stock `splatfacto`) becomes an empty one,
        so that the checkpoint's Gaussians are the first ones.

    Raises:
        ValueError: If keys are missing or unknown, an entry is no plain tensor or not finite, the six tensors are not
            of one set of Gaussians, or the pruning state does not fit.
    """
    own = {key: value for key, value in model.state_dict().items() if key != EXTRA_STATE}
    state = _by_present_names(state_dict)
    extra = state.pop(EXTRA_STATE, None)
    missing, unknown = sorted(own.keys() - state.keys()), sorted(map(str, state.keys() - own.keys()))
    if missing or unknown:
        raise ValueError(
            f"the checkpoint is not one of this model: {different_keys(missing, unknown)}. It must come "
            "from splat-prune or splatfacto with the same model.camera-optimizer.mode and model.use-bilateral-grid"
        )
    for key, value in own.items():
        check_tensor(state[key], key, FLOATS if value.is_floating_point() else (value.dtype,))
    count, degree = check_shapes({name: state[f"{PREFIX}{name}"] for name in NAMES}, PREFIX)
    for key, value in own.items():
        if not key.startswith(PREFIX) and state[key].shape != value.shape:
            raise ValueError(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}")
    check_storage(state, "the checkpoint's model")
    prune_state = _pruning(extra, count, degree)
    _check_colors(prune_state.initial_sizes.get("sh_degree", degree), model)
    return {**state, EXTRA_STATE: prune_state.to_dict()}


def looked_at(state_dict: Mapping[str, Any]) -> tuple[Gaussians, PruneState]:
    """Gaussians and pruning state of a checkpoint, for a person to look at: values need not be finite, and what else
    the model consists of is passed over.

    Args:
        state_dict: See `checked_state`.

    Raises:
        ValueError: If a parameter is missing or no plain tensor, the six are not of one set of Gaussians, or the
            pruning state does not fit.
    """
    state = _by_present_names(state_dict)
    missing = [f"{PREFIX}{name}" for name in NAMES if f"{PREFIX}{name}" not in state]
    if missing:
        raise ValueError(f"the checkpoint is not one of Gaussians: {different_keys(missing, [])}")
    tensors = {name: state[f"{PREFIX}{name}"] for name in NAMES}
    for name, value in tensors.items():
        check_tensor(value, f"{PREFIX}{name}", finite=False)
    count, degree = check_shapes(tensors, PREFIX)
    check_storage(tensors, "the checkpoint's Gaussians")
    gaussians = Gaussians.of({name: value.float() for name, value in tensors.items()})
    return gaussians, _pruning(state.get(EXTRA_STATE), count, degree)


def _by_present_names(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{PREFIX}{key}" if key in NAMES else key: value
        for key, value in state_dict.items()
        if not str(key).startswith(IGNORED_PREFIX)
    }


def _pruning(extra: Any, count: int, degree: int) -> PruneState:
    """The pruning state beside Gaussians; an empty one where there is none."""
    state = PruneState.from_dict(extra) if extra is not None else PruneState()
    _check_prune_state(state, count, degree)
    return state


def check_shapes(tensors: Mapping[str, torch.Tensor], prefix: str = "") -> tuple[int, int]:
    """Checks that six tensors are of one set of Gaussians.

    Args:
        tensors: Name -> tensor.
        prefix: What stands before a name in messages.

    Returns:
        How many Gaussians, and the degree of their spherical harmonics.

    Raises:
        ValueError: Names the tensor, its shape and what was expected.
    """
    means, rest = tensors["means"], tensors["features_rest"]
    count = len(means) if means.dim() else 0
    coefficients = [(degree + 1) ** 2 - 1 for degree in range(MAX_SH_DEGREE + 1)]
    if count < 1:
        raise ValueError(f"{prefix}means has shape {tuple(means.shape)}, expected (at least 1, 3)")
    if rest.dim() != 3 or rest.shape[1] not in coefficients:
        expected = f"({count}, one of {', '.join(map(str, coefficients))}, 3)"
        raise ValueError(f"{prefix}features_rest has shape {tuple(rest.shape)}, expected {expected}")
    widths = {"means": (3,), "scales": (3,), "quats": (4,), "features_dc": (3,), "opacities": (1,)}
    for name, shape in {**widths, "features_rest": (rest.shape[1], 3)}.items():
        if tuple(tensors[name].shape) != (count, *shape):
            raise ValueError(
                f"{prefix}{name} has shape {tuple(tensors[name].shape)}, expected {(count, *shape)}: all tensors must "
                f"be of the same {count} Gaussians"
            )
    return count, coefficients.index(rest.shape[1])


def _check_colors(first: int, model: Any) -> None:
    """Checks that colours mean the same: in the host `features_dc` are logits where there are no spherical harmonics
    from the start, else coefficients.

    Raises:
        ValueError: If they do not.
    """
    own = model.config.sh_degree
    if (own == 0) != (first == 0):
        raise ValueError(
            f"the checkpoint's colours are of spherical harmonics of degree {first}, and those of degree 0 are stored "
            f"in another way than all others; pipeline.model.sh_degree is {own}: give --pipeline.model.sh-degree "
            f"{first}"
        )


def _check_prune_state(state: PruneState, count: int, degree: int) -> None:
    """Checks that a pruning state is one of the Gaussians beside it.

    Raises:
        ValueError: Names what does not fit.
    """
    if state.initial_sizes and set(state.initial_sizes) != set(PARTS):
        raise ValueError(
            f"the checkpoint's pruning state has sizes of {', '.join(sorted(state.initial_sizes))}; expected those of "
            f"{' and '.join(PARTS)}"
        )
    if state.initial_sizes.get("sh_degree", degree) < degree:
        raise ValueError(
            f"the checkpoint's pruning state says that the spherical harmonics were of degree "
            f"{state.initial_sizes['sh_degree']} at first, and they are of degree {degree}"
        )
    for event in state.succeeded:
        for sizes in (event.before, event.after):
            if set(sizes.parts) != set(PARTS):
                raise ValueError(
                    f"the checkpoint's event at step {event.step} has sizes of "
                    f"{', '.join(sorted(sizes.parts)) or 'nothing'}; expected those of {' and '.join(PARTS)}"
                )
    if state.succeeded:
        left = state.succeeded[-1].after.parts
        if left["gaussians"] != count:
            raise ValueError(f"the checkpoint's last event left {left['gaussians']} Gaussians, and there are {count}")
        if left["sh_degree"] != degree:
            raise ValueError(
                f"the checkpoint's last event left spherical harmonics of degree {left['sh_degree']}, and they are of "
                f"degree {degree}"
            )
    for event in state.plan:
        unknown = set(event.targets) - {"sh_degree"}
        if unknown:
            raise ValueError(f"the checkpoint's plan at step {event.step} has a target for {min(unknown)}")
        target = event.targets.get("sh_degree", 0)
        if target > MAX_SH_DEGREE:
            raise ValueError(f"the checkpoint's plan at step {event.step} has a target of {target} for sh_degree")
    for label, tensors in (("mask", state.masks), ("rewind snapshot", state.rewind_snapshot)):
        if tensors:
            raise ValueError(f"the checkpoint has a {label} of {min(tensors)}; Gaussians have none")
    try:
        for options in (state.options, state.given or {}, *(event.options for event in state.history)):
            SplatPruneConfig.from_plain(options)
    except ValueError as error:
        raise ValueError(f"the checkpoint's pruning options: {error}") from error
