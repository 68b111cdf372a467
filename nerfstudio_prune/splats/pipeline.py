"""The pipeline of Gaussians: where they begin, the views that judge a cut and measure it, their teacher."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, cast

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.data.image_datamanager import CheckedImageDataManager, Split
from nerfstudio_prune.engine.checkpoints import network_entries
from nerfstudio_prune.engine.compute import ComputePipelineConfig
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.pipeline import ControlledPipeline
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.gaussians.contributions import PixelsOfView, collect
from nerfstudio_prune.gaussians.distillation import median_neighbour_distance
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import SUMS, Contributions, Sum
from nerfstudio_prune.splats.checkpoint import checked_state
from nerfstudio_prune.splats.checks import check_config, check_degree
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.distilling import HarmonicsDistillation
from nerfstudio_prune.splats.growth import LENGTH, MEMORY, length_of_run
from nerfstudio_prune.splats.initial import begin_with
from nerfstudio_prune.splats.model import LOADED_STEP, SplatPruneModel, SplatPruneModelConfig
from nerfstudio_prune.splats.recipes import GaussianRecipe
from nerfstudio_prune.splats.seeding import camera_distance, initial_scales, seed_from_views
from nerfstudio_prune.splats.subject import GaussianSubject, ViewEvidence
from nerfstudio_prune.splats.views import FixedViews, view_of
from nerfstudio_prune.viewer.panel_mount import PanelMount

PIXELS_PER_SEED = 100
"""Training pixels for each Gaussian to begin with, where the data have no points; at most `num_random` of these."""
FEWEST_SEEDS = 1000
SEED_SCALE, LARGEST_SEED = 0.25, 0.15
"""Standard deviation of a Gaussian to begin with: factor on the mean distance of its neighbours, and its largest value
as a share of the cameras' distance. Larger ones cover half of a picture each, and a step takes five times as long."""
PSNR_VIEWS = 25
"""Training views that a largest loss of PSNR is measured on."""


@dataclass
class SplatPrunePipelineConfig(ComputePipelineConfig):
    """Stock pipeline with pruning of Gaussians."""

    _target: type = field(default_factory=lambda: SplatPrunePipeline)
    datamanager: FullImageDatamanagerConfig = field(
        default_factory=lambda: FullImageDatamanagerConfig(_target=CheckedImageDataManager)
    )
    """Data manager of whole pictures."""
    model: SplatPruneModelConfig = field(default_factory=SplatPruneModelConfig)
    """Model configuration."""
    prune: SplatPruneConfig = field(default_factory=SplatPruneConfig)
    """Which Gaussians to remove, when, how far, and how to go on."""


