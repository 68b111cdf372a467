"""What a checkpoint holds beside the network: read for a cut, which changes the moments as well, and written again."""

from typing import Any

import torch
from nerfstudio.engine.trainer import TrainerConfig
from torch import nn
from torch.amp.grad_scaler import GradScaler

from nerfstudio_prune.core.saved_training import (
    check_saved_optimizers,
    check_saved_scaler,
    check_saved_schedulers,
    saved_shapes,
)
from nerfstudio_prune.engine.checkpoints import (
    PRECISION,
    TRAINING,
    Checkpoint,
    CheckpointError,
    network_entries,
    plain,
    read_checkpoint,
)
from nerfstudio_prune.engine.optimizers import RunOptimizers
from nerfstudio_prune.engine.saved_run import SavedRunError

PREFIX = "_model."
"""What stands before the entries of the model in those of the host's pipeline."""


def with_training(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint with its moments, if it has any.

    Args:
        checkpoint: What was read of the network.
    """
    try:
        return read_checkpoint(checkpoint.path, TRAINING)
    except CheckpointError:
        return checkpoint


def optimizers_of(config: TrainerConfig, model: Any, checkpoint: Checkpoint) -> RunOptimizers:
    """Optimizers of a model, with the moments of its checkpoint; fresh ones where it has none.

    Args:
        config: The run's configuration.
        model: The model, with the weights of the checkpoint.
        checkpoint: See `with_training`.

    Raises:
        SavedRunError: If moments or schedules do not fit.
    """
    content = checkpoint.content
    try:
        optimizers = RunOptimizers(config.optimizers, model.get_param_groups(), config.max_num_iterations)
        if "optimizers" not in content:
            return optimizers
        shapes = saved_shapes(optimizers.optimizers, model, network_entries(content["pipeline"]))
        check_saved_optimizers(content["optimizers"], optimizers.optimizers, shapes)
        check_saved_scaler(content["scalers"], _scaler(config))
        optimizers.load_optimizers(content["optimizers"])
        saved = {name: state for name, state in content.get("schedulers", {}).items() if name in optimizers.schedulers}
        check_saved_schedulers(saved, {name: optimizers.schedulers[name] for name in saved})
        optimizers.load_schedulers(saved)
    except ValueError as error:
        raise SavedRunError(f"{checkpoint.path}: {error}") from error
    return optimizers


def content_of(config: TrainerConfig, checkpoint: Checkpoint, model: nn.Module, optimizers: RunOptimizers) -> Any:
    """A checkpoint as the host saves it, of the same step as another one.

    Args:
        config: The new run's configuration.
        checkpoint: The former checkpoint.
        model: The model as it is now.
        optimizers: Its optimizers.
    """
    former = checkpoint.content
    return plain(
        {
            "step": checkpoint.step,
            "pipeline": {f"{PREFIX}{name}": value for name, value in model.state_dict().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in optimizers.schedulers.items()},
            "scalers": former.get("scalers", _scaler(config).state_dict()),
            PRECISION: former.get(PRECISION, torch.get_float32_matmul_precision()),
        }
    )


def _scaler(config: TrainerConfig) -> GradScaler:
    return GradScaler("cuda", enabled=config.mixed_precision and torch.cuda.is_available())
