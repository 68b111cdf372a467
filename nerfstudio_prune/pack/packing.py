"""From a finished run to a file, read back and measured."""

from pathlib import Path
from typing import Optional

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.engine.saved_run import SavedRun, noted_transforms, read_config
from nerfstudio_prune.pack.command import Pack
from nerfstudio_prune.pack.fitting import SizeError, largest_budget, smallest_budget
from nerfstudio_prune.pack.quality import compare, mean_psnr, packed_model
from nerfstudio_prune.pack.run_views import RunViews
from nerfstudio_prune.pack.tables import all_tables
from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.splat_files.evidence import Evidence
from nerfstudio_prune.splat_files.packed import decode_packed, encode_packed, read_packed
from nerfstudio_prune.splat_files.packed_container import SUFFIX
from nerfstudio_prune.splat_files.profiles import PROFILES
from nerfstudio_prune.splat_files.sensitivities import evidence_from_views
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.saved_run import is_of_gaussians, load_run

MEGABYTE = 10**6
FITTING_VIEWS = 25
"""Training views that a loss is measured on, evenly spaced."""


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
        content = _content(run, options, views)
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


def _content(run: SavedRun[SplatPruneModel], options: Pack, views: Optional[RunViews]) -> bytes:
    """The bytes of the file."""
    model = run.model
    antialiased = model.config.rasterize_mode == "antialiased"
    gaussians = model.in_harmonics(model.gaussians.detach())
    stored = StoredGaussians(gaussians.to("cpu").to(torch.float32), antialiased, placement_of(run.config_file))
    evidence: Optional[Evidence] = None
    if views is not None:
        behind = model.behind.to(model.device)
        evidence = evidence_from_views(gaussians, views.cameras(), model.rasterizer, behind, antialiased=antialiased)

    def encoded(budget: Optional[float]) -> bytes:
        return encode_packed(
            stored, options.profile, evidence=evidence, budget=budget, position_bits=options.position_bits
        )

    if options.target_mb is not None:
        largest = int(options.target_mb * MEGABYTE)
        return encoded(smallest_budget(lambda budget: len(encoded(budget)), largest))
    photos = [] if views is None else views.photos("train", FITTING_VIEWS)
    if not photos:
        return encoded(None)
    bound = mean_psnr(model.with_gaussians(model.gaussians), photos) - PROFILES[options.profile].largest_loss

    def fits(budget: float) -> bool:
        return mean_psnr(packed_model(model, decode_packed(encoded(budget)).gaussians), photos) >= bound

    return encoded(largest_budget(fits))


def placement_of(config_file: Path) -> Optional[Placement]:
    """How the scene lies in its data; None where the run does not tell.

    Args:
        config_file: The run's config.yml.
    """
    try:
        noted = noted_transforms(config_file)
        rows = tuple(tuple(float(value) for value in row) for row in noted["transform"][:3])
        placement = Placement(rows, float(noted["scale"]))  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a run that was copied without it
        return None
    is_whole = len(rows) == 3 and all(len(row) == 4 for row in rows)
    return placement if is_whole else None
