"""A run that was saved: its configuration, its checkpoints and the network in one of them. Loads no data set.

Errors name the run's file by the host's own option for it, `--load-config`, as every command that opens a run has it.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import torch
import yaml
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig

from nerfstudio_prune.core.checkpoint_file import read_checkpoint
from nerfstudio_prune.engine.checkpoints import CheckpointError, checkpoint_of_step, newest_checkpoint
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig


class SavedRunError(ValueError):
    """A run that cannot be opened. The message names the file and what was expected."""


@dataclass(frozen=True)
class SavedRun:
    """A run at one of its checkpoints."""

    config: TrainerConfig
    """As it was when the run began."""
    config_file: Path
    """The run's config.yml."""
    checkpoint: Path
    """File that the network was loaded from."""
    step: int
    """Step at whose end it was saved."""
    model: PruneModel
    """The network with its pruning state, on the CPU."""


def open_run(config_file: Path, step: Optional[int] = None) -> SavedRun:
    """Opens a run of `nerf-prune` or of the stock `vanilla-nerf`.

    Args:
        config_file: The run's config.yml.
        step: Step of the checkpoint; None for the newest one.

    Raises:
        SavedRunError: If config or checkpoint are missing, damaged, or of another kind of network.
    """
    config = read_config(config_file)
    model = build_model(config, config_file)
    checkpoint = find_checkpoint(config, config_file, step)
    return SavedRun(config, config_file, checkpoint, load_checkpoint(model, checkpoint), model)


def read_config(path: Path) -> TrainerConfig:
    """Reads a run's configuration.

    Raises:
        SavedRunError: If it is not there, or is no configuration of a Nerfstudio run.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SavedRunError(f"--load-config {path}: expected the config.yml of a run: {error}") from error
    try:
        config = yaml.load(text, Loader=yaml.Loader)
    except Exception as error:
        # The loader imports and calls what the file names, as ns-eval does; that may raise anything.
        raise SavedRunError(f"--load-config {path}: cannot be read as the config.yml of a run: {error}") from error
    if not isinstance(config, TrainerConfig):
        raise SavedRunError(f"--load-config {path}: expected the config.yml of a run, got {type(config).__name__}")
    return config


def build_model(config: TrainerConfig, path: Path) -> PruneModel:
    """Builds the model of a run as it was before pruning.

    Raises:
        SavedRunError: If the run is of another method.
    """
    options: Any = getattr(config.pipeline, "model", None)
    if isinstance(options, VanillaModelConfig) and options._target is NeRFModel:
        options = PruneModelConfig(
            **{f.name: getattr(options, f.name) for f in fields(VanillaModelConfig) if f.name != "_target"}
        )
    if not isinstance(options, PruneModelConfig):
        raise SavedRunError(
            f"--load-config {path}: expected a run of nerf-prune or vanilla-nerf, got method {config.method_name}"
        )
    # The scene says nothing about the network.
    return options.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1)


def find_checkpoint(config: TrainerConfig, path: Path, step: Optional[int] = None) -> Path:
    """The checkpoint of a step, or the newest whole one.

    `load_dir` and `load_step` of the configuration are where the run came from, not where it went.

    Args:
        config: The run's configuration.
        path: Its file; a run that was moved as a whole has its checkpoints beside it.
        step: Step of the checkpoint; None for the newest one.

    Raises:
        SavedRunError: If there is none that is whole.
    """
    beside = path.parent / config.relative_model_dir
    folder = beside if beside.is_dir() else config.get_checkpoint_dir()
    try:
        found = newest_checkpoint(folder) if step is None else checkpoint_of_step(folder, step)
    except CheckpointError as error:
        raise SavedRunError(f"--load-config {path}: {error}") from error
    return found.path


def load_checkpoint(model: PruneModel, path: Path) -> int:
    """Loads the network and pruning state of a checkpoint. Weights that are not finite are there to be looked at.

    Args:
        model: Model of the same numbers of layers, of any widths.
        path: The checkpoint.

    Returns:
        Step at whose end it was saved.

    Raises:
        SavedRunError: If it is damaged, or does not fit.
    """
    try:
        loaded = read_checkpoint(path)
    except ValueError as error:
        raise SavedRunError(str(error)) from error
    state = {
        key.removeprefix("_model.").removeprefix("module."): value
        for key, value in loaded["pipeline"].items()
        if key.startswith("_model.")
    }
    try:
        model.take_up(state, finite=False)
    except ValueError as error:
        raise SavedRunError(f"{path}: {error}") from error
    return loaded["step"]
