"""From a file to a run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.engine.run_folder import run_state, write_run
from nerfstudio_prune.export.kilo_schema import KiloMetadata
from nerfstudio_prune.export.reading import Exported, read_exported
from nerfstudio_prune.export.schema import Metadata, Scene
from nerfstudio_prune.opening.data_sets import check_scene, parser_of, read_views
from nerfstudio_prune.opening.kilo_run import kilo_config, kilo_model
from nerfstudio_prune.opening.nerf_run import nerf_config, nerf_model
from nerfstudio_prune.opening.restore_command import Restore


@dataclass(frozen=True)
class RunOf:
    """How a run is made of one kind of files."""

    config: Callable[[Any], TrainerConfig]
    """Gives the configuration of metadata."""
    model: Callable[[Any, Exported, Any], Any]
    """Gives the model of a configuration, what the file holds, and its metadata."""
    anew: Callable[[Any], str]
    """Says of metadata what the file has not, besides the moments of the optimizers."""


def _coarse_colour_and_cuts(metadata: Metadata) -> str:
    cuts = f". The file tells of {len(metadata.cuts)} cuts, this run does not; widths at first are kept"
    return "the colour of the coarse field, which no picture shows, and " + MOMENTS + (cuts if metadata.cuts else "")


MOMENTS = "the moments of the optimizers"
RUNS: Mapping[type, RunOf] = {
    Metadata: RunOf(nerf_config, nerf_model, _coarse_colour_and_cuts),
    KiloMetadata: RunOf(
        kilo_config, kilo_model, lambda metadata: f"{MOMENTS}, options of the phases, and what was known of errors"
    ),
}
"""Class of the metadata -> how a run is made."""


def restore(options: Restore) -> None:
    """Writes a run, and says where it is and what it has that the file had not.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `Restore.main`.
    """
    exported = read_exported(options.file)
    metadata = exported.metadata
    kind = RUNS[type(metadata)]
    try:
        config: Any = kind.config(metadata)
        model = kind.model(config, exported, metadata)
    except ValueError as error:
        raise ValueError(f"{options.file}: {error}") from error
    unknown = ""
    if options.data is not None or options.dataparser is not None:
        config.pipeline.datamanager.dataparser = parser_of(options.data, options.dataparser)
        outputs = read_views(config.pipeline.datamanager, options.data).parsed
        unknown = check_scene(metadata.scene, outputs, options.file)
    config.output_dir = options.output_dir
    config.experiment_name = options.experiment_name or options.file.stem
    config.set_timestamp()
    try:
        written = write_run(config, run_state(config, model, metadata.step), _noted(metadata.scene))
    except OSError as error:
        raise ValueError(f"--output-dir {options.output_dir}: cannot be written: {error}") from error
    _tell(written, options, kind.anew(metadata), unknown)


def _noted(scene: Scene) -> Optional[dict[str, Any]]:
    """How the scene lies in its data, as the host notes it."""
    if scene.transform is None or scene.scale is None:
        return None
    return {"transform": [list(row) for row in scene.transform], "scale": scene.scale}


def _tell(written: Path, options: Restore, anew: str, unknown: str) -> None:
    CONSOLE.print(f"The run is in {escape(str(written))}", soft_wrap=True)
    CONSOLE.print(f"Begun anew, for the file does not have them: {anew}")
    if options.data is None and options.dataparser is None:
        CONSOLE.print("[yellow]No data: give --data for ns-eval, ns-viewer and ns-train, unless they are the method's")
    if unknown:
        CONSOLE.print(f"[yellow]Not checked: {unknown}.")
