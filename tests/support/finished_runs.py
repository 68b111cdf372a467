"""Genuine runs of the host's own methods, which build a metric network that is downloaded elsewhere; and whole folders
to compare."""

import shlex
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.scripts import train

from nerfstudio_prune.engine.host import reset_host, seed_host
from support import tiny_splats
from support.stock_splats import StockTraining
from support.tiny_run import NEVER, make_config


class FakeLpips(torch.nn.Module):
    """Stands for the metric network; like the real one it has weights of convolutions, which are saved with the run."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.net = torch.nn.Conv2d(3, 4, 3)


def train_stock(folder: Path, cache: Path, steps: int = 3) -> Path:
    """Trains Nerfstudio's `vanilla-nerf` by Nerfstudio's own trainer, on few rays: its trunks are 256 wide.

    Args:
        folder: Where the run is saved.
        cache: Cache folder of the demo scene.
        steps: Training steps.

    Returns:
        The run's config.yml.
    """
    config: Any = deepcopy(all_methods["vanilla-nerf"])
    config.machine.device_type, config.vis, config.max_num_iterations = "cpu", "tensorboard", steps
    config.output_dir, config.experiment_name, config.timestamp = folder, "tiny", "run"
    config.steps_per_save = config.steps_per_eval_batch = NEVER
    config.steps_per_eval_image = config.steps_per_eval_all_images = NEVER
    data = config.pipeline.datamanager
    data.dataparser = make_config(folder, cache).pipeline.datamanager.dataparser
    data.train_num_rays_per_batch = data.eval_num_rays_per_batch = 8
    reset_host()
    seed_host(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", FakeLpips)
        config.save_config()
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        trainer.train()
    reset_host()
    return config.get_base_dir() / "config.yml"


def save_stock_splats(folder: Path, cache: Path) -> Path:
    """A run of Nerfstudio's `splatfacto` that has long settled, as it lies on the disk; its rasteriser needs a GPU.

    Args:
        folder: Where the run is saved.
        cache: Cache folder of the demo scene.

    Returns:
        The run's config.yml.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", FakeLpips)
        training = StockTraining(stop_split_at=4).train(6)
    training.step = 1000
    config = training.config
    config.machine.device_type = "cpu"
    config.output_dir, config.experiment_name, config.timestamp = folder, "tiny", "run"
    config.pipeline.datamanager.dataparser = tiny_splats.tiny_config(folder, cache).pipeline.datamanager.dataparser
    training.save(config.get_base_dir() / "nerfstudio_models")
    config.save_config()
    return config.get_base_dir() / "config.yml"


def all_bytes(folder: Path) -> dict[str, bytes]:
    """Path in a folder -> content, of all files below it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def typed(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carries out the line of `ns-train` that a command printed, word for word, as a shell would.

    Args:
        output: What the command printed.
        monkeypatch: For the words of the command line.
    """
    (line,) = (line for line in output.splitlines() if line.startswith("train on:"))
    words = shlex.split(line.removeprefix("train on:"))
    assert words[0] == "ns-train"
    monkeypatch.setattr("sys.argv", words)
    reset_host()
    train.entrypoint()
    reset_host()
