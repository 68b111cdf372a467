"""From a finished run to a file, read back and measured."""

from typing import Optional

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.engine.saved_run import SavedRun, read_config
from nerfstudio_prune.pack.command import Pack
from nerfstudio_prune.pack.contents import content_of
from nerfstudio_prune.pack.fitting import SizeError
from nerfstudio_prune.pack.quality import compare
from nerfstudio_prune.pack.run_views import RunViews
from nerfstudio_prune.pack.tables import all_tables
from nerfstudio_prune.splat_files.packed import read_packed
from nerfstudio_prune.splat_files.packed_container import SUFFIX
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.saved_run import is_of_gaussians, load_run


def pack(options: Pack) -> None:
    """Writes a file, reads it back, and prints what it is worth.

    The file is there before test views are rendered, so that whoever interrupts the measurement has it.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `Pack.main`.
    """
    check(options)
    config = read_config(options.load_config)
    if not is_of_gaussians(config):
        raise ValueError(f"--load-config {options.load_config}: expected a run of splat-prune or splatfacto")
    run = load_run(config, options.load_config, options.step)
    run.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    views, reason = _views(run, options)
    try:
        content = content_of(run, options, views)
    except SizeError as error:
        raise SizeError(f"--target-mb {options.target_mb:g}: {error}") from error
    except ValueError as error:
        raise ValueError(f"--load-config {options.load_config}: {error}") from error
    try:
        write_file(options.output, content)
    except OSError as error:
        raise ValueError(f"--output {options.output}: cannot be written: {error}") from error
    found = read_packed(options.output)
    photos = views.photos("eval", options.views) if views is not None else []
    compared = compare(run.model, found.gaussians, photos) if photos else None
    for part in all_tables(
        run, options.output, found, compared, reason or "there are no test views", views is not None
    ):
        CONSOLE.print(part)


def check(options: Pack) -> None:
    """Checks what needs no run.

    Args:
        options: Options of the command.

    Raises:
        ValueError: If one is out of its range; names it.
    """
    if options.output.suffix != SUFFIX:
        raise ValueError(f"--output {options.output}: expected a name that ends with {SUFFIX}")
    if options.position_bits is not None and not 1 <= options.position_bits <= 20:
        raise ValueError(f"--position-bits must be in [1, 20], got {options.position_bits}")
    if options.target_mb is not None and not 0 < options.target_mb < 10**6:
        raise ValueError(f"--target-mb must be above 0 and below 10^6, got {options.target_mb:g}")
    if options.target_mb is not None and options.profile == "paper":
        raise ValueError("--target-mb is for the profiles small and tiny; paper has the size that its rule gives")
    if options.views < 0:
        raise ValueError(f"--views must be at least 0, got {options.views}")


def _views(run: SavedRun[SplatPruneModel], options: Pack) -> tuple[Optional[RunViews], str]:
    """The run's views, and why its file is not measured."""
    try:
        views = RunViews(run.config, options.data, run.model.device)
    except ValueError as error:
        if options.data is not None:
            raise ValueError(f"--data {error}") from error
        return None, f"{error}. Give the path of the data with --data where they have moved"
    views.set_behind(run.model)
    return views, "" if options.views else "--views 0"
