"""The pipeline of vanilla-NeRF-derived models: their fields, the rays that they are measured on, their teacher."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, cast

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.engine.checkpoints import network_entries
from nerfstudio_prune.engine.compute import ComputePipelineConfig
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.pipeline import ControlledPipeline
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.checkpoint import checked_state
from nerfstudio_prune.nerf.checks import check_config, check_rays
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.empty_space import OccupancySchedule, Space, pieces_of_rays, reached_box
from nerfstudio_prune.nerf.field import UnitBallContraction
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig
from nerfstudio_prune.nerf.rays import FixedRays
from nerfstudio_prune.nerf.recipes import Calibration, FieldRecipe
from nerfstudio_prune.nerf.shrinking import ShrinkageSchedule
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.nerf.teacher.schedule import DistillationSchedule
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.viewer.panel_mount import PanelMount


@dataclass
class PrunePipelineConfig(ComputePipelineConfig):
    """Stock pipeline with pruning."""

    _target: type = field(default_factory=lambda: PrunePipeline)
    model: PruneModelConfig = field(default_factory=PruneModelConfig)
    """Model configuration."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    """What to prune, when, how far, and how to go on."""


class PrunePipeline(ControlledPipeline):
    """Trains a model and lets a controller prune its neurons or weights.

    Args:
        config: Configuration of data, model and pruning.
        device: Where model and data live.
        test_mode: 'val' and 'test' evaluate on those views; 'inference' loads no evaluation images.
        world_size: Number of processes; only 1 is supported.
        local_rank: Rank of this process.
        grad_scaler: Gradient scaler of the trainer.

    Raises:
        ValueError: If there is more than one process, an option is not of its type or out of its range, or the data
            cannot be trained on.
    """

    config: PrunePipelineConfig
    model: PruneModel

    def __init__(
        self,
        config: PrunePipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Optional[Any] = None,
    ) -> None:
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        tell_missing_times(self.model, self.datamanager.train_dataset)
        self.model.empty_space.space = space_of(self.model.config, self.datamanager.train_dataset)
        self.distillation: Optional[DistillationSchedule] = None
        """When there is a teacher; None where nothing is trained."""
        self.panel_mount = PanelMount(self)

    @staticmethod
    def check_config(config: PrunePipelineConfig, trains: bool) -> None:
        """Checks options before anything is loaded; see `nerf.checks.check_config`."""
        check_config(config, trains)
        if config.datamanager._target is VanillaDataManager:  # as in configurations saved by earlier versions
            config.datamanager._target = CheckedDataManager

    def check_entries(self, loaded_state: Mapping[str, Any]) -> None:
        """Checks the entries of a checkpoint without loading them.

        Args:
            loaded_state: See `load_pipeline`.

        Raises:
            ValueError: If they do not fit.
        """
        checked_state(self.model, self.model.neuron_groups(), network_entries(loaded_state))

    def subject_of(self, options: PruneConfig) -> Subject[Any]:
        """What is pruned under other options.

        Args:
            options: Options, filled in.
        """
        return subject_of(options.strategy, self.model, self.calibrate)

    def make_measure(self) -> FixedRays:
        """Quality on a fixed batch of evaluation rays."""
        assert self.datamanager.eval_dataset is not None
        return FixedRays(self.datamanager.eval_dataset, self.config.prune.num_eval_rays, self.seed)

    def calibrate(self, calibration: Calibration, seed: int) -> Mapping[str, Samples]:
        """Collects calibration samples on training rays, see `collect_samples`."""
        assert self.datamanager.train_dataset is not None
        return collect_samples(self.model, self.datamanager.train_dataset, calibration, seed)

    def listeners(self, run: PruneRun) -> Sequence[Listener]:
        """The teacher and shrinkage.

        Raises:
            ValueError: If more rays are asked for than there are, or the teacher's losses need another model.
        """
        check_rays(cast(PruneConfig, run.options), self.datamanager.train_dataset, self.datamanager.eval_dataset)
        self.distillation = DistillationSchedule(cast(FieldRecipe, run.recipe).teacher, run, self.model)
        looks = [OccupancySchedule(self.model, run)] if self.model.config.skip_empty_space else []
        return [self.distillation, ShrinkageSchedule(run), *looks]

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Outputs, losses and metrics of a training step, with the losses of a teacher and of other listeners.

        Args:
            step: Training step.
        """
        if self.controller is None or self.distillation is None:
            return super().get_train_loss_dict(step)
        taught = self.distillation.at(step)
        if taught is None:
            outputs, losses, metrics = super().get_train_loss_dict(step)
        else:
            teacher, age = taught
            rays, batch = self.datamanager.next_train(step)
            assert isinstance(rays, RayBundle)
            outputs, losses, metrics = teacher.train_step(self.model, rays, batch, age)
        self.controller.observe(step, metrics["psnr"])
        losses.update(self.controller.losses(step))
        return outputs, losses, metrics


PIECES = 64
"""Pieces of each ray that is looked along."""


def space_of(config: PruneModelConfig, dataset: Any) -> Optional[Space]:
    """What training views see, as the fields see it; None where it moves with time.

    Args:
        config: Options of the model.
        dataset: Training views.
    """
    if config.enable_temporal_distortion or not dataset:
        return None
    assert config.collider_params is not None
    near, far = config.collider_params["near_plane"], config.collider_params["far_plane"]
    if config.use_scene_contraction:
        distances = torch.logspace(math.log10(max(near, 1e-3)), math.log10(far), PIECES + 1)
        places = UnitBallContraction()(pieces_of_rays(dataset.cameras, distances))
        return Space(torch.tensor([[-1.0] * 3, [1.0] * 3]), places)
    places = pieces_of_rays(dataset.cameras, torch.linspace(near, far, PIECES + 1))
    return Space(reached_box(dataset.cameras, far), places)


def tell_missing_times(model: PruneModel, dataset: Any) -> None:
    """Says so where a model has a temporal distortion, and its views no times that it could read.

    Args:
        model: The model.
        dataset: Training views.
    """
    if model.temporal_distortion is not None and dataset.cameras.times is None:
        CONSOLE.print(
            "[yellow]--pipeline.model.enable-temporal-distortion True has no effect: the views have no times. Data of "
            "moving scenes has them, such as `dnerf-data` reads"
        )
