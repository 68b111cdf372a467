"""From a run of the suite of Gaussians to a configured trainer."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from nerfstudio_prune.bench.machine import PACKAGES, describe_machine
from nerfstudio_prune.bench.setup import Scene, find_scene, make_trainer, prepare_config, set_option
from nerfstudio_prune.bench.splat_suite import METHOD, PHOTO_STEPS, SplatJob, SplatRun, SplatScale, splat_schedule_text
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splats.views import view_of

SPLAT_PACKAGES = (*PACKAGES, "gsplat", "numba")
TEST_INTERVAL = 8
"""Of photographs without a split of their own every 8th is left out of the training, and is a test view."""
RESERVED = (
    "machine.seed",
    "max_num_iterations",
    "load_checkpoint",
    "output_dir",
    "experiment_name",
    "timestamp",
    "vis",
    "pipeline.compute.num_threads",
    "pipeline.compute.matmul_precision",
    "pipeline.model.num_random",
    "pipeline.prune.preset",
    "pipeline.prune.strategy",
    "pipeline.prune.score",
    "pipeline.prune.rounds",
    "pipeline.prune.pruning_ratio",
    "pipeline.prune.start_step",
    "pipeline.prune.sh_degree",
    "pipeline.prune.sh_step",
)
"""Options that tell the runs of the suite apart."""


def find_splat_scene(data: Optional[Path], scale: SplatScale) -> tuple[Scene, SplatScale]:
    """Chooses the parser by the files of a data set.

    Args:
        data: Folder of the data set; None for the built-in scene.
        scale: Sizes.

    Returns:
        The scene, and the scale as it is for scenes of its kind.

    Raises:
        ValueError: If the folder holds no data set that is known.
    """
    scene = replace(find_scene(data, scale), method=METHOD)
    if not isinstance(scene.dataparser, NerfstudioDataParserConfig):
        return scene, scale
    parser = replace(scene.dataparser, load_3D_points=True, eval_mode="interval", eval_interval=TEST_INTERVAL)
    return replace(scene, dataparser=parser), replace(scale, **PHOTO_STEPS.get(scale.name, {}))


def make_splat_trainer(
    name: str,
    seed: int,
    options: Mapping[str, Any],
    scene: Scene,
    steps: int,
    folder: Path,
    checkpoint: Optional[Path],
) -> Trainer:
    """A trainer that is ready to train.

    Args:
        name: Name of the run.
        seed: Its seed.
        options: Options that differ from the registered method, by dotted path.
        scene: Data.
        steps: Training steps that it takes.
        folder: Folder of the benchmark.
        checkpoint: Checkpoint that it goes on from.
    """
    config = _config(name, seed, options, scene, folder)
    config.max_num_iterations = steps
    config.load_checkpoint = checkpoint
    return make_trainer(config)


def saved_splat_config(run: SplatRun, scale: SplatScale, scene: Scene, folder: Path) -> Path:
    """The config.yml of a run that was carried out, as `ns-train` would have written it.

    Args:
        run: The run, uncapped.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
    """
    config = _config(run.name, run.seed, {**scale.options, **run.options}, scene, folder)
    config.save_config()
    return config.get_base_dir() / "config.yml"


def _config(name: str, seed: int, options: Mapping[str, Any], scene: Scene, folder: Path) -> TrainerConfig:
    config = deepcopy(all_methods[scene.method])
    prepare_config(config, name, seed, scene, folder / "work" / "runs")
    for path, value in options.items():
        set_option(config, path, value)
    return config


def record_fields(
    job: SplatJob,
    scale: SplatScale,
    scene: Scene,
    options: Mapping[str, Any],
    device: torch.device,
    identity: Mapping[str, str],
) -> dict[str, Any]:
    """What records of all kinds of jobs say alike.

    Args:
        job: The job.
        scale: Sizes.
        scene: Data.
        options: Options that differ from the registered method, by dotted path.
        device: Where the model lives.
        identity: `digest` and `command`.
    """
    return {
        "name": job.name,
        "seed": job.seed,
        "method": scene.method,
        "data": type(scene.dataparser).__name__.removesuffix("Config"),
        "scene": scene.name,
        "scale": scale.name,
        "schedule": splat_schedule_text(scale),
        "config": dict(options),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(device, SPLAT_PACKAGES),
        "digest": identity["digest"],
        "command": identity["command"],
    }


def warm_up(pipeline: Any) -> None:
    """Compiles what is compiled once on a machine, so that no measurement of time holds it.

    Args:
        pipeline: One whose model can render; nothing of it is changed.
    """
    model = pipeline.model
    few = model.gaussians.detach().select(torch.arange(min(10, model.num_points)))
    few = Gaussians.of({name: tensor.clone().requires_grad_() for name, tensor in few.items()})
    view = view_of(pipeline.view("train", 0)[0])
    degree, antialiased = few.sh_degree, model.config.rasterize_mode == "antialiased"
    for absgrad in (False, True):
        rendering = model.rasterizer.render(few, view, degree, antialiased=antialiased, depth=True, absgrad=absgrad)
        rendering.colors.sum().backward()
    background = model.behind.to(model.device)
    model.rasterizer.contributions(few.detach(), view, degree, background, antialiased=antialiased)
