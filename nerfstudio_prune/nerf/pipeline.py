"""The pipeline: thin, hands over to the controller."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional, cast

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.engine.checks import check_training
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.evaluation import load_whole_checkpoints_of
from nerfstudio_prune.engine.resuming import take_up
from nerfstudio_prune.engine.steering import Steering
from nerfstudio_prune.engine.terminal import print_in_any_encoding
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.checkpoint import checked_state, network_entries
from nerfstudio_prune.nerf.checks import check_config, check_rays
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig
from nerfstudio_prune.nerf.rays import FixedRays
from nerfstudio_prune.nerf.recipes import Calibration, FieldRecipe
from nerfstudio_prune.nerf.shrinking import ShrinkageSchedule
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.nerf.teacher.schedule import DistillationSchedule
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.viewer.panel_mount import PanelMount


@dataclass
class PrunePipelineConfig(VanillaPipelineConfig):
    """Stock pipeline with pruning."""

    _target: type = field(default_factory=lambda: PrunePipeline)
    model: PruneModelConfig = field(default_factory=PruneModelConfig)
    """Model configuration."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    """What to prune, when, how far, and how to go on."""


class PrunePipeline(VanillaPipeline):
    """Trains a model and lets a controller prune it.

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
        if world_size > 1:
            raise ValueError(
                f"nerf-prune trains on one device: machine.num_devices x machine.num_machines must be 1, got "
                f"{world_size}. DistributedDataParallel builds its buckets for the widths before pruning"
            )
        if torch.device(device).type == "cpu":
            # The small gradients of a trained field become denormal, which makes a step on a CPU 3 to 4 times slower.
            torch.set_flush_denormal(True)
        load_whole_checkpoints_of(PrunePipeline)
        print_in_any_encoding()
        check_config(config, trains=test_mode == "val")
        if config.datamanager._target is VanillaDataManager:  # as in configurations saved by earlier versions
            config.datamanager._target = CheckedDataManager
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        tell_missing_times(self.model, self.datamanager.train_dataset)
        self.seed = 0 if config.prune.seed is None else config.prune.seed
        """Seed of random choices; a training run without one sets its own."""
        self.controller: Optional[PruneController] = None
        """What prunes; None where nothing is trained."""
        self.steering: Optional[Steering] = None
        """What a person asks of the controller; None where nothing is trained."""
        self.distillation: Optional[DistillationSchedule] = None
        """When there is a teacher; None where nothing is trained."""
        self._measure: Optional[FixedRays] = None
        self.panel_mount = PanelMount(self)
        """Where the viewer looks for a panel."""

    def check_entries(self, loaded_state: Mapping[str, Any]) -> None:
        """Checks the entries of a checkpoint without loading them.

        Args:
            loaded_state: See `load_pipeline`.

        Raises:
            ValueError: If they do not fit.
        """
        checked_state(self.model, self.model.neuron_groups(), network_entries(loaded_state))

    @property
    def options(self) -> PruneConfig:
        """Options of pruning in force: those of the run, of the checkpoint, or of the configuration."""
        if self.controller is not None:
            return cast(PruneConfig, self.controller.run.options)
        stored = self.model.prune_state.options
        return self.config.prune.with_stored(stored) if stored else self.config.prune.filled()

    @property
    def subject(self) -> Subject[Any]:
        """What is pruned under these options."""
        if self.controller is not None:
            return self.controller.run.subject
        return self.subject_of(self.options)

    def subject_of(self, options: PruneConfig) -> Subject[Any]:
        """What is pruned under other options.

        Args:
            options: Options, filled in.
        """
        return subject_of(options.strategy, self.model, self.calibrate)

    @property
    def measure(self) -> FixedRays:
        """Quality on a fixed batch of evaluation rays."""
        if self._measure is None:
            assert self.datamanager.eval_dataset is not None
            self._measure = FixedRays(self.datamanager.eval_dataset, self.config.prune.num_eval_rays, self.seed)
        return self._measure

    def calibrate(self, calibration: Calibration, seed: int) -> Mapping[str, Samples]:
        """Collects calibration samples on training rays, see `collect_samples`."""
        assert self.datamanager.train_dataset is not None
        return collect_samples(self.model, self.datamanager.train_dataset, calibration, seed)

    def get_average_eval_image_metrics(
        self, step: Optional[int] = None, output_path: Optional[Path] = None, get_std: bool = False
    ) -> Any:
        """Mean of the metrics of all evaluation views, as the host computes it.

        Args:
            step: Training step.
            output_path: Folder for pictures of the views.
            get_std: Whether to give standard deviations as well.

        Raises:
            ValueError: If there are no evaluation views.
        """
        if not self.datamanager.eval_dataset:
            reason = getattr(self.datamanager, "no_evaluation", "")
            raise ValueError(f"nothing to evaluate on, there are no evaluation views: {reason}")
        return super().get_average_eval_image_metrics(step, output_path, get_std)

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

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Starts the controller; the host has loaded the checkpoint by now.

        Raises:
            ValueError: If the options, with those of a loaded checkpoint, do not give a plan, or do not suit the data.
        """
        trainer, optimizers = training_callback_attributes.trainer, training_callback_attributes.optimizers
        assert trainer is not None and optimizers is not None
        check_training(trainer.config)
        self.model.lpips.may_download = False
        run = take_up(
            self.model.prune_state,
            self.config.prune,
            self.subject_of,
            optimizers,
            trainer.config.machine.seed,
            trainer._start_step,
            trainer.config.max_num_iterations,
            registered_options(trainer.config.method_name),
        )
        check_rays(cast(PruneConfig, run.options), self.datamanager.train_dataset, self.datamanager.eval_dataset)
        self.seed = trainer.config.machine.seed
        self.distillation = DistillationSchedule(cast(FieldRecipe, run.recipe).teacher, run, self.model)
        self.controller = PruneController(
            run,
            self.measure,
            self.datamanager.get_train_rays_per_batch,
            [self.distillation, ShrinkageSchedule(run)],
            watched=self.panel_mount.mounted,
            # Runs of earlier versions are trained by Nerfstudio's own trainer, which keeps none.
            keep_checkpoint=getattr(trainer, "keep_checkpoint", lambda step: None),
        )
        self.steering = Steering(self.controller)
        callbacks = super().get_training_callbacks(training_callback_attributes)
        return [*callbacks, *self.controller.callbacks(), *self.steering.callbacks()]

    def settle(self) -> None:
        """Puts back what holds within a training step only; the trainer asks for it where a step was broken off.

        Raises:
            ValueError: If it was broken off in the midst of a cut.
        """
        if self.controller is not None:
            self.controller.settle()


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


def registered_options(method_name: Optional[str]) -> Optional[PruneConfig]:
    """Options of a method as registered; None for one that is not registered or prunes nothing.

    Args:
        method_name: Name of the method.
    """
    from nerfstudio.configs.method_configs import all_methods  # noqa: PLC0415  it imports this module

    method: Any = all_methods.get(method_name or "")
    return getattr(method.pipeline, "prune", None) if method is not None else None
