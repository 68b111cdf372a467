"""How `ns-prune pack` shows what it wrote."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nerfstudio_prune.data.view_quality import Quality
from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.gaussians.budget import uncompressed_bytes
from nerfstudio_prune.pack.quality import Comparison
from nerfstudio_prune.splat_files.packed_container import section_sizes
from nerfstudio_prune.splat_files.stored import StoredGaussians
from nerfstudio_prune.splats.model import SplatPruneModel

NORMALS = 12
"""Bytes of a Gaussian in the `.ply` of `ns-export` that say nothing."""


def all_tables(
    run: SavedRun[SplatPruneModel],
    path: Path,
    found: StoredGaussians,
    compared: Optional[Comparison],
    reason: str,
    seen: bool,
) -> Iterator[Any]:
    """Everything to print, in order.

    Args:
        run: The run.
        path: The file.
        found: What was read back.
        compared: What was measured; None if nothing was.
        reason: Why nothing was.
        seen: Whether numbers were rounded by what views see.
    """
    yield overview(run, path, found)
    yield section_table(path, len(found.gaussians))
    if not seen:
        yield Text(
            "Numbers were rounded without views, by sizes and opacities alone; with its data the file is smaller"
        )
    if compared is None:
        yield Text(f"Quality was not measured: {reason}")
    else:
        yield quality_table(compared)


def overview(run: SavedRun[SplatPruneModel], path: Path, found: StoredGaussians) -> Table:
    """Where the file comes from, and its size."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    size, count, degree = path.stat().st_size, len(found.gaussians), found.gaussians.sh_degree
    before = [event.before.parts for event in run.model.prune_state.succeeded]
    first = before[0] if before else {"gaussians": count, "sh_degree": degree}
    dense, dense_degree = first["gaussians"], first["sh_degree"]
    ply = dense * NORMALS + uncompressed_bytes(dense, dense_degree)
    numbers, stored = uncompressed_bytes(count, degree), run.checkpoint.stat().st_size
    table.add_row("run", escape(f"{run.config.method_name}, {run.checkpoint} (step {run.step:,})"))
    table.add_row("written", escape(str(path)))
    earlier = f", of {dense:,} of degree {dense_degree} before the first cut" if before else ""
    table.add_row("Gaussians", f"{count:,} of degree {degree}{earlier}")
    table.add_row("size", f"{size:,} bytes, {size / count:.2f} bytes a Gaussian")
    for name, other, what in (
        ("dense .ply", ply, f"{dense:,} Gaussians, as ns-export writes them"),
        ("checkpoint", stored, "with the optimizer's moments"),
        ("  without", numbers, "its Gaussians alone, in float32"),
    ):
        table.add_row(name, f"{other:,} bytes, {other / size:.1f} times the file: {what}")
    return table


def section_table(path: Path, count: int) -> Table:
    """What the sections of a file take."""
    table = Table(title="Sections", title_justify="left", min_width=40)
    table.add_column("section")
    for name in ("bytes", "bytes a Gaussian"):
        table.add_column(name, justify="right")
    for name, size in section_sizes(path.read_bytes()).items():
        table.add_row(name, f"{size:,}", f"{size / count:.2f}")
    return table


def quality_table(compared: Comparison) -> Table:
    """What checkpoint and file are worth, and how far apart they are."""
    views = "1 test view" if compared.views == 1 else f"{compared.views} test views"
    table = Table(title=f"Pictures of {views}", title_justify="left")
    table.add_column("")
    for name in ("PSNR dB", "SSIM"):
        table.add_column(name, justify="right")
    for name, quality in (("checkpoint", compared.checkpoint), ("file, read back", compared.file)):
        table.add_row(name, _decibels(quality.psnr), _similarity(quality))
    table.add_row("file less checkpoint", f"{compared.file.psnr - compared.checkpoint.psnr:+.3f}", "")
    table.add_row("file against checkpoint", _decibels(compared.agreement), "")
    return table


def _decibels(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.2f}"


def _similarity(quality: Quality) -> str:
    return "—" if quality.ssim is None else f"{quality.ssim:.4f}"
