"""Inspects a saved run and shows what was found."""

from pathlib import Path
from typing import Any, Optional

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.engine.saved_run import SavedRunError, read_config
from nerfstudio_prune.inspect.kinds import KINDS, TABLES, Scores
from nerfstudio_prune.records.files import to_json


def show(found: Any, output: Optional[Path] = None) -> None:
    """Prints what was found.

    Args:
        found: What `inspect_run` gave.
        output: File for the same as JSON.

    Raises:
        ValueError: If the file cannot be written.
    """
    for part in TABLES[type(found)](found):
        CONSOLE.print(part)
    if output is not None:
        try:
            write_file(output, to_json(found))
        except OSError as error:
            raise ValueError(f"--output {output}: cannot be written: {error}") from error
        CONSOLE.print(f"written: {escape(str(output))}", soft_wrap=True)


def inspect_run(load_config: Path, step: Optional[int] = None, scores: Scores = None) -> Any:
    """Inspects a run of any of `KINDS`.

    Args:
        load_config: The run's config.yml.
        step: Step of the checkpoint; None for the newest one.
        scores: Scores to summarise; None for those that the kind shows unless it is told.

    Raises:
        SavedRunError: If config or checkpoint are missing, damaged, or of another method.
        ValueError: If a score cannot be shown.
    """
    config = read_config(load_config)
    for kind in KINDS:
        if kind.takes(config):
            return kind.inspect(config, load_config, step, scores)
    methods = [method for kind in KINDS for method in kind.methods]
    raise SavedRunError(
        f"--load-config {load_config}: expected a run of {', '.join(methods[:-1])} or {methods[-1]}, got method "
        f"{config.method_name}"
    )
