"""From a run of a suite to a configured trainer."""

import hashlib
import json
import shlex
from collections.abc import Collection, Mapping
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Optional, Protocol, get_type_hints

import torch
import tyro
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from nerfstudio_prune.bench.suites import Run, Scale
from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.engine.compute import ComputeConfig
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
    "pipeline.compute.num_threads",
    "pipeline.compute.matmul_precision",
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


class HasDemo(Protocol):
    """Sizes of a suite, of networks or of Gaussians."""

    @property
    def demo_options(self) -> Mapping[str, Any]:
        """Options of the built-in scene."""
        ...


def find_scene(data: Optional[Path], scale: HasDemo) -> Scene:
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


def parse_options(options: Mapping[str, str], method: str, reserved: Collection[str] = RESERVED) -> dict[str, Any]:
    """Options of the method as typed on a command line.

    Args:
        options: Dotted path -> value as `ns-train` takes it; of several words as in a shell, e.g. `2 4` for a tuple.
        method: Nerfstudio method.
        reserved: Options that the suite sets itself.

    Raises:
        ValueError: If there is no such option, the suite sets it itself, or the value is of another kind than the
            option takes, or of one that no record can hold.
    """
    config = suite_config(method)
    parsed = {}
    for typed, text in options.items():
        path = typed.replace("-", "_")
        if path in reserved:
            raise ValueError(f"--options {path}: is set by the suite, run by run, and cannot be chosen")
        old = get_option(config, path)
        if is_dataclass(old) or (isinstance(old, dict) and any(is_dataclass(part) for part in old.values())):
            raise ValueError(f"--options {path}: is a group of options ({type(old).__name__}); choose one of them")
        kind = _declared_type(config, path)
        try:
            value = _parse_value(kind, text)
        except ValueError as error:
            expected = getattr(kind, "__name__", "") if isinstance(kind, type) else str(kind).replace("typing.", "")
            raise ValueError(f"--options {path}: expected {expected} like {_as_typed(old)}, got {text!r}") from error
        try:
            json.dumps(value)
        except TypeError as error:
            raise ValueError(
                f"--options {path}: expected an option whose value a record can hold, got a {type(value).__name__}"
            ) from error
        parsed[path] = value
    return parsed


def _declared_type(config: Any, path: str) -> Any:
    """Type of the value at a dotted path; an entry of a dictionary is None or of the type that it has."""
    holder, _, name = path.rpartition(".")
    parent = get_option(config, holder) if holder else config
    if isinstance(parent, dict):
        return Optional[type(parent[name])]
    return get_type_hints(type(parent), include_extras=True).get(name, Any)


def _parse_value(kind: Any, text: str) -> Any:
    """Reads a value of a type from a command line.

    Raises:
        ValueError: If the text is none of that type, or values of that type cannot be typed.
    """
    words = shlex.split(text) or [""]
    said = StringIO()
    # Python's spelling is not everybody's, but a word may also be a choice as it stands.
    for spelling in (words, [word.title() if word.lower() in ("true", "false", "none") else word for word in words]):
        try:
            # It prints what is wrong with a command line that nobody typed.
            with redirect_stdout(said), redirect_stderr(said):
                return tyro.cli(tyro.conf.FlagConversionOff[kind], args=spelling, add_help=False)
        except (SystemExit, AssertionError):  # the latter for types that it knows nothing of
            continue
    raise ValueError(said.getvalue())


def _as_typed(value: Any) -> str:
    """How a value stands on a command line."""
    if isinstance(value, dict):
        value = [word for entry in value.items() for word in entry]
    return shlex.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def get_option(config: Any, path: str) -> Any:
    """Value at a dotted path of attributes and dictionary keys.

    Raises:
        ValueError: Names the path and the part that is not there.
    """
    for part in path.split("."):
        try:
            config = config[part] if isinstance(config, dict) else getattr(config, part)
        except (KeyError, AttributeError) as error:
            names = sorted(config) if isinstance(config, dict) else _option_names(config)
            there = f"there is {', '.join(names)}" if names else "that has no options"
            raise ValueError(f"option {path}: there is no {part!r} in {type(config).__name__}; {there}") from error
    return config


