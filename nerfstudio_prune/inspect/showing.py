"""Inspects a saved run and shows what was found."""

from pathlib import Path
from typing import Optional

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.inspect.inspection import Inspection, inspect_model
from nerfstudio_prune.inspect.tables import all_tables
from nerfstudio_prune.nerf.saved_run import open_run
from nerfstudio_prune.neurons.scores import SCORES, needs_of, weight_scores
from nerfstudio_prune.records.files import to_json, write_file


def show(found: Inspection, output: Optional[Path] = None) -> None:
    """Prints what was found.

    Args:
        found: What was found.
        output: File for the same as JSON.

    Raises:
        ValueError: If the file cannot be written.
    """
    for part in all_tables(found):
        CONSOLE.print(part)
    if output is not None:
        try:
            write_file(output, to_json(found))
        except OSError as error:
            raise ValueError(f"--output {output}: cannot be written: {error}") from error
        CONSOLE.print(f"written: {escape(str(output))}", soft_wrap=True)


def inspect_run(load_config: Path, step: Optional[int] = None, scores: tuple[str, ...] = ("w_out",)) -> Inspection:
    """Inspects a run of `nerf-prune` or of the stock `vanilla-nerf`.

    Args:
        load_config: The run's config.yml.
        step: Step of the checkpoint; None for the newest one.
        scores: Scores to summarise.

    Raises:
        SavedRunError: If config or checkpoint are missing, damaged, or of another kind of network.
        ValueError: If there is no such score, or it needs calibration samples, which take training data.
    """
    shown = ", ".join(sorted(weight_scores()))
    for name in scores:
        if name not in SCORES:
            raise ValueError(f"--score must be one of {shown}, got {name!r}")
        needed = needs_of(SCORES[name])
        if needed != "weights":
            raise ValueError(
                f"--score {name}: needs {needed} of training rays; inspect reads weights alone, and shows one of "
                f"{shown}"
            )
    return inspect_model(open_run(load_config, step), scores)
