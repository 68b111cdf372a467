"""How `ns-prune export` shows what it wrote."""

import math
from collections.abc import Iterator
from typing import Any, Optional

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.quality import Comparison, Quality
from nerfstudio_prune.export.reading import Exported
from nerfstudio_prune.nerf.model import PruneModel


def all_tables(
    run: SavedRun[PruneModel], file: str, numbers: str, found: Exported, compared: Optional[Comparison], reason: str
) -> Iterator[Any]:
    """Everything to print, in order.

    Args:
        run: The run.
        file: Name of the file.
        numbers: What its weights are, in words.
        found: What was read back.
        compared: What was measured; None if nothing was.
        reason: Why nothing was.
    """
    yield overview(run, file, numbers, found)
    if compared is None:
        yield Text(f"Quality was not measured: {reason}")
    else:
        yield quality_table(compared)


def overview(run: SavedRun[PruneModel], file: str, numbers: str, found: Exported) -> Table:
    """Where the file comes from, and its size."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    whole = sum(p.numel() for own in run.model.fields().values() for p in own.parameters())
    parameters, network = found.metadata.parameters, 4 * whole
    table.add_row("run", escape(f"{run.config.method_name}, {run.checkpoint} (step {run.step:,})"))
    table.add_row("written", escape(file))
    table.add_row("weights", escape(numbers))
    table.add_row("parameters", f"{parameters:,} of {whole:,}, without the coarse field's colour")
    table.add_row("size", f"{found.size:,} bytes, {8 * found.size / parameters:.2f} bits per parameter")
    table.add_row("network", f"{network:,} bytes in fp32, {network / found.size:.1f} times the file")
    stored = run.checkpoint.stat().st_size
    table.add_row(
        "checkpoint", f"{stored:,} bytes with the optimizer's moments, {stored / found.size:.1f} times the file"
    )
    return table


def quality_table(compared: Comparison) -> Table:
    """What checkpoint and file are worth, and how far apart they are."""
    views = "1 test view" if compared.views == 1 else f"{compared.views} test views"
    table = Table(title=f"Pictures of {views}", title_justify="left")
    table.add_column("")
    for name in ("PSNR dB", "SSIM"):
        table.add_column(name, justify="right")
    for name, quality in (("checkpoint", compared.checkpoint), ("file", compared.file)):
        table.add_row(name, _decibels(quality.psnr), _similarity(quality))
    table.add_row("file against checkpoint", _decibels(compared.agreement), "")
    return table


def _decibels(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.2f}"


def _similarity(quality: Quality) -> str:
    return "—" if quality.ssim is None else f"{quality.ssim:.4f}"
