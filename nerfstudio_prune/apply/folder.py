"""The folder of the new run: named, written as a whole, and the proof that the former one is as it was."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.engine import run_folder
from nerfstudio_prune.engine.saved_run import noted_transforms

CONFIG = "config.yml"


def name_run(
    config: TrainerConfig, output_dir: Optional[Path], experiment: Optional[str], timestamp: Optional[str]
) -> Path:
    """Gives a configuration the place and the name of a new run.

    Args:
        config: The configuration; read as it is, `ns-train --load-config` goes on from the new run's own checkpoint.
        output_dir: Where runs are saved; None for where that one was.
        experiment: Name of the experiment; None for that of the run.
        timestamp: Name of the run's folder; None for the time.

    Returns:
        The folder.

    Raises:
        ValueError: If there is such a folder, or a name is none.
    """
    for option, name in (("--experiment-name", experiment), ("--timestamp", timestamp)):
        if name is not None and (Path(name).name != name or name.startswith(".")):
            raise ValueError(f"{option} must be the name of a folder, got {name!r}")
    config.output_dir = output_dir or config.output_dir
    config.experiment_name = experiment or config.experiment_name
    config.timestamp = timestamp or datetime.now().strftime("%Y-%m-%d_%H%M%S")
    config.load_step = config.load_checkpoint = config.load_config = None
    folder, config.load_dir = config.get_base_dir(), config.get_checkpoint_dir()
    if folder.exists():
        raise ValueError(f"the new run would be {folder}, which is there already; give another --timestamp")
    return folder


def write_run(folder: Path, config: TrainerConfig, content: Mapping[str, Any], former: Path) -> Path:
    """Writes a run: all of it, or nothing.

    Args:
        folder: Its folder.
        config: Its configuration.
        content: Its checkpoint.
        former: Folder of the run that it comes from.

    Returns:
        Its config.yml.

    Raises:
        ValueError: If it cannot be written, or there is such a folder by now.
    """
    try:
        return run_folder.write_run(config, content, noted_scene(former / CONFIG))
    except OSError as error:
        raise ValueError(f"--output-dir {config.output_dir}: {folder} cannot be written: {error}") from error


def noted_scene(config_file: Path) -> Optional[Mapping[str, Any]]:
    """How the scene lies in its data, as the host noted it; None where it did not, or something else is there.

    Args:
        config_file: The run's config.yml.
    """
    try:
        return noted_transforms(config_file)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def digest(*files: Path) -> str:
    """SHA-256 of files, one after the other.

    Args:
        files: The files.
    """
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                found.update(block)
    return found.hexdigest()
