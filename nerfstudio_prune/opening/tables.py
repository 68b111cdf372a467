"""How `ns-prune eval` shows what it measured."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from nerfstudio_prune.data.view_quality import Quality, mean_quality
from nerfstudio_prune.export.kinds import AnyMetadata
from nerfstudio_prune.opening.measuring import ViewQuality


def measured_tables(
    file: str, size: int, metadata: AnyMetadata, found: Sequence[ViewQuality], there: int, worst: int
) -> Iterator[Any]:
    """Everything to print, in order.

    Args:
        file: Name of the file.
        size: Its bytes.
        metadata: What it says of itself.
        found: What was measured, one view at least.
        there: Test views that there are.
        worst: How many of the worst views to name.
    """
    yield _overview(file, size, metadata)
    table = Table(title=f"Pictures of {len(found)} of {there} test views", title_justify="left")
    table.add_column("view")
    for name in ("PSNR dB", "SSIM"):
        table.add_column(name, justify="right")
    table.add_row("mean", *_numbers(mean_quality([view.quality for view in found])))
    for view in sorted(found, key=lambda view: view.quality.psnr)[:worst]:
        table.add_row(f"worst: {escape(view.name)}", *_numbers(view.quality))
    yield table


def _overview(file: str, size: int, metadata: AnyMetadata) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("file", escape(file))
    table.add_row("of", escape(f"a run of {metadata.method}, step {metadata.step:,}"))
    table.add_row("parameters", f"{metadata.parameters:,}")
    table.add_row("size", f"{size:,} bytes, {8 * size / metadata.parameters:.2f} bits per parameter")
    return table


def _numbers(quality: Quality) -> tuple[str, str]:
    psnr = "equal" if math.isinf(quality.psnr) else f"{quality.psnr:.2f}"
    return psnr, "—" if quality.ssim is None else f"{quality.ssim:.4f}"
