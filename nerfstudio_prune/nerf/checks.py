"""Checks of options against the data and against each other that need more than one part of a run."""

from typing import Any

from nerfstudio_prune.engine.checks import check_data
from nerfstudio_prune.engine.options import PREFIX
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import check_model

MAX_SAMPLES = 2**26
"""Samples of one training step; at 256 neurons one layer's activations of so many take 69 GB."""


def check_config(config: Any, trains: bool) -> None:
    """Checks options before anything is loaded.

    Args:
        config: Options of the pipeline.
        trains: Whether there is a training to come; a run that is only shown may have pruned by other ranges.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    check_data(config.datamanager)
    check_model(config.model)
    if not trains:
        return
    config.prune.check_values()
    rays, model = getattr(config.datamanager, "train_num_rays_per_batch", 1), config.model
    samples = rays * (2 * model.num_coarse_samples + model.num_importance_samples + 1)
    if samples > MAX_SAMPLES:
        raise ValueError(
            f"pipeline.datamanager.train_num_rays_per_batch {rays} with pipeline.model.num_coarse_samples "
            f"{model.num_coarse_samples} and num_importance_samples {model.num_importance_samples} asks the fields "
            f"at {samples:,} points in a step; the most is {MAX_SAMPLES:,}"
        )


def check_rays(options: PruneConfig, train: Any, evaluation: Any) -> None:
    """Checks that no more rays are asked for than there are pixels; the defaults suit any number of pixels.

    Args:
        options: Options in force.
        train: Training views, if there are any.
        evaluation: Evaluation views, if there are any.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    standard = PruneConfig().filled()
    for name, views, what in (
        ("calibration_rays", train, "training"),
        ("num_eval_rays", evaluation, "evaluation"),
    ):
        rays = getattr(options, name)
        if not views or rays <= getattr(standard, name):
            continue
        pixels = int((views.cameras.height * views.cameras.width).sum())
        if rays > pixels:
            raise ValueError(
                f"{PREFIX}{name} must be at most the number of pixels, {pixels:,} in {len(views)} {what} views; got "
                f"{rays}"
            )
