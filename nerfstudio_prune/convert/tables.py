"""How `ns-prune convert` shows what it read and wrote."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

from rich.markup import escape
from rich.table import Table

from nerfstudio_prune.convert.deviations import Deviation
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians

UNKNOWN = "not said"
WORDS = {True: "yes", False: "no", None: UNKNOWN}


def size_table(files: Mapping[Path, StoredGaussians]) -> Table:
    """Sizes of files, and what they hold: a column a file.

    Args:
        files: Path -> what was read from it.
    """
    table = Table(title="Files of Gaussians", title_justify="left")
    table.add_column("")
    for path in files:
        table.add_column(escape(path.name), justify="right", overflow="fold")
    sizes = {path: path.stat().st_size for path in files}
    table.add_row("bytes", *(f"{size:,}" for size in sizes.values()))
    table.add_row("Gaussians", *(f"{len(stored.gaussians):,}" for stored in files.values()))
    each = (f"{sizes[path] / len(stored.gaussians):.2f}" for path, stored in files.items())
    table.add_row("bytes per Gaussian", *each)
    table.add_row("degree of the harmonics", *(str(stored.gaussians.sh_degree) for stored in files.values()))
    table.add_row("antialiased", *(WORDS[stored.antialiased] for stored in files.values()))
    table.add_row("place in the data", *(_placed(stored.placement) for stored in files.values()))
    return table


def _placed(placement: Optional[Placement]) -> str:
    return UNKNOWN if placement is None else f"scale {placement.scale:g}, and a transform"


def deviation_table(deviations: Sequence[Deviation]) -> Table:
    """How far the numbers of the new file are from those of the old one.

    Args:
        deviations: A row each.
    """
    table = Table(title="What was read back, against what was read first", title_justify="left")
    table.add_column("")
    table.add_column("largest", justify="right")
    table.add_column("mean", justify="right")
    table.add_column("")
    for deviation in deviations:
        table.add_row(deviation.name, f"{deviation.largest:.3g}", f"{deviation.mean:.3g}", deviation.unit)
    return table


def lost_lines(before: StoredGaussians, after: StoredGaussians, name: str) -> Iterator[str]:
    """What the old file said and the new one does not.

    Args:
        before: What was read first.
        after: What was read back.
        name: Of the new file's format.
    """
    if before.placement is not None and after.placement is None:
        yield f"{name} has no place for transform and scale from the space of the data: they are lost."
    if before.antialiased is not None and after.antialiased is None:
        yield f"{name} cannot say whether opacities are antialiased ones ({WORDS[before.antialiased]}): that is lost."
    if before.antialiased is None and after.antialiased is not None:
        yield f"{name} has to say whether opacities are antialiased ones: {WORDS[after.antialiased]}, though unknown."
