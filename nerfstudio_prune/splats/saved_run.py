"""The Gaussians of a run that was saved, see `engine/saved_run.py`."""

from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig

from nerfstudio_prune.engine.checkpoints import network_entries
from nerfstudio_prune.engine.saved_run import SavedRun, SavedRunError, find_checkpoint
from nerfstudio_prune.splats.checkpoint import looked_at
from nerfstudio_prune.splats.model import LOADED_STEP, SplatPruneModel, SplatPruneModelConfig

PICTURED = ("sh_degree", "rasterize_mode", "background_color")
"""Options of the model that its pictures depend on."""


def is_of_gaussians(config: TrainerConfig) -> bool:
    """Whether a run is one of `splat-prune` or of the stock `splatfacto`.

    Args:
        config: The run's configuration.
    """
    options: Any = getattr(config.pipeline, "model", None)
    return isinstance(options, SplatfactoModelConfig) and options._target in (SplatPruneModel, SplatfactoModel)


def load_run(config: TrainerConfig, config_file: Path, step: Optional[int] = None) -> SavedRun[SplatPruneModel]:
    """Loads the Gaussians of a run, to be looked at: all else of the model is as by default, but for what its pictures
    depend on. What lies behind them depends on the data as well, see `SplatPruneModel.set_behind`.

    Args:
        config: The run's configuration.
        config_file: Its file.
        step: Step of the checkpoint; None for the newest one.

    Raises:
        SavedRunError: If there is no checkpoint that is whole, or it does not fit.
    """
    checkpoint = find_checkpoint(config, config_file, step)
    try:
        gaussians, state = looked_at(network_entries(checkpoint.content["pipeline"]))
    except ValueError as error:
        raise SavedRunError(f"{checkpoint.path}: {error}") from error
    options: Any = config.pipeline.model
    kept = {name: getattr(options, name) for name in PICTURED}
    few = SplatPruneModelConfig(num_random=10, random_init=True, **kept).setup(
        scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1
    )
    few.step = LOADED_STEP
    model = few.with_gaussians(gaussians)
    model.prune_state = state
    return SavedRun(config, config_file, checkpoint.path, checkpoint.step, model)
