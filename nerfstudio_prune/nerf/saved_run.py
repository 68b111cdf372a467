"""The network of a run that was saved, see `engine/saved_run.py`."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig

from nerfstudio_prune.engine.checkpoints import Checkpoint, CheckpointError, network_entries, read_checkpoint
from nerfstudio_prune.engine.saved_run import SavedRun, SavedRunError, find_checkpoint
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig


def load_run(config: TrainerConfig, config_file: Path, step: Optional[int] = None) -> SavedRun[PruneModel]:
    """Loads the network of a run of `nerf-prune` or of the stock `vanilla-nerf`.

    Args:
        config: The run's configuration.
        config_file: Its file.
        step: Step of the checkpoint; None for the newest one.

    Raises:
        SavedRunError: If the run is of another method, its checkpoint is missing or damaged, or does not fit.
    """
    return _loaded(config, config_file, lambda: find_checkpoint(config, config_file, step))


def load_checkpoint(config: TrainerConfig, path: Path) -> SavedRun[PruneModel]:
    """Loads the network of a checkpoint alone.

    Args:
        config: Configuration of a run of the same method, with options of the same network; its widths do not matter.
        path: The checkpoint.

    Raises:
        SavedRunError: See `load_run`.
    """

    def read() -> Checkpoint:
        try:
            return read_checkpoint(path)
        except (OSError, CheckpointError) as error:
            raise SavedRunError(f"--load-config {error}") from error

    return _loaded(config, path, read)


def _loaded(config: TrainerConfig, file: Path, read: Callable[[], Checkpoint]) -> SavedRun[PruneModel]:
    options = model_options(config)
    if options is None:
        raise SavedRunError(
            f"--load-config {file}: expected a run of nerf-prune or vanilla-nerf, got method {config.method_name}"
        )
    checkpoint = read()
    model = build_model(options, file, len(checkpoint.content["pipeline"]))
    load_network(model, checkpoint)
    return SavedRun(config, file, checkpoint.path, checkpoint.step, model)


def model_options(config: TrainerConfig) -> Optional[PruneModelConfig]:
    """Options of the network of a run; None if the run is of another method.

    Args:
        config: The run's configuration.
    """
    # Methods that are not installed are known to the host by name alone.
    options: Any = getattr(getattr(config, "pipeline", None), "model", None)
    if isinstance(options, VanillaModelConfig) and options._target is NeRFModel:
        return PruneModelConfig(
            **{f.name: getattr(options, f.name) for f in fields(VanillaModelConfig) if f.name != "_target"}
        )
    return options if isinstance(options, PruneModelConfig) and options._target is PruneModel else None


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
