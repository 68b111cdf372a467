"""The host's own options: its dataclasses have types and no ranges, and not only its parser fills them."""

import math
from copy import deepcopy
from typing import Any

import pytest
from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig, MachineConfig
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.engine.optimizers import RAdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.engine.checks import check_data, check_training

PARTS: dict[str, Any] = {"optimizer": RAdamOptimizerConfig(), "scheduler": ExponentialDecaySchedulerConfig()}


def trainer(**options: Any) -> TrainerConfig:
    """Options of a trainer."""
    return TrainerConfig(
        optimizers={"fields": deepcopy(PARTS), "others": {"optimizer": RAdamOptimizerConfig()}}, **options
    )


def rates(part: str, **values: Any) -> TrainerConfig:
    """Options of a trainer with other ones of its optimizer or scheduler."""
    config = trainer()
    for name, value in values.items():
        setattr(config.optimizers["fields"][part], name, value)
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (trainer(max_num_iterations=0), "max_num_iterations must be in [1, 1,000,000,000], got 0"),
        (trainer(max_num_iterations="9"), "max_num_iterations must be a whole number, got '9'"),
        (trainer(steps_per_save=-1), "steps_per_save must be in [0, 1,000,000,000], got -1"),
        (trainer(gradient_accumulation_steps={"fields": 0}), "gradient_accumulation_steps must be names of optimizers"),
        (trainer(machine=MachineConfig(seed=-1)), "machine.seed must be in [0, 4,294,967,295], got -1"),
        (trainer(machine=MachineConfig(seed=2**32)), "machine.seed must be in [0, 4,294,967,295], got 4294967296"),
        (trainer(logging=LoggingConfig(steps_per_log=0)), "logging.steps_per_log must be in [1, 1,000,000,000], got 0"),
        (trainer(logging=LoggingConfig(max_buffer_size=0)), "logging.max_buffer_size must be in [1, 1,000,000,000]"),
        (
            trainer(logging=LoggingConfig(local_writer=LocalWriterConfig(max_log_size=-1))),
            "logging.local_writer.max_log_size must be in [0, 1,000,000,000], got -1",
        ),
        (rates("optimizer", lr=math.inf), "optimizers.fields.optimizer.lr must be a finite number, got inf"),
        (rates("optimizer", lr=math.nan), "optimizers.fields.optimizer.lr must be a finite number, got nan"),
        (rates("optimizer", lr=1e30), "optimizers.fields.optimizer.lr must be in [0, 1], got 1e+30"),
        (rates("optimizer", eps=-1e-8), "optimizers.fields.optimizer.eps must be in [0, 1], got -1e-08"),
        (rates("optimizer", max_norm=0.0), "optimizers.fields.optimizer.max_norm must be in (0, 1,000,000], got 0.0"),
        (rates("scheduler", max_steps=0), "optimizers.fields.scheduler.max_steps must be in [1, 1,000,000,000], got 0"),
        (rates("scheduler", lr_final=0.0), "optimizers.fields.scheduler.lr_final must be in (0, 1,000,000], got 0.0"),
    ],
)
def test_trainer_that_cannot_train(config: Any, message: str) -> None:
    """A rate of infinity trains to NaN without a word, a decay to zero is NaN from the first step, a schedule of no
    steps divides by zero."""
    with pytest.raises(ValueError) as caught:
        check_training(config)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_num_rays_per_batch": 0}, "train_num_rays_per_batch must be in [1, 1,048,576], got 0"),
        ({"eval_num_rays_per_batch": 10**12}, "eval_num_rays_per_batch must be in [1, 1,048,576], got 1000000000000"),
        ({"train_num_images_to_sample_from": 0}, "train_num_images_to_sample_from must be -1 or at least 1, got 0"),
        ({"camera_res_scale_factor": 0.0}, "camera_res_scale_factor must be in (0, 16], got 0.0"),
        ({"camera_res_scale_factor": math.nan}, "camera_res_scale_factor must be a finite number, got nan"),
        ({"patch_size": 64}, "patch_size 64 has more pixels than the 1024 rays"),
        (
            {"patch_size": 5, "eval_num_rays_per_batch": 24},
            "patch_size 5 has more pixels than the 24 rays of pipeline.datamanager.eval_num_rays_per_batch",
        ),
    ],
)
def test_data_that_cannot_be_drawn(options: dict[str, Any], message: str) -> None:
    """The host's samplers fail far from here, with shapes in the message and no option."""
    with pytest.raises(ValueError) as caught:
        check_data(VanillaDataManagerConfig(**options))
    assert str(caught.value).startswith(f"pipeline.datamanager.{message}")


def test_sensible_options_pass() -> None:
    """The registered methods, and the limits of each range."""
    for name in ("nerf-prune", "nerf-prune-demo", "nerf-prune-real", "vanilla-nerf"):
        check_training(all_methods[name])
        check_data(all_methods[name].pipeline.datamanager)
    check_training(trainer(max_num_iterations=1, steps_per_save=0))
    check_training(rates("optimizer", lr=1.0, max_norm=None))
    check_data(VanillaDataManagerConfig(patch_size=32, train_num_images_to_sample_from=1))
