"""The kinds of runs that can be cut when they are finished."""

from collections.abc import Sequence
from pathlib import Path

from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.apply.networks import Networks
from nerfstudio_prune.apply.opened import Kind
from nerfstudio_prune.apply.scenes import Scenes
from nerfstudio_prune.engine.saved_run import SavedRunError
from nerfstudio_prune.kilo.pipeline import KiloPipelineConfig

KINDS: Sequence[Kind] = (Networks(), Scenes())
ELSEWHERE = (
    (
        KiloPipelineConfig,
        "tiny networks become narrower while they are made: ns-prune distil with narrow-to, or ns-train kilonerf with "
        "--pipeline.grid.narrow-to",
    ),
)
"""Options of a pipeline whose runs are not cut here -> what does it."""


def kind_of(config: TrainerConfig, path: Path) -> Kind:
    """The kind of a run.

    Args:
        config: Its configuration.
        path: The file of that.

    Raises:
        SavedRunError: If it is of none.
    """
    for kind in KINDS:
        if kind.takes(config):
            return kind
    for pipeline, advice in ELSEWHERE:
        if isinstance(config.pipeline, pipeline):
            raise SavedRunError(f"--load-config {path}: a run of {config.method_name}; {advice}")
    methods = [method for kind in KINDS for method in kind.methods]
    raise SavedRunError(
        f"--load-config {path}: expected a run of {', '.join(methods[:-1])} or {methods[-1]}, got method "
        f"{config.method_name}"
    )
