"""The tiny networks of a run that was saved, see `engine/saved_run.py`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.engine.checkpoints import network_entries
from nerfstudio_prune.engine.saved_run import SavedRun, SavedRunError, find_checkpoint
from nerfstudio_prune.kilo.model import KiloModel, KiloModelConfig
from nerfstudio_prune.kilonerf.classes import CLASSES
from nerfstudio_prune.kilonerf.shape import NetworkShape


def is_of_tiny_networks(config: TrainerConfig) -> bool:
    """Whether a run is one of `kilonerf`.

    Args:
        config: The run's configuration.
    """
    options: Any = getattr(config.pipeline, "model", None)
    return isinstance(options, KiloModelConfig) and options._target is KiloModel


def load_run(config: TrainerConfig, config_file: Path, step: Optional[int] = None) -> SavedRun[KiloModel]:
    """Loads the networks and cells of a run of `kilonerf`.

    Args:
        config: The run's configuration.
        config_file: Its file.
        step: Step of the checkpoint; None for the newest one.

    Raises:
        SavedRunError: If there is no checkpoint that is whole, or it does not fit.
    """
    checkpoint = find_checkpoint(config, config_file, step)
    entries = network_entries(checkpoint.content["pipeline"])
    options: Any = config.pipeline.model
    try:
        # The scene says nothing about the networks.
        model = options.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1)
        layers, classes = _layers_and_classes(entries)
        model.make_room(NetworkShape(hidden_width=CLASSES, num_layers=layers), narrows=classes > 1)
        model.load_state_dict(entries)
    except ValueError as error:
        raise SavedRunError(f"{checkpoint.path}: {error}") from error
    return SavedRun(config, config_file, checkpoint.path, checkpoint.step, model.eval())


def _layers_and_classes(entries: Mapping[str, Any]) -> tuple[int, int]:
    """Hidden layers in front of the density, and widths, of the networks of a checkpoint, by the entries' names."""
    names = [match for name in entries if (match := re.fullmatch(r"networks\.stacks\.(\d+)\.w(\d+)", name))]
    return max(1, len({match[2] for match in names})), len({match[1] for match in names})
