"""From a job of the suite of tiny networks to a configured run; and from a recorded run to its file."""

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.bench.file_jobs import FileRun, TinyFileRun
from nerfstudio_prune.bench.kilo_jobs import KiloRun, KiloSpeed
from nerfstudio_prune.bench.machine import describe_machine
from nerfstudio_prune.bench.setup import NEVER, Scene, make_config, prepare_config, set_option
from nerfstudio_prune.bench.suites import Run, Scale, schedule_text
from nerfstudio_prune.records.kilo_schema import KiloRecord

METHODS: Mapping[str, str] = {"nerf-prune": "kilonerf", "nerf-prune-real": "kilonerf-real"}
"""Method of a teacher -> that of tiny networks of it."""


def student_config(job: KiloRun, scene: Scene, folder: Path, teacher: Path) -> TrainerConfig:
    """Configuration of a run of tiny networks.

    Args:
        job: The job.
        scene: Data.
        folder: Folder of the benchmark.
        teacher: The teacher's config.yml.
    """
    config = deepcopy(all_methods[METHODS[scene.method]])
    prepare_config(config, job.name, job.seed, scene, folder / "work" / "runs")
    set_option(config, "pipeline.teacher", teacher)
    for path, value in job.options.items():
        set_option(config, path, value)
    return config


def saved_config(run: Run, scale: Scale, scene: Scene, folder: Path) -> Path:
    """The config.yml of a run of networks that was carried out, as `ns-train` would have written it.

    Args:
        run: The run.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
    """
    config = make_config(run, scale, scene, NEVER, folder / "work" / "runs", None)
    config.save_config()
    return config.get_base_dir() / "config.yml"


def saved_student_config(job: KiloRun, scene: Scene, folder: Path, teacher: Path) -> Path:
    """The config.yml of a run of tiny networks that was carried out, written anew: that of an earlier version may hold
    what cannot be read safely.

    Args:
        job: The job.
        scene: Data.
        folder: Folder of the benchmark.
        teacher: The teacher's config.yml.
    """
    config = student_config(job, scene, folder, teacher)
    config.save_config()
    return config.get_base_dir() / "config.yml"


def recorded_config(record: KiloRecord, folder: Path) -> Path:
    """The config.yml of a run of tiny networks that was carried out.

    Args:
        record: Its record.
        folder: Folder of the benchmark.
    """
    return folder / "work" / "runs" / record.name / record.method / "run" / "config.yml"


def teacher_schedule(teacher: Run, scale: Scale) -> str:
    """How a teacher was trained, in words.

    Args:
        teacher: The run.
        scale: Sizes.
    """
    return schedule_text(teacher, scale) or f"{scale.steps:,} steps"


def kilo_fields(
    job: KiloRun | KiloSpeed | FileRun | TinyFileRun,
    scale: Scale,
    scene: Scene,
    method: str,
    config: Mapping[str, Any],
    device: torch.device,
    identity: Mapping[str, str],
) -> dict[str, Any]:
    """What records of all kinds of jobs with networks in them say alike.

    Args:
        job: The job.
        scale: Sizes.
        scene: Data.
        method: Method of the run.
        config: Options that differ from the registered method, by dotted path.
        device: Where the model lives.
        identity: `digest` and `command`.
    """
    return {
        "name": job.name,
        "seed": job.seed,
        "method": method,
        "data": type(scene.dataparser).__name__.removesuffix("Config"),
        "scene": scene.name,
        "scale": scale.name,
        "config": dict(config),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(device),
        "digest": identity["digest"],
        "command": identity["command"],
    }
