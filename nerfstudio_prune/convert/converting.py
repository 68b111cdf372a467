"""From one file of Gaussians to another, read back and compared."""

from rich.console import Console

from nerfstudio_prune.convert.command import Convert
from nerfstudio_prune.convert.deviations import deviations_of
from nerfstudio_prune.convert.tables import deviation_table, lost_lines, size_table
from nerfstudio_prune.splat_files.formats import format_to_write, read_splats, write_splats

WIDTH = 120
"""Columns of what is printed."""


def convert(options: Convert) -> None:
    """Writes a file, reads it back, and prints what it is worth.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `Convert.main`.
    """
    source, target = options.source, options.target
    form, _ = format_to_write(target)
    if source.exists() and target.exists() and target.samefile(source):
        raise ValueError(f"{target}: is the file to read; give another name for the one to write")
    stored = read_splats(source)
    written = write_splats(target, stored)
    found = read_splats(target)
    console = Console(width=WIDTH)
    console.print(size_table({source: stored, target: found}))
    console.print(deviation_table(deviations_of(written.gaussians, found.gaussians)))
    for line in lost_lines(stored, found, form.name):
        console.print(line, markup=False)
