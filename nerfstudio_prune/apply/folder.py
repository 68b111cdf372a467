"""The folder of the new run: named, written as a whole, and the proof that the former one is as it was."""

import hashlib
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Optional
from uuid import uuid4

import yaml
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.engine.checkpoints import write_checkpoint
from nerfstudio_prune.engine.files import write_whole

CONFIG = "config.yml"
BESIDE = ("dataparser_transforms.json",)
"""What the host leaves beside a configuration, and what is about the scene."""


def name_run(
    config: TrainerConfig, output_dir: Optional[Path], experiment: Optional[str], timestamp: Optional[str]
) -> Path:
    """Gives a configuration the place and the name of a new run.

    Args:
        config: The configuration; it goes on from nothing, since its checkpoint is its own.
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
    config.load_dir = config.load_step = config.load_checkpoint = config.load_config = None
    folder = config.get_base_dir()
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
    unfinished = folder.with_name(f".{folder.name}.saving-{uuid4().hex}")
    try:
        unfinished.mkdir(parents=True)
        models = unfinished / config.relative_model_dir
        models.mkdir(parents=True)
        write_checkpoint(models, content)
        write_whole(unfinished / CONFIG, lambda file: file.write(yaml.dump(config).encode()), unfinished)
        for name in BESIDE:
            if (former / name).is_file():
                shutil.copyfile(former / name, unfinished / name)
        unfinished.rename(folder)
    except OSError as error:
        raise ValueError(f"--output-dir {config.output_dir}: {folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder / CONFIG


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
