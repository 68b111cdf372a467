"""From a run of a suite to a configured trainer."""

import ast
import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from nerfstudio_prune.bench.suites import Run, Scale
from nerfstudio_prune.engine.host import reset_host, seed_host
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig, scene_folder

NEVER = 10**9
DATAPARSER = "pipeline.datamanager.dataparser"
RESERVED = (
    "machine.seed",
    "max_num_iterations",
    "load_checkpoint",
    "output_dir",
    "experiment_name",
    "timestamp",
    "vis",
    "pipeline.prune.preset",
    "pipeline.prune.strategy",
    "pipeline.prune.score",
    "pipeline.prune.pruning_ratio",
    "pipeline.prune.start_step",
    "pipeline.prune.num_eval_rays",
)
"""Options that tell the runs of a suite apart, or that its measurements rest on."""
WIDTHS = ("pipeline.model.base_mlp_layer_width", "pipeline.model.head_mlp_layer_width")


@dataclass(frozen=True)
class Scene:
    """Data of a benchmark."""

    name: str
    """Name in records."""
    method: str
    """Nerfstudio method that suits it."""
    dataparser: Any
    """Configuration of its parser."""
    fingerprint: str
    """Tells it from another version of the same scene, wherever its folder lies."""


def find_scene(data: Optional[Path], scale: Scale) -> Scene:
    """Chooses parser and method by the files of a data set.

    Args:
        data: Folder of the data set; None for the built-in scene.
        scale: Its options for the built-in scene.

    Raises:
        ValueError: If the folder holds no data set that is known.
    """
    if data is None:
        parser = DemoDataParserConfig(**scale.demo_options)
        return Scene("demo-data", "nerf-prune", parser, scene_folder(parser).name)
    if (data / "transforms_train.json").is_file():
        return Scene(data.resolve().name, "nerf-prune", BlenderDataParserConfig(data=data), _fingerprint(data))
    if (data / "transforms.json").is_file():
        return Scene(data.resolve().name, "nerf-prune-real", NerfstudioDataParserConfig(data=data), _fingerprint(data))
    raise ValueError(
        f"--data {data}: expected a folder with transforms_train.json (Blender format) or transforms.json (Nerfstudio)"
    )


def _fingerprint(data: Path) -> str:
    """Hash of the cameras and, as a copy at another resolution has the same cameras, of one image."""
    cameras = sorted(data.glob("transforms*.json"))
    content = hashlib.sha256(b"".join(path.read_bytes() for path in cameras))
    images = sorted(path for path in data.glob("*/*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if images:
        content.update(images[0].read_bytes())
    return content.hexdigest()[:16]


def parse_options(options: Mapping[str, str], method: str) -> dict[str, Any]:
    """Options of the method as typed on a command line.

    Args:
        options: Dotted path -> text of a Python literal, or plain text.
        method: Nerfstudio method.

    Raises:
        ValueError: If there is no such option, the suite sets it itself, or the value is of another kind than the one
            it replaces.
    """
    config = deepcopy(all_methods[method])
    parsed = {}
    for typed, text in options.items():
        path = typed.replace("-", "_")
        if path in RESERVED:
            raise ValueError(f"--options {path}: is set by the suite, run by run, and cannot be chosen")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
        old = get_option(config, path)
        if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if old is not None and value is not None and type(old) is not type(value):
            raise ValueError(f"--options {path}: expected {type(old).__name__} like {old!r}, got {text!r}")
        parsed[path] = value
    return parsed


def get_option(config: Any, path: str) -> Any:
    """Value at a dotted path of attributes and dictionary keys.

    Raises:
        ValueError: Names the path and the part that is not there.
    """
    for part in path.split("."):
        try:
            config = config[part] if isinstance(config, dict) else getattr(config, part)
        except (KeyError, AttributeError) as error:
            raise ValueError(f"option {path}: there is no {part!r} in {type(config).__name__}") from error
    return config


def set_option(config: Any, path: str, value: Any) -> None:
    """Replaces the value at a dotted path.

    Raises:
        ValueError: Names the path and the part that is not there.
    """
    get_option(config, path)
    holder, _, name = path.rpartition(".")
    parent = get_option(config, holder) if holder else config
    if isinstance(parent, dict):
        parent[name] = value
    else:
        setattr(parent, name, value)


def run_options(run: Run, scale: Scale, method: str) -> dict[str, Any]:
    """Options of a run that differ from the registered method, by dotted path."""
    # A run of a suite says itself what is pruned, unless a preset is what it measures.
    options = {"pipeline.prune.preset": "paper", **scale.options, **run.options}
    for path in WIDTHS:
        full = options.get(path, get_option(all_methods[method], path))
        if run.width_ratio != 1:
            options[path] = int(full * run.width_ratio + 0.5)  # a half is rounded up, as by the method
    return options


def make_config(
    run: Run, scale: Scale, scene: Scene, steps: int, folder: Path, parent: Optional[Path]
) -> TrainerConfig:
    """Configuration of the trainer.

    Args:
        run: The run.
        scale: Sizes.
        scene: Data.
        steps: Training steps that it takes.
        folder: Where the host saves the run.
        parent: Checkpoint that it goes on from.
    """
    config = deepcopy(all_methods[scene.method])
    config.output_dir, config.experiment_name, config.timestamp = folder, run.name, "run"
    # Any value with a viewer would open a port; TensorBoard's file is the least that the host can be told to write.
    config.vis = "tensorboard"
    config.logging.local_writer.enable = False
    config.machine.seed = run.seed
    config.max_num_iterations = steps
    config.load_checkpoint = parent
    config.steps_per_save = config.steps_per_eval_batch = config.steps_per_eval_image = NEVER
    config.steps_per_eval_all_images = NEVER
    set_option(config, DATAPARSER, deepcopy(scene.dataparser))
    # Quality is measured on whole views here; the controller's own batch of rays would only take time.
    set_option(config, "pipeline.prune.num_eval_rays", 0)
    for path, value in run_options(run, scale, scene.method).items():
        set_option(config, path, value)
    if run.decay is not None:
        share, steps = run.decay
        for optimizer in config.optimizers.values():
            final = optimizer["optimizer"].lr * share
            optimizer["scheduler"] = ExponentialDecaySchedulerConfig(lr_final=final, max_steps=steps)
    return config


def make_trainer(config: TrainerConfig) -> Trainer:
    """A trainer that is ready to train, with seeded generators; its evaluation views are the test views."""
    reset_host()
    seed_host(config.machine.seed)
    trainer: Trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup(test_mode="test")
    return trainer
