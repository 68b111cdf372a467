"""Lets `ns-eval`, `ns-viewer`, `ns-render` and `ns-export` load the newest whole checkpoint of our runs.

All of them load through one function of Nerfstudio, which takes every name in the folder for a checkpoint, and the one
of the highest number for whole. It has no hook, and a run's `config.yml` may be older than our trainer. So this
function is replaced; for pipelines that are not ours it does what it did.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.engine.checkpoints import (
    CheckpointError,
    checkpoint_of_step,
    newest_checkpoint,
    saved_checkpoints,
)

_ours: set[type[Pipeline]] = set()


def load_whole_checkpoints_of(pipeline_class: type[Pipeline]) -> None:
    """From here on pipelines of a class are loaded for evaluation by `load_for_evaluation`.

    Args:
        pipeline_class: The class; those derived from it count too.
    """
    from nerfstudio.utils import eval_utils  # noqa: PLC0415  it imports all methods, and with them our pipelines

    if not _ours:
        eval_utils.eval_load_checkpoint = _choosing(eval_utils.eval_load_checkpoint)
    _ours.add(pipeline_class)


def load_for_evaluation(config: TrainerConfig, pipeline: Pipeline) -> tuple[Path, int]:
    """Loads the newest whole checkpoint of a run, or the one of `load_step` if the run has it.

    Nerfstudio writes into `config.yml` as `load_step` where a run came from; that step is rarely one of the run's own.

    Args:
        config: The run's configuration; `load_dir` is its folder of checkpoints.
        pipeline: What the network is loaded into.

    Returns:
        The file and its step.

    Raises:
        CheckpointError: If there is none, it is not whole, or it is not one of this network.
    """
    folder = config.load_dir
    assert folder is not None
    if config.load_step is not None and config.load_step in saved_checkpoints(folder):
        found = checkpoint_of_step(folder, config.load_step)
    else:
        found = newest_checkpoint(folder)
    try:
        pipeline.load_pipeline(found.content["pipeline"], found.step)
    except ValueError as error:
        raise CheckpointError(f"{found.path}: {error}") from error
    CONSOLE.print(f":white_check_mark: Done loading checkpoint from {escape(str(found.path))}", soft_wrap=True)
    return found.path, found.step


def _choosing(load_any: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(load_any)
    def load(config: TrainerConfig, pipeline: Pipeline) -> tuple[Path, int]:
        return (load_for_evaluation if isinstance(pipeline, tuple(_ours)) else load_any)(config, pipeline)

    return load
