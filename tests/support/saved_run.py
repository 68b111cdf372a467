"""A run as the host leaves it on the disk, made by hand."""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn


def save_run(folder: Path, model: nn.Module, config: Any, step: int = 9) -> Path:
    """Saves a model as the host does and gives the path of its config.yml; a run that is there gets one more
    checkpoint."""
    (folder / "nerfstudio_models").mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(yaml.dump(config))
    state = {f"_model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"step": step, "pipeline": state}, folder / "nerfstudio_models" / f"step-{step:09d}.ckpt")
    return folder / "config.yml"
