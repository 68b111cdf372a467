"""A run that no training wrote: a folder as the host leaves one, there as a whole or not at all."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import yaml
from nerfstudio.configs.base_config import InstantiateConfig
from nerfstudio.engine.trainer import TrainerConfig
from torch import nn

from nerfstudio_prune.engine.checkpoints import plain, write_checkpoint
from nerfstudio_prune.engine.saved_run import TRANSFORMS


def run_state(config: TrainerConfig, model: nn.Module, step: int) -> dict[str, Any]:
    """What a checkpoint holds of a model that is not in training: its weights, and optimizers that begin anew.

    Args:
        config: The run's configuration; it names the optimizers.
        model: The model, with parameters that can be trained.
        step: Step at whose end it is to have been saved.
    """
    groups: Any = model
    optimizers = {}
    for name, parameters in groups.get_param_groups().items():
        settings: InstantiateConfig = config.optimizers[name]["optimizer"]
        optimizers[name] = settings.setup(params=parameters).state_dict()
    return plain(
        {
            "step": step,
            "pipeline": {f"_model.{key}": value for key, value in model.state_dict().items()},
            "optimizers": optimizers,
            "schedulers": {},
            "scalers": {},
        }
    )


def write_run(config: TrainerConfig, state: Mapping[str, Any], scene: Optional[Mapping[str, Any]] = None) -> Path:
    """Writes a run where its configuration says that it lies.

    Args:
        config: The run's configuration, with its names.
        state: What its checkpoint holds, see `run_state`.
        scene: `transform` and `scale` from the space of the data to that of the scene. None: not known.

    Returns:
        Its config.yml.

    Raises:
        OSError: If there is such a folder already, or it cannot be written; nothing is left of it then.
    """
    folder = config.get_base_dir()
    if folder.exists():
        raise FileExistsError(f"{folder} is there already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as beside:
        part = Path(beside) / folder.name
        part.mkdir()
        (part / "config.yml").write_text(yaml.dump(config), "utf-8")
        if scene is not None:
            (part / TRANSFORMS).write_text(json.dumps(scene, indent=4), "utf-8")
        write_checkpoint(part / config.relative_model_dir, state)
        part.rename(folder)
    return folder / "config.yml"
