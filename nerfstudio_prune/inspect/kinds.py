"""The kinds of runs that `ns-prune inspect` shows, and how each of them is measured and printed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.inspect.gaussian_inspection import GaussianInspection, inspect_gaussians
from nerfstudio_prune.inspect.gaussian_tables import all_gaussian_tables
from nerfstudio_prune.inspect.inspection import Inspection, inspect_model
from nerfstudio_prune.inspect.tables import all_tables
from nerfstudio_prune.nerf import saved_run as networks
from nerfstudio_prune.neurons.scores import SCORES, needs_of, weight_scores
from nerfstudio_prune.splats import saved_run as splats

Scores = Optional[Sequence[str]]
"""Scores to summarise; None: those that the kind shows unless it is told."""


@dataclass(frozen=True)
class Kind:
    """One kind of runs."""

    methods: Sequence[str]
    """Those that make such runs."""
    takes: Callable[[TrainerConfig], bool]
    """Whether a configuration is one of such a run."""
    inspect: Callable[[TrainerConfig, Path, Optional[int], Scores], Any]
    """Measures a run, from its configuration, the file of that, a step, and scores: gives one of `TABLES`."""


def inspect_network(config: TrainerConfig, path: Path, step: Optional[int], scores: Scores) -> Inspection:
    """Measures a run of `nerf-prune` or `vanilla-nerf`.

    Args:
        config: The run's configuration.
        path: Its file.
        step: Step of the checkpoint; None for the newest one.
        scores: Scores of its neurons.

    Raises:
        ValueError: If there is no such score, or it needs calibration samples, which take training data.
    """
    scores, shown = ("w_out",) if scores is None else tuple(scores), ", ".join(sorted(weight_scores()))
    for name in scores:
        if name not in SCORES:
            raise ValueError(f"--score must be one of {shown}, got {name!r}")
        needed = needs_of(SCORES[name])
        if needed != "weights":
            raise ValueError(
                f"--score {name}: needs {needed} of training rays; inspect reads weights alone, and shows one of "
                f"{shown}"
            )
    return inspect_model(networks.load_run(config, path, step), scores)


def inspect_splats(config: TrainerConfig, path: Path, step: Optional[int], scores: Scores) -> GaussianInspection:
    """Measures a run of `splat-prune` or `splatfacto`.

    Args:
        config: The run's configuration.
        path: Its file.
        step: Step of the checkpoint; None for the newest one.
        scores: None can be shown.

    Raises:
        ValueError: If scores are asked for.
    """
    if scores:
        raise ValueError(
            f"--score {' '.join(scores)}: what Gaussians are worth is seen on the training views, which inspect does "
            "not load; leave it out"
        )
    return inspect_gaussians(splats.load_run(config, path, step))


KINDS: Sequence[Kind] = (
    Kind(("nerf-prune", "vanilla-nerf"), lambda config: networks.model_options(config) is not None, inspect_network),
    Kind(("splat-prune", "splatfacto"), splats.is_of_gaussians, inspect_splats),
)

TABLES: Mapping[type, Callable[[Any], Iterator[Any]]] = {
    Inspection: all_tables,
    GaussianInspection: all_gaussian_tables,
}
"""What is found of a kind -> gives everything to print of it, in order."""
