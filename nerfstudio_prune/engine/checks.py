"""Checks the host's own options that would end in a crash, in memory that is not there or in NaN: its dataclasses have
types and no ranges."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Optional

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.engine.options import MAX_STEPS, PREFIX, Rule, above, at_least
from nerfstudio_prune.engine.typed import hints_of, typed_value

MAX_RAYS = 2**20
"""Rays of one batch."""

TRAINER_RULES: Sequence[Rule] = (
    (("max_num_iterations",), *at_least(1, MAX_STEPS)),
    (
        ("steps_per_save", "steps_per_eval_batch", "steps_per_eval_image", "steps_per_eval_all_images"),
        *at_least(0, MAX_STEPS),
    ),
    (
        ("gradient_accumulation_steps",),
        lambda value: all(1 <= steps <= MAX_STEPS for steps in value.values()),
        "names of optimizers with numbers of at least 1",
    ),
)
MACHINE_RULES: Sequence[Rule] = ((("seed",), *at_least(0, 2**32 - 1)),)
"""Numpy takes no other seeds."""
LOGGING_RULES: Sequence[Rule] = ((("steps_per_log", "max_buffer_size"), *at_least(1, MAX_STEPS)),)
"""The host takes steps modulo the one, and makes room by the other in a list that is empty at first."""
WRITER_RULES: Sequence[Rule] = ((("max_log_size",), *at_least(0, MAX_STEPS)),)
DATA_RULES: Sequence[Rule] = (
    (("train_num_rays_per_batch", "eval_num_rays_per_batch"), *at_least(1, MAX_RAYS)),
    (
        ("train_num_images_to_sample_from", "eval_num_images_to_sample_from"),
        lambda value: value == -1 or 1 <= value <= 10**6,
        "-1 or at least 1",
    ),
    (
        ("train_num_times_to_repeat_images", "eval_num_times_to_repeat_images"),
        lambda value: -1 <= value <= MAX_STEPS,
        "at least -1",
    ),
    (("camera_res_scale_factor",), *above(0, 16)),
    (("patch_size",), *at_least(1, 1024)),
    (("max_thread_workers",), *at_least(1, 1024)),
    (("train_cameras_sampling_seed",), *at_least(0, 2**32 - 1)),
    (("fps_reset_every",), *at_least(1, MAX_STEPS)),
    (("cache_images", "cache_images_type", "train_cameras_sampling_strategy"), lambda value: True, "one of its words"),
)
RATE_RULES: Sequence[Rule] = (
    (("lr",), *at_least(0, 1)),
    (("eps", "weight_decay", "lr_pre_warmup", "learning_rate_alpha", "gamma"), *at_least(0, 1)),
    (("max_norm", "lr_final"), *above(0, 10**6)),
    (("warmup_steps", "warm_up_end"), *at_least(0, MAX_STEPS)),
    (("max_steps", "rate_steps", "warmup_run"), *at_least(1, MAX_STEPS)),
)
"""Of optimizers and schedulers, whatever their class is."""


def check_values(config: Any, prefix: str, rules: Sequence[Rule]) -> None:
    """Checks types and ranges of a dataclass of the host; names that it does not have are passed over.

    Args:
        config: The dataclass.
        prefix: What stands before an option's name on the command line.
        rules: Names, what holds for them, and that in words.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    hints = hints_of(type(config))
    known = {f.name for f in fields(config)}
    for names, holds, expected in rules:
        for name in (name for name in names if name in known):
            value = typed_value(prefix + name, getattr(config, name), hints[name])
            if value is not None and not holds(value):
                raise ValueError(f"{prefix}{name} must be {expected}, got {shown(value)}")


def check_training(config: Any) -> None:
    """Checks the options of a trainer, its optimizers and schedulers.

    Args:
        config: The host's `TrainerConfig`.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    check_values(config.machine, "machine.", MACHINE_RULES)
    check_values(config.logging, "logging.", LOGGING_RULES)
    check_values(config.logging.local_writer, "logging.local_writer.", WRITER_RULES)
    check_values(config, "", TRAINER_RULES)
    for prefix, part in _rates(config.optimizers):
        check_values(part, prefix, RATE_RULES)


def check_recovery_rate(option: str, factor: float, optimizers: Any) -> None:
    """Checks that the learning rate with its factor is one that `recovery_lr` could be, too.

    Args:
        option: Name of the option.
        factor: Its value.
        optimizers: The host's optimizers.

    Raises:
        ValueError: Names the options.
    """
    for name, optimizer in optimizers.optimizers.items():
        for group in optimizer.param_groups:
            rate = group.get("initial_lr", group["lr"])
            if factor > 1 and factor * rate > 1:
                raise ValueError(
                    f"{PREFIX}{option} {factor:g} on the learning rate of optimizers.{name}, {rate:g}, gives "
                    f"{factor * rate:g}; the most is 1"
                )


def check_data(config: Optional[Any]) -> None:
    """Checks the options of a data manager.

    Args:
        config: The host's `DataManagerConfig`, of any class.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    if not is_dataclass(config):
        raise ValueError(f"pipeline.datamanager must be the options of a data manager, got {shown(config)}")
    prefix = "pipeline.datamanager."
    check_values(config, prefix, DATA_RULES)
    patch = getattr(config, "patch_size", 1)
    for name in ("train_num_rays_per_batch", "eval_num_rays_per_batch"):
        rays = getattr(config, name, MAX_RAYS)
        if patch * patch > rays:
            raise ValueError(f"{prefix}patch_size {patch} has more pixels than the {rays} rays of {prefix}{name}")


def _rates(optimizers: Any) -> Iterator[tuple[str, Any]]:
    """Prefix and options of each optimizer and scheduler that is there."""
    for name, parts in optimizers.items():
        for kind, part in parts.items():
            if is_dataclass(part):
                yield f"optimizers.{name}.{kind}.", part
