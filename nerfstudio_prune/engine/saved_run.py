"""A run that was saved: its configuration and its checkpoints. Loads no data set.

Errors name the run's file by the host's own option for it, `--load-config`, as every command that opens a run has it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Optional, TypeVar

import msgspec
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.core.files import read_file
from nerfstudio_prune.engine.checkpoints import Checkpoint, checkpoint_of_step, newest_checkpoint
from nerfstudio_prune.engine.config_file import ConfigFileError, read_config_file

ModelT = TypeVar("ModelT")
"""The model of the run's method."""
TRANSFORMS = "dataparser_transforms.json"
"""File beside a run's config.yml in which the host notes how the scene lies in its data."""
MAX_TRANSFORMS = 10_000
"""Bytes of it."""


class SavedRunError(ValueError):
    """A run that cannot be opened. The message names the file and what was expected."""


@dataclass(frozen=True)
class SavedRun(Generic[ModelT]):
    """A run at one of its checkpoints."""

    config: TrainerConfig
    """As it was when the run began."""
    config_file: Path
    """The run's config.yml."""
    checkpoint: Path
    """File that the model was loaded from."""
    step: int
    """Step at whose end it was saved."""
    model: ModelT
    """The model with its pruning state, on the CPU."""


def read_config(path: Path) -> TrainerConfig:
    """Reads a run's configuration.

    Raises:
        SavedRunError: If it is not there, or is no configuration of a Nerfstudio run.
    """
    try:
        return read_config_file(path)
    except (OSError, ConfigFileError) as error:
        raise SavedRunError(f"--load-config {path}: expected the config.yml of a run: {error}") from error


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


def noted_transforms(config_file: Path) -> dict[str, Any]:
    """`transform` and `scale` from the space of the data to that of the scene, as the host noted them; not checked.

    Args:
        config_file: The run's config.yml.

    Raises:
        OSError: If the note is not there, as in a run that was copied without it.
        ValueError: If it is none.
        KeyError: If one of them is missing.
        TypeError: If it holds something else.
        RecursionError: If it nests too deeply.
    """
    noted = msgspec.json.decode(read_file(config_file.parent / TRANSFORMS, MAX_TRANSFORMS))
    return {name: noted[name] for name in ("transform", "scale")}
