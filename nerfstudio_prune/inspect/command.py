"""`ns-prune inspect`: what the network of a run is, and what pruning did to it and has yet to do. Loads no data set."""

import pickle
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import msgspec
import torch
import yaml
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig
from nerfstudio.utils.rich_utils import CONSOLE

import nerfstudio_prune.nerf.pipeline  # noqa: F401  it lets torch read the numbers in the host's checkpoints
from nerfstudio_prune.inspect.inspection import Inspection, inspect_model
from nerfstudio_prune.inspect.tables import all_tables
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig
from nerfstudio_prune.neurons.scores import needs_of, score_by_name, weight_scores


class InspectError(ValueError):
    """A run that cannot be inspected. The message names the file and what was expected."""


@dataclass
class Inspect:
    """Show the network of a run: widths, costs, sparsity, scores, and the history and plan of its pruning."""

    load_config: Path
    """The run's config.yml, as for ns-eval."""
    step: Optional[int] = None
    """Step of the checkpoint. None: the newest one."""
    score: tuple[str, ...] = ("w_out",)
    """Scores of the neurons to show: w_in, w_out, w_in_w_out, sensitivity."""
    output: Optional[Path] = None
    """File for the same as JSON."""

    def main(self) -> None:
        """Inspects and prints the run.

        Raises:
            InspectError: If there is nothing to inspect, or the JSON cannot be written.
            ValueError: If there is no such score.
        """
        found = inspect_run(self.load_config, self.step, self.score)
        for part in all_tables(found):
            CONSOLE.print(part)
        if self.output is not None:
            try:
                self.output.parent.mkdir(parents=True, exist_ok=True)
                self.output.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
            except OSError as error:
                raise InspectError(f"--output {self.output}: cannot be written: {error}") from error
            CONSOLE.print(f"written: {self.output}", soft_wrap=True)


def inspect_run(load_config: Path, step: Optional[int] = None, scores: tuple[str, ...] = ("w_out",)) -> Inspection:
    """Inspects a run of `nerf-prune` or of the stock `vanilla-nerf`.

    Args:
        load_config: The run's config.yml.
        step: Step of the checkpoint; None for the newest one.
        scores: Scores to summarise.

    Raises:
        InspectError: If config or checkpoint are missing, damaged, or of another kind of network.
        ValueError: If there is no such score, or it needs calibration samples, which take training data.
    """
    for name in scores:
        needed = needs_of(score_by_name(name))
        if needed != "weights":
            raise ValueError(
                f"--scores {name}: needs {needed} of training rays; inspect reads weights alone, and shows one of "
                f"{', '.join(sorted(weight_scores()))}"
            )
    config = read_config(load_config)
    model = build_model(config, load_config)
    path = find_checkpoint(config, load_config, step)
    saved_step = load_checkpoint(model, path)
    return inspect_model(model, scores, str(config.method_name), load_config, path, saved_step)


def read_config(path: Path) -> TrainerConfig:
    """Reads a run's configuration.

    Raises:
        InspectError: If it is not there, or is no configuration of a Nerfstudio run.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InspectError(f"--load-config {path}: expected the config.yml of a run: {error}") from error
    try:
        config = yaml.load(text, Loader=yaml.Loader)
    except Exception as error:
        # The loader imports and calls what the file names, as ns-eval does; that may raise anything.
        raise InspectError(f"--load-config {path}: cannot be read as the config.yml of a run: {error}") from error
    if not isinstance(config, TrainerConfig):
        raise InspectError(f"--load-config {path}: expected the config.yml of a run, got {type(config).__name__}")
    return config


def build_model(config: TrainerConfig, path: Path) -> PruneModel:
    """Builds the model of a run as it was before pruning.

    Raises:
        InspectError: If the run is of another method.
    """
    options: Any = getattr(config.pipeline, "model", None)
    if isinstance(options, VanillaModelConfig) and options._target is NeRFModel:
        options = PruneModelConfig(
            **{f.name: getattr(options, f.name) for f in fields(VanillaModelConfig) if f.name != "_target"}
        )
    if not isinstance(options, PruneModelConfig):
        raise InspectError(
            f"--load-config {path}: expected a run of nerf-prune or vanilla-nerf, got method {config.method_name}"
        )
    # The scene says nothing about the network.
    return options.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1)


def find_checkpoint(config: TrainerConfig, path: Path, step: Optional[int] = None) -> Path:
    """The checkpoint of a step, or the newest one.

    `load_dir` and `load_step` of the configuration are where the run came from, not where it went.

    Args:
        config: The run's configuration.
        path: Its file; a run that was moved as a whole has its checkpoints beside it.
        step: Step of the checkpoint; None for the newest one.

    Raises:
        InspectError: If there is none.
    """
    beside = path.parent / config.relative_model_dir
    folder = beside if beside.is_dir() else config.get_checkpoint_dir()
    found = {
        int(match[1]): file for file in folder.glob("*") if (match := re.fullmatch(r"step-(\d+)\.ckpt", file.name))
    }
    if not found:
        raise InspectError(f"{folder}: holds no checkpoint; expected step-*.ckpt, which the run of {path} saves")
    if step is None:
        return found[max(found)]
    if step not in found:
        raise InspectError(
            f"{folder}: holds no checkpoint of step {step}; there are {', '.join(map(str, sorted(found)))}"
        )
    return found[step]


def load_checkpoint(model: PruneModel, path: Path) -> int:
    """Loads the network and pruning state of a checkpoint.

    Args:
        model: Model of the same numbers of layers, of any widths.
        path: The checkpoint.

    Returns:
        Step at whose end it was saved.

    Raises:
        InspectError: If it is damaged, or does not fit.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        pipeline, step = loaded["pipeline"], int(loaded["step"])
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InspectError(f"{path}: expected a checkpoint of Nerfstudio, which it is not: {error!r}") from error
    state = {
        key.removeprefix("_model.").removeprefix("module."): value
        for key, value in pipeline.items()
        if key.startswith("_model.")
    }
    try:
        model.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise InspectError(f"{path}: {error}") from error
    return step