def _option_names(config: Any) -> list[str]:
    return [f.name for f in fields(config) if not f.name.startswith("_")] if is_dataclass(config) else []


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


def suite_config(method: str) -> Any:
    """A copy of a registered method with constant learning rates: the runs of a suite say themselves how they decay.

    Args:
        method: Nerfstudio method.
    """
    config = deepcopy(all_methods[method])
    for optimizer in config.optimizers.values():
        optimizer["scheduler"] = None
    return config


def run_options(run: Run, scale: Scale, method: str) -> dict[str, Any]:
    """Options of a run that differ from the registered method, by dotted path."""
    # A run of a suite says itself what is pruned, unless a preset is what it measures.
    options = {"pipeline.prune.preset": "paper", **scale.options, **run.options}
    for path in WIDTHS:
        full = options.get(path, get_option(all_methods[method], path))
        if run.width_ratio != 1:
            options[path] = int(full * run.width_ratio + 0.5)  # a half is rounded up, as by the method
    return options


def prepare_config(config: Any, name: str, seed: int, scene: Scene, folder: Path) -> None:
    """What the runs of all suites have: a place, a seed and data; nothing is shown, saved or evaluated on the way.

    Args:
        config: Configuration of the trainer; changed in place.
        name: Name of the run.
        seed: Its seed.
        scene: Data.
        folder: Where the host saves the run.
    """
    config.output_dir, config.experiment_name, config.timestamp = folder, name, "run"
    # Any value with a viewer would open a port; TensorBoard's file is the least that the host can be told to write.
    config.vis = "tensorboard"
    config.logging.local_writer.enable = False
    config.machine.seed = seed
    config.steps_per_save = config.steps_per_eval_batch = config.steps_per_eval_image = NEVER
    config.steps_per_eval_all_images = NEVER
    set_option(config, DATAPARSER, deepcopy(scene.dataparser))


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
    config = suite_config(scene.method)
    prepare_config(config, run.name, run.seed, scene, folder)
    config.max_num_iterations = steps
    config.load_checkpoint = parent
    # Quality is measured on whole views here; the controller's own batch of rays would only take time.
    set_option(config, "pipeline.prune.num_eval_rays", 0)
    for path, value in run_options(run, scale, scene.method).items():
        set_option(config, path, value)
    if run.decay is not None:
        share, length = run.decay
        for optimizer in config.optimizers.values():
            final = optimizer["optimizer"].lr * share
            optimizer["scheduler"] = ExponentialDecaySchedulerConfig(lr_final=final, max_steps=length or steps)
    return config


class _Look(CheckedDataManager):
    """The views of a data set, looked at as in a training and not loaded."""

    def setup_train(self) -> None:
        """Looks at all views."""
        self.look()

    def setup_eval(self) -> None:
        """Loads nothing."""


def check_data(scene: Scene, scale: Scale) -> None:
    """Refuses data that no run could train on or be measured on: once, before the first of them.

    Args:
        scene: Data.
        scale: Sizes and options.

    Raises:
        ValueError: Says what is wrong with which files, or why there are no evaluation views.
    """
    config = make_config(Run("look", 0, "dense", 1), scale, scene, 1, Path(), None).pipeline.datamanager
    look = _Look(config, test_mode="test")  # type: ignore[arg-type]
    if not look.eval_dataset:
        raise ValueError(f"--data: there are no evaluation views to measure the runs on: {look.no_evaluation}")


def make_trainer(config: TrainerConfig) -> Trainer:
    """A trainer that is ready to train, with seeded generators; its evaluation views are the test views.

    Threads and precision of products are those of the command: chosen by each run, they would differ between arms.
    """
    set_option(config, "pipeline.compute", ComputeConfig(torch.get_num_threads(), "highest"))
    return ready_trainer(config)


def ready_trainer(config: TrainerConfig) -> Trainer:
    """A trainer that is ready to train, with seeded generators; its evaluation views are the test views.

    Args:
        config: Configuration of it.
    """
    reset_host()
    seed_host(config.machine.seed)
    trainer: Trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup(test_mode="test")
    return trainer
