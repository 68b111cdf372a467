"""`ns-prune convert`: Gaussians from one kind of file to another, and what that costs."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass
class Convert:
    """Write the Gaussians of a file into one of another kind, by the ends of their names (.ply, .compressed.ply, .spz;
    .sog is only read); reads it back and prints sizes and how far the numbers moved."""

    source: Positional[Path]
    """The file to read; it may come from anyone."""
    target: Positional[Path]
    """The file to write. One that is there is replaced, unless it is the source."""

    def main(self) -> None:
        """Writes the file, and prints what became of it.

        Raises:
            ValueError: If the source cannot be read, both are the same file, the format is unknown or only read, cannot
                hold these Gaussians, or the file cannot be written.
        """
        # It imports torch, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.convert.converting import convert  # noqa: PLC0415

        convert(self)
