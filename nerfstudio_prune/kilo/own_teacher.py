"""A teacher of a run's own, where none is given: trained before the first step, in one process, and saved beside."""

import time
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.engine.config_file import ConfigFileError, read_config_file
from nerfstudio_prune.engine.host import generators_kept, reset_host, seed_host
from nerfstudio_prune.kilo.scene import same_scene

METHOD = "nerf-prune-demo"
"""The method of the teacher: small enough for a CPU."""


def make_teacher(config: TrainerConfig, steps: int, device: torch.device) -> Path:
    """Trains a teacher on the views of a run that is about to begin. Generators are left as they were.

    It is a run of its own, in a folder that was not there before; `ns-eval` measures it as any other.

    Args:
        config: Configuration of the run that needs it.
        steps: Training steps.
        device: Where that run lives.

    Returns:
        The teacher's config.yml.
    """
    own = teacher_config(config, steps)
    file = own.get_base_dir().absolute() / "config.yml"
    CONSOLE.print(
        f"KiloNeRF: no --pipeline.teacher is given; one is trained first, {steps:,} steps of {METHOD} without pruning",
        soft_wrap=True,
    )
    start = time.perf_counter()
    with generators_kept(device):
        reset_host()
        seed_host(own.machine.seed)
        try:
            own.save_config()
            trainer = own.setup(local_rank=0, world_size=1)
            trainer.setup()
            trainer.train()
        finally:
            # The run itself sets its writers up when it has its teacher.
            reset_host()
    CONSOLE.print(
        f"KiloNeRF: the teacher is trained, in {time.perf_counter() - start:,.0f} s: {escape(str(file))}",
        soft_wrap=True,
    )
    return file


def teacher_config(config: TrainerConfig, steps: int) -> Any:
    """Configuration of such a teacher: scene, seed and machine are those of the run.

    Args:
        config: Configuration of the run that needs it.
        steps: Training steps.
    """
    # The host's table holds our methods as well, whose modules import this one.
    from nerfstudio.configs.method_configs import all_methods  # noqa: PLC0415

    own: Any = deepcopy(all_methods[METHOD])
    own.machine, own.logging = deepcopy(config.machine), deepcopy(config.logging)
    own.output_dir, own.experiment_name, own.vis = config.output_dir, config.experiment_name, "tensorboard"
    own.max_num_iterations = steps
    # Who wants to know how good it is has `ns-eval`; here it would only take time.
    own.steps_per_eval_batch = own.steps_per_eval_image = own.steps_per_eval_all_images = 0
    pipeline: Any = config.pipeline
    own.pipeline.compute = deepcopy(pipeline.compute)
    own.pipeline.prune.strategy = "none"
    same_scene(pipeline.datamanager, own.pipeline.datamanager)
    own.timestamp = f"{config.timestamp}-teacher"
    for number in count(2):
        if not own.get_base_dir().exists():
            break
        own.timestamp = f"{config.timestamp}-teacher-{number}"
    return own


def note_teacher(config: TrainerConfig, teacher: Path) -> None:
    """Lets a run's config.yml name its teacher.

    Args:
        config: Configuration of the run. What the host made of its options does not all go into a file.
        teacher: The teacher's config.yml.
    """
    file = config.get_base_dir() / "config.yml"
    if file.is_file():
        saved: Any = read_config_file(file)
        saved.pipeline.teacher = teacher
        saved.save_config()


def former_teacher(config: TrainerConfig) -> Optional[Path]:
    """The teacher of the run whose checkpoint a run goes on from: its config.yml names it.

    Args:
        config: Configuration of the run that goes on.

    Returns:
        The teacher's config.yml; None if that cannot be told.
    """
    folder = config.load_dir or (config.load_checkpoint and config.load_checkpoint.parent)
    if folder is None:
        return None
    try:
        former: Any = read_config_file(folder.absolute().parent / "config.yml")
    except (OSError, ConfigFileError):
        return None
    return getattr(former.pipeline, "teacher", None)