class SplatPrunePipeline(ControlledPipeline):
    """Trains Gaussians and lets a controller prune them.

    Args:
        config: Configuration of data, model and pruning.
        device: Where model and data live.
        test_mode: 'val' and 'test' evaluate on those views; 'inference' loads no pictures.
        world_size: Number of processes; only 1 is supported.
        local_rank: Rank of this process.
        grad_scaler: Gradient scaler of the trainer.

    Raises:
        ValueError: If there is more than one process, an option is not of its type or out of its range, the data cannot
            be trained on, or the rasteriser that is asked for cannot render here.
    """

    config: SplatPrunePipelineConfig
    model: SplatPruneModel
    datamanager: CheckedImageDataManager

    def __init__(
        self,
        config: SplatPrunePipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Optional[Any] = None,
    ) -> None:
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        _ = self.model.rasterizer  # what cannot render is told before anything is loaded
        if self.model.seed_points is None and not config.model.random_init and test_mode != "inference":
            self._seed_model()
        blended_with = self.datamanager.train_dataparser_outputs.alpha_color
        if config.model.background_color == "auto" and blended_with is not None:
            self.model.set_behind(blended_with)
        self.model.step = LOADED_STEP
        self.distillation: Optional[HarmonicsDistillation] = None
        """When there is a teacher; None where nothing is trained."""
        self.panel_mount = PanelMount(self)

    def _seed_model(self) -> None:
        """Lets the model begin with points inside the cameras' view."""
        cameras = self.datamanager.train_dataset.cameras
        pixels = int((cameras.height * cameras.width).sum())
        count = min(self.config.model.num_random, max(FEWEST_SEEDS, pixels // PIXELS_PER_SEED))
        xyz, rgb = seed_from_views(
            cameras,
            self.datamanager.train_dataset.picture,
            count,
            # The run's seed: the trainer has seeded torch with it.
            torch.Generator().manual_seed(torch.initial_seed() % 2**63),
            self.datamanager.train_dataset.pixels,
        )
        scales = initial_scales(xyz, SEED_SCALE, LARGEST_SEED * camera_distance(cameras))
        self.model.seed(xyz.to(self.device), rgb.to(self.device), scales.to(self.device))

    @staticmethod
    def check_config(config: SplatPrunePipelineConfig, trains: bool) -> None:
        """Checks options before anything is loaded; see `splats.checks.check_config`."""
        check_config(config, trains)

    def check_entries(self, loaded_state: Mapping[str, Any]) -> None:
        """Checks the entries of a checkpoint without loading them.

        Args:
            loaded_state: See `load_pipeline`.

        Raises:
            ValueError: If they do not fit.
        """
        checked_state(self.model, network_entries(loaded_state))

    def subject_of(self, options: SplatPruneConfig) -> Subject[Any]:
        """What is pruned, whatever the options.

        Args:
            options: Options, filled in.
        """
        return GaussianSubject(self.model, self.evidence)

    def make_measure(self) -> FixedViews:
        """Quality on whole evaluation views."""
        return FixedViews(
            self.config.prune.num_eval_views,
            len(self.datamanager.eval_dataset),
            lambda view: self.view("eval", view),
        )

    def evidence(self, recipe: GaussianRecipe, seed: int, among: Optional[Sequence[int]] = None) -> ViewEvidence:
        """The training views, as what a cut is judged by.

        Args:
            recipe: How to cut.
            seed: Seed of the event.
            among: Indices of the views. None: all.
        """
        model = self.model
        chosen = range(len(self.datamanager.train_dataset)) if among is None else among
        views = [self._collected(view) for view in chosen] if recipe.looks else []
        degree, background = model.active_sh_degree(), model.behind.to(model.device)
        antialiased = model.config.rasterize_mode == "antialiased"

        def contributions(gaussians: Gaussians, wants: Collection[Sum] = SUMS) -> Contributions:
            at = min(degree, gaussians.sh_degree)
            return collect(
                model.in_harmonics(gaussians),
                views,
                model.rasterizer,
                at,
                background,
                wants=wants,
                antialiased=antialiased,
                seed=seed,
            )

        measured = FixedViews(PSNR_VIEWS, len(chosen), lambda i: self.view("train", chosen[i]))
        return ViewEvidence(
            contributions,
            lambda gaussians: measured(model.with_gaussians(gaussians))["psnr"],
            [view for view, _ in views],
        )

    def _collected(self, view: int) -> PixelsOfView:
        data = self.datamanager.view_data("train", view)
        return view_of(data.camera.to(self.device)), data.pixels

    def view(self, split: Split, view: int) -> tuple[Cameras, dict[str, Any]]:
        """Camera and batch of a view: its picture, and its `mask` where not all pixels count.

        Args:
            split: Which views.
            view: Index of the view in its data set.
        """
        data = self.datamanager.view_data(split, view)
        batch: dict[str, Any] = {"image": data.image}
        if data.pixels is not None:
            batch["mask"] = data.pixels[..., None]
        return data.camera, batch

    def listeners(self, run: PruneRun) -> Sequence[Listener]:
        """The teacher of the spherical harmonics.

        Raises:
            ValueError: If the degree that is asked for is above the model's.
        """
        check_degree(self.config.prune.sh_degree, self.model.config.sh_degree)
        cameras = self.datamanager.train_dataset.cameras
        views = [view_of(cameras[view : view + 1]) for view in range(len(cameras))]
        spacing = median_neighbour_distance(views) if len(views) > 1 else 0.0
        recipe = cast(GaussianRecipe, run.recipe).distil
        self.distillation = HarmonicsDistillation(recipe, run, self.model, spacing)
        return [self.distillation]

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Outputs, losses and metrics of a training step, by the photo of a view or by the teacher.

        Args:
            step: Training step.
        """
        if self.controller is None or self.distillation is None:
            return super().get_train_loss_dict(step)
        camera, batch = self.datamanager.next_train(step)
        lesson = self.distillation.lesson(step, camera)
        outputs = self._model(camera if lesson is None else lesson.camera)
        if lesson is None:
            metrics = self.model.get_metrics_dict(outputs, batch)
            losses = self.model.get_loss_dict(outputs, batch, metrics)
            self.controller.observe(step, metrics["psnr"])
        else:
            metrics = {"gaussian_count": self.model.num_points}
            losses = lesson.losses(self.model, outputs)
        losses.update(self.controller.losses(step))
        return outputs, losses, metrics

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Fits what goes by the step to the run, and starts the controller; the checkpoint is loaded by now.

        Raises:
            ValueError: If the options do not give a plan.
        """
        trainer = training_callback_attributes.trainer
        assert trainer is not None
        file = self.config.model.initial_file
        if file is not None and trainer._start_step == 0:
            told = begin_with(self.model, file, self.datamanager.train_dataparser_outputs)
            CONSOLE.print(escape(f"Begins with {told}"), soft_wrap=True)
        cameras = self.datamanager.train_dataset.cameras
        sides = torch.minimum(cameras.height, cameras.width).flatten().tolist()
        length = length_of_run(
            self.model.prune_state.memory, trainer.config.max_num_iterations, trainer._start_step, self.config.model
        )
        self.model.fit_schedule(length, sides)
        name, grows = self.model.rasterizer.name, self.model.growth.text(trainer._start_step)
        once = " (compiled at the first step, once for an installation)" if name == "cpu" else ""
        told = f"Rasteriser: {name}{once}. Gaussians: {self.model.num_points:,}, {grows}"
        CONSOLE.print(escape(told), soft_wrap=True)
        callbacks = super().get_training_callbacks(training_callback_attributes)
        self.model.prune_state.memory[MEMORY] = {LENGTH: length}
        return callbacks
