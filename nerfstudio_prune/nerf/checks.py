"""Checks of options against the data and against each other that need more than one part of a run."""

from typing import Any

from nerfstudio_prune.engine.options import PREFIX
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModelConfig

MAX_SAMPLES = 2**26
"""Samples of one training step; at 256 neurons one layer's activations of so many take 69 GB."""


def check_batch(rays: Any, config: PruneModelConfig) -> None:
    """Checks that a training step fits into any memory.

    Args:
        rays: Training rays of a step.
        config: Options of the model.

    Raises:
        ValueError: Names the options.
    """
    samples = rays * (2 * config.num_coarse_samples + config.num_importance_samples + 1)
    if samples > MAX_SAMPLES:
        raise ValueError(
            f"pipeline.datamanager.train_num_rays_per_batch {rays} with pipeline.model.num_coarse_samples "
            f"{config.num_coarse_samples} and num_importance_samples {config.num_importance_samples} asks the fields "
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
