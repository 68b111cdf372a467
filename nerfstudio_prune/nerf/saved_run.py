"""A run that was saved: its configuration, its checkpoints and the network in one of them. Loads no data set.

Errors name the run's file by the host's own option for it, `--load-config`, as every command that opens a run has it.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig

from nerfstudio_prune.engine.checkpoints import Checkpoint, checkpoint_of_step, network_entries, newest_checkpoint
from nerfstudio_prune.engine.config_file import ConfigFileError, read_config_file
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
    options = model_options(config, config_file)
    checkpoint = find_checkpoint(config, config_file, step)
    model = build_model(options, config_file, len(checkpoint.content["pipeline"]))
    load_network(model, checkpoint)
    return SavedRun(config, config_file, checkpoint.path, checkpoint.step, model)


def read_config(path: Path) -> TrainerConfig:
    """Reads a run's configuration.

    Raises:
        SavedRunError: If it is not there, or is no configuration of a Nerfstudio run.
    """
    try:
        return read_config_file(path)
    except (OSError, ConfigFileError) as error:
        raise SavedRunError(f"--load-config {path}: expected the config.yml of a run: {error}") from error


def model_options(config: TrainerConfig, path: Path) -> PruneModelConfig:
    """Options of the model of a run.

    Args:
        config: The run's configuration.
        path: Its file.

    Raises:
        SavedRunError: If the run is of another method.
    """
    options: Any = getattr(config.pipeline, "model", None)
    if isinstance(options, VanillaModelConfig) and options._target is NeRFModel:
        options = PruneModelConfig(
            **{f.name: getattr(options, f.name) for f in fields(VanillaModelConfig) if f.name != "_target"}
        )
    if not isinstance(options, PruneModelConfig) or options._target is not PruneModel:
        raise SavedRunError(
            f"--load-config {path}: expected a run of nerf-prune or vanilla-nerf, got method {config.method_name}"
        )
    return options


def build_model(options: PruneModelConfig, path: Path, num_entries: int) -> PruneModel:
    """Builds the model of a run, for a checkpoint to be loaded into: of its layers, but of no width to speak of.

    Args:
        options: Options of the model.
        path: The run's config.yml.
        num_entries: Entries of the checkpoint, which bound the number of layers.

    Raises:
        SavedRunError: If the options make no network.
    """
    layers = options.base_mlp_num_layers + options.head_mlp_num_layers
    if layers > num_entries:
        raise SavedRunError(f"--load-config {path}: {layers:,} layers, and its checkpoint has {num_entries} entries")
    try:
        return replace(options, base_mlp_layer_width=1, head_mlp_layer_width=1).setup(
            # The scene says nothing about the network.
            scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])),
            num_train_data=1,
        )
    except Exception as error:  # the host's parts check little of what they are given
        raise SavedRunError(f"--load-config {path}: its model cannot be built: {error!r}") from error


def find_checkpoint(config: TrainerConfig, path: Path, step: Optional[int] = None) -> Checkpoint:
    """The checkpoint of a step, or the newest whole one.

    `load_dir` and `load_step` of the configuration are where the run came from, not where it went.

    Args:
        config: The run's configuration.
        path: Its file; a run that was moved as a whole has its checkpoints beside it.
        step: Step of the checkpoint; None for the newest one.

    Raises:
        SavedRunError: If there is none that is whole.
    """
    try:
        beside = path.parent / config.relative_model_dir
        folder = beside if beside.is_dir() else config.get_checkpoint_dir()
        return newest_checkpoint(folder) if step is None else checkpoint_of_step(folder, step)
    except (OSError, ValueError, AssertionError) as error:
        raise SavedRunError(f"--load-config {path}: {str(error) or 'says not where the run was saved'}") from error


def load_network(model: PruneModel, checkpoint: Checkpoint) -> None:
    """Loads the network and pruning state of a checkpoint. Weights that are not finite are there to be looked at.

    Args:
        model: Model of the same numbers of layers, of any widths.
        checkpoint: The checkpoint.

    Raises:
        SavedRunError: If it does not fit.
    """
    try:
        model.take_up(network_entries(checkpoint.content["pipeline"]), finite=False)
    except ValueError as error:
        raise SavedRunError(f"{checkpoint.path}: {error}") from error
