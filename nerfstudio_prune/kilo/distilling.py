"""From a run that is there to one of `kilonerf`: what is copied, what is checked, what is said at the end."""

import re
import shlex
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from nerfstudio.configs.method_configs import all_methods
from nerfstudio.scripts import train
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.engine.checkpoints import saved_checkpoints
from nerfstudio_prune.engine.checks import check_training
from nerfstudio_prune.kilo.command import Distil
from nerfstudio_prune.kilo.pipeline import KiloPipeline
from nerfstudio_prune.kilo.scene import same_scene
from nerfstudio_prune.kilo.teacher import load_teacher
from nerfstudio_prune.kilonerf.spaces import SpaceName

METHODS: Mapping[SpaceName, str] = {"bounded": "kilonerf", "contracted": "kilonerf-real"}
"""Space that the trained run sees -> method of the new one."""
OPTION = "--load-config"
PLACES = {
    "data": "pipeline.datamanager.dataparser.data",
    "seed": "machine.seed",
    "distil_steps": "pipeline.distil.steps",
    "finetune_steps": "pipeline.finetune.steps",
    "resolution": "pipeline.grid.resolution",
    "hidden_width": "pipeline.grid.hidden_width",
    "target_parameters": "pipeline.grid.target_parameters",
    "target_mb": "pipeline.grid.target_mb",
    "target_macs": "pipeline.grid.target_macs",
    "narrow_to": "pipeline.grid.narrow_to",
}
"""Option of the command -> option of the method, where their names differ."""
COMMANDS = {"measure it": "ns-eval", "look at it": "ns-viewer", "render it": "ns-render dataset"}


def distil(options: Distil) -> None:
    """Trains tiny networks as `ns-train kilonerf` does.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `config_of`.
    """
    config = config_of(options)
    train.main(config)
    # The host ends in the same way when it was interrupted before the first step.
    if saved_checkpoints(config.get_checkpoint_dir()):
        file = config.get_base_dir() / "config.yml"
        lines = {"config": str(file)}
        lines |= {label: f"{name} --load-config {shlex.quote(str(file))}" for label, name in COMMANDS.items()}
        for label, line in lines.items():
            CONSOLE.print(escape(f"{label + ':':12}{line}"), soft_wrap=True)


def config_of(options: Distil) -> Any:
    """Configuration of the run: that of the method, with scene and names of the trained run, and what was given.

    Args:
        options: Options of the command.

    Raises:
        ValueError: If there is no such run, it cannot be learnt from, its data are not there, or an option is out of
            its range. Names the option, what was found and what was expected.
    """
    file = options.load_config
    found = load_teacher(file, "cpu", OPTION)
    teacher: Any = found.config
    config: Any = deepcopy(all_methods[METHODS[found.space.name]])
    config.output_dir, config.experiment_name = teacher.output_dir, teacher.experiment_name
    config.pipeline.teacher = file
    same_scene(teacher.pipeline.datamanager, config.pipeline.datamanager)
    places = {f.name: PLACES.get(f.name, f.name) for f in fields(options) if f.name != "load_config"}
    for name, place in places.items():
        value = getattr(options, name)
        if value is not None:
            holder, _, last = place.rpartition(".")
            setattr(attrgetter(holder)(config) if holder else config, last, value)
    try:
        check_training(config)
        KiloPipeline.check_config(config.pipeline, trains=True)
    except ValueError as error:
        raise ValueError(_as_typed(str(error), places)) from error
    _check_data(config.pipeline.datamanager.dataparser, file)
    return config


def _as_typed(text: str, places: dict[str, str]) -> str:
    """A message about options of the method, in names of the command's."""
    for name, place in places.items():
        text = re.sub(rf"(?<![\w.-]){re.escape(place)}(?![\w.-])", f"--{name.replace('_', '-')}", text)
    return text


def _check_data(dataparser: Any, file: Path) -> None:
    """Reads the training views as the host does, without their pictures."""
    try:
        dataparser.setup().get_dataparser_outputs("train")
    except Exception as error:  # the host's parsers raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        found = "" if dataparser.data.exists() else f"there is no {dataparser.data}; "
        raise ValueError(
            f"{OPTION} {file}: its data cannot be read, {found}{reason}. Expected those that the run was trained on; "
            "give their path with --data where they have moved"
        ) from error
