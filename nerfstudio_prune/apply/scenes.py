"""Runs of `splat-prune` and of the stock `splatfacto`."""

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.splatfacto import SplatfactoModelConfig
from torch import Tensor

from nerfstudio_prune.apply.configuration import check_data_manager, own_config
from nerfstudio_prune.apply.opened import Asked, Opened
from nerfstudio_prune.apply.quality import NOTHING, HeldOut, in_evaluation
from nerfstudio_prune.apply.training import optimizers_of, with_training
from nerfstudio_prune.core.events import PruneEvent, PruneState
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.data.held_out import split_views
from nerfstudio_prune.data.image_datamanager import CheckedImageDataManager
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.saved_run import SavedRunError, find_checkpoint
from nerfstudio_prune.gaussians.selecting import check_target, floor_of
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.growth import LENGTH, MEMORY, length_of_run
from nerfstudio_prune.splats.model import SplatPruneModelConfig
from nerfstudio_prune.splats.pipeline import SplatPrunePipeline, SplatPrunePipelineConfig
from nerfstudio_prune.splats.presets import TARGETS
from nerfstudio_prune.splats.saved_run import is_of_gaussians
from nerfstudio_prune.splats.subject import GAUSSIANS, GaussianSubject
from nerfstudio_prune.splats.views import psnr_of_view

METHOD = "splat-prune"
"""What a run of the stock method goes on as."""
FEW = 10
"""Gaussians of a model that those of a checkpoint are loaded into."""


class Scenes:
    """Gaussians."""

    methods: Sequence[str] = (METHOD, "splatfacto")
    targets: Collection[str] = TARGETS

    def takes(self, config: TrainerConfig) -> bool:
        """Whether a configuration is one of such a run."""
        return is_of_gaussians(config)

    def options(self) -> SplatPruneConfig:
        """Options of pruning of which none is given."""
        return SplatPruneConfig()

    def without_recovery(self, options: SplatPruneConfig, pixels: int) -> SplatPruneConfig:
        """The options as they are: scores see all that there is to see."""
        return options

    def open(self, config: TrainerConfig, path: Path, asked: Asked) -> Opened:
        """Opens a run, with its views: what Gaussians are worth is seen there.

        Raises:
            ValueError: See `Kind.open`; also where there are no data, or what renders is not there.
        """
        own = _config_of(config, path)
        if asked.data is not None:
            own.pipeline.datamanager.data, own.pipeline.datamanager.dataparser.data = None, asked.data
        checkpoint = with_training(find_checkpoint(config, path, asked.step))
        pipeline = _pipeline(own, path)
        model = pipeline.model
        try:
            pipeline.check_entries(checkpoint.content["pipeline"])
        except ValueError as error:
            raise SavedRunError(f"{checkpoint.path}: {error}") from error
        pipeline.load_pipeline(checkpoint.content["pipeline"], checkpoint.step)
        optimizers = optimizers_of(own, model, checkpoint)
        length = length_of_run(
            model.prune_state.memory, own.max_num_iterations, checkpoint.step + 1, own.pipeline.model
        )
        model.fit_schedule(length, [])
        views, back = split_views(len(pipeline.datamanager.train_dataset))
        return Opened(
            checkpoint,
            own,
            model,
            optimizers,
            "optimizers" in checkpoint.content,
            lambda options: GaussianSubject(model, partial(pipeline.evidence, among=views)),
            lambda run: [KeptLength(run.state, length)],
            _held_out(pipeline, back) if asked.rays and back else NOTHING,
            "",
        )

    def sized(self, subject: Subject[Any], options: SplatPruneConfig, share: float) -> SplatPruneConfig:
        """Options with a number of Gaussians.

        Raises:
            ValueError: If fewer must stay.
        """
        present, first = (sizes.parts[GAUSSIANS] for sizes in (subject.sizes(), subject.initial_sizes()))
        count = round(share * present)
        check_target(count, present, f"{share:.1%} of the Gaussians", floor_of(first))
        sized = replace(options, target_gaussians=count)
        sized.validate()
        return sized


class KeptLength(Listener):
    """Lets a training that goes on scale what goes by the step as the run did.

    Args:
        state: The pruning state.
        length: Training steps of the run.
    """

    def __init__(self, state: PruneState, length: int) -> None:
        self.state = state
        self.length = length

    def after_cut(self, event: PruneEvent) -> None:
        """Notes it; what was noted before was about another plan."""
        self.state.memory[MEMORY] = {LENGTH: self.length}


def _config_of(config: TrainerConfig, path: Path) -> Any:
    """Configuration of the new run."""
    managers = (FullImageDatamanager, CheckedImageDataManager)
    check_data_manager(config, FullImageDatamanagerConfig, managers, path)
    options: Any = config.pipeline.model
    stock = not isinstance(config.pipeline, SplatPrunePipelineConfig)
    if stock:
        names = (f.name for f in fields(SplatfactoModelConfig) if f.name != "_target")
        options = SplatPruneModelConfig(**{name: getattr(options, name) for name in names})
    own = own_config(config, METHOD if stock else None, options, path)
    own.pipeline.datamanager._target = CheckedImageDataManager
    return own


def _pipeline(own: Any, path: Path) -> SplatPrunePipeline:
    """The method's own pipeline, with views and a model of few Gaussians."""
    options = deepcopy(own.pipeline)
    options.model.random_init, options.model.num_random = True, FEW
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return options.setup(device=device, test_mode="test")
    except ValueError as error:
        raise SavedRunError(
            f"--load-config {path}: Gaussians are judged by what training views see of them: {error}. Give the path of "
            "the data with --data where they have moved"
        ) from error


def _held_out(pipeline: SplatPrunePipeline, views: Sequence[int]) -> HeldOut:
    """Whole training views that a cut does not see."""

    def psnr(model: Any) -> Float64[Tensor, " views"]:
        with in_evaluation(model):
            found = [psnr_of_view(model, *pipeline.view("train", view)) for view in views]
        return torch.tensor(found, dtype=torch.float64)

    return HeldOut(f"{len(views)} training views that the cut was not judged by", psnr)
