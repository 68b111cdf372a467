"""Runs of `nerf-prune` and of the stock `vanilla-nerf`."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.apply.configuration import check_data_manager, own_config
from nerfstudio_prune.apply.opened import Asked, Opened
from nerfstudio_prune.apply.quality import NOTHING, HeldOut
from nerfstudio_prune.apply.rays import held_out_rays
from nerfstudio_prune.apply.training import optimizers_of, with_training
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.data.held_out import split_views
from nerfstudio_prune.data.pixels import CountedDataset
from nerfstudio_prune.data.reading import read_views
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.engine.saved_run import find_checkpoint
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.empty_space import OccupancySchedule
from nerfstudio_prune.nerf.finished import sized, without_recovery
from nerfstudio_prune.nerf.model import PruneModelConfig
from nerfstudio_prune.nerf.pipeline import PrunePipelineConfig, space_of
from nerfstudio_prune.nerf.presets import TARGETS
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.saved_run import build_model, load_network, model_options
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.neurons.samples import Samples

METHOD = "nerf-prune"
"""What a run of the stock method goes on as."""
NEED = (
    "Without data, give --prune strategy importance refit merge with a pruning-ratio or a width, whose scores are read "
    "off the weights"
)


class Networks:
    """Neurons of both fields."""

    methods: Sequence[str] = (METHOD, "vanilla-nerf")
    targets: Collection[str] = {*TARGETS, "coarse", "fine", "edge_threshold", "edge_keep_fraction"}

    def takes(self, config: TrainerConfig) -> bool:
        """Whether a configuration is one of such a run."""
        return model_options(config) is not None

    def options(self) -> PruneConfig:
        """Options of pruning of which none is given."""
        return PruneConfig()

    def without_recovery(self, options: PruneConfig, pixels: int) -> PruneConfig:
        """Options with more calibration samples and less of a budget for the coarse field."""
        return without_recovery(options, pixels)

    def open(self, config: TrainerConfig, path: Path, asked: Asked) -> Opened:
        """Opens a run, with its training views where they are there.

        Raises:
            ValueError: See `Kind.open`; also where data are given and cannot be read.
        """
        options = model_options(config)
        assert options is not None
        own = _config_of(config, options, path)
        checkpoint = with_training(find_checkpoint(config, path, asked.step))
        model = build_model(options, path, len(checkpoint.content["pipeline"]))
        load_network(model, checkpoint)
        model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        optimizers = optimizers_of(own, model, checkpoint)
        dataset, reason = _training_views(own.pipeline.datamanager, asked.data)
        judged: Optional[CountedDataset] = None
        held_out: HeldOut = NOTHING
        pixels = 0
        if dataset is not None:
            views, back = split_views(len(dataset))
            judged, held_out = dataset.subset(views), held_out_rays(dataset, back, asked.rays)
            model.empty_space.space = space_of(options, dataset)
            pixels = int((judged.cameras.height * judged.cameras.width).sum())

        def calibrate(calibration: Calibration, seed: int) -> Mapping[str, Samples]:
            if judged is None:
                raise ValueError(f"the cut is judged by training rays, and there are none: {reason}. {NEED}")
            return collect_samples(model, judged, calibration, seed)

        def listeners(run: PruneRun) -> Sequence[Listener]:
            return [OccupancySchedule(model, run)] if options.skip_empty_space else []

        return Opened(
            checkpoint,
            own,
            model,
            optimizers,
            "optimizers" in checkpoint.content,
            lambda chosen: subject_of(chosen.strategy, model, calibrate),
            listeners,
            held_out,
            reason,
            pixels,
        )

    def sized(self, subject: Subject[Any], options: PruneConfig, share: float) -> PruneConfig:
        """Options with a budget of parameters.

        Raises:
            ValueError: If the smallest widths have more.
        """
        return sized(subject, options, share)


def _config_of(config: TrainerConfig, options: PruneModelConfig, path: Path) -> Any:
    """Configuration of the new run."""
    check_data_manager(config, VanillaDataManagerConfig, (VanillaDataManager, CheckedDataManager), path)
    own = own_config(config, None if isinstance(config.pipeline, PrunePipelineConfig) else METHOD, options, path)
    own.pipeline.datamanager._target = CheckedDataManager
    return own


def _training_views(datamanager: Any, data: Optional[Path]) -> tuple[Optional[CountedDataset], str]:
    """The training views, or why there are none."""
    try:
        _, dataset = read_views(datamanager, data, "train")
        if not len(dataset):
            raise ValueError(f"{datamanager.dataparser.data}: no training views")
        datamanager.data = None  # the host's other name for the parser's, which would win
    except ValueError as error:
        if data is not None:
            raise ValueError(f"--data {error}") from error
        return None, f"{str(error).rstrip('.')}. Give the path of the data with --data where they have moved"
    return dataset, ""
