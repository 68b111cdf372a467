"""Checks of the options of splatfacto, which has types and no ranges."""

from collections.abc import Sequence
from typing import Any

from nerfstudio_prune.engine.checks import check_data, check_values
from nerfstudio_prune.engine.options import MAX_STEPS, PREFIX, SHARE, Rule, above, at_least
from nerfstudio_prune.raster.gaussians import MAX_SH_DEGREE

RULES: Sequence[Rule] = (
    (("warmup_length", "stop_screen_size_at", "stop_split_at"), *at_least(0, MAX_STEPS)),
    (
        ("refine_every", "resolution_schedule", "reset_alpha_every", "sh_degree_interval", "schedule_steps"),
        *at_least(1, MAX_STEPS),
    ),
    (("num_downscales",), *at_least(0, 8)),
    (("cull_alpha_thresh",), lambda value: 0 < value < 0.5, "in (0, 0.5): opacities are reset to twice of it"),
    (
        ("cull_scale_thresh", "densify_grad_thresh", "densify_size_thresh", "cull_screen_size", "split_screen_size"),
        *at_least(0, 10**6),
    ),
    (("n_split_samples",), lambda value: value == 2, "2: gsplat splits a Gaussian into two"),
    (("num_random",), *at_least(10, 10**8)),
    (("random_scale",), *above(0, 10**6)),
    (("ssim_lambda",), *SHARE),
    (("sh_degree",), lambda value: 0 <= value <= MAX_SH_DEGREE, f"in [0, {MAX_SH_DEGREE}]"),
    (("max_gauss_ratio",), *at_least(1, 10**6)),
    (("grid_shape",), lambda value: all(1 <= size <= 1024 for size in value), "three numbers in [1, 1,024]"),
    (
        (
            "rasterizer",
            "background_color",
            "random_init",
            "use_absgrad",
            "use_scale_regularization",
            "output_depth_during_training",
            "rasterize_mode",
            "use_bilateral_grid",
            "color_corrected_metrics",
            "initial_file",
        ),
        lambda value: True,
        "of its type",
    ),
)


def check_model(config: Any) -> None:
    """Checks the options of the model.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    check_values(config, "pipeline.model.", RULES)


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
    if trains:
        config.prune.check_values()


def check_degree(given: Any, sh_degree: int) -> None:
    """Checks that a degree that is asked for is one that the model can be lowered to.

    Args:
        given: Option `prune.sh_degree` as it was given; None if it was not.
        sh_degree: Degree of the model.

    Raises:
        ValueError: If it is higher.
    """
    if given is not None and given > sh_degree:
        raise ValueError(
            f"{PREFIX}sh_degree {given} is above the {sh_degree} of the model; choose a lower one, or train with a "
            "larger --pipeline.model.sh-degree"
        )
