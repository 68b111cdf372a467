"""Nerfstudio's own vanilla NeRF, for comparisons: its fields, its model, its pipeline and its trainer.

Only its LPIPS metric is left out: the network of it would be downloaded, and neither a step nor a frame needs it.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig
from torch import nn
from torchmetrics.image import lpip

from nerfstudio_prune.bench.setup import NEVER, Scene, suite_config

METHOD = "vanilla-nerf"


class _NoNetwork(nn.Module):
    """Stands where the metric's network would."""

    def __init__(self, **options: Any) -> None:
        super().__init__()


class StockModel(NeRFModel):
    """The host's model without the network of its LPIPS metric."""

    def populate_modules(self) -> None:
        """Builds what the host builds, and downloads nothing."""
        with patch.object(lpip, "LearnedPerceptualImagePatchSimilarity", _NoNetwork):
            super().populate_modules()


@dataclass
class StockModelConfig(VanillaModelConfig):
    """Options of the host's model."""

    _target: type = field(default_factory=lambda: StockModel)


def stock_config(
    name: str, seed: int, scene: Scene, samples: tuple[int, int], rays_per_batch: int, folder: Path
) -> TrainerConfig:
    """Configuration of the host's own trainer.

    Args:
        name: Name of the run.
        seed: Its seed.
        scene: Data.
        samples: Samples of a ray, coarse and added.
        rays_per_batch: Rays of a training step.
        folder: Where the host saves the run.
    """
    config = deepcopy(all_methods[METHOD])
    config.machine = deepcopy(suite_config(scene.method).machine)
    config.output_dir, config.experiment_name, config.timestamp = folder, name, "run"
    config.vis = "tensorboard"
    config.logging.local_writer.enable = False
    config.machine.seed = seed
    config.max_num_iterations = NEVER
    config.steps_per_save = config.steps_per_eval_batch = config.steps_per_eval_image = NEVER
    config.steps_per_eval_all_images = NEVER
    pipeline: Any = config.pipeline
    pipeline.datamanager.dataparser = deepcopy(scene.dataparser)
    pipeline.datamanager.train_num_rays_per_batch = rays_per_batch
    pipeline.model = StockModelConfig(num_coarse_samples=samples[0], num_importance_samples=samples[1])
    return config
