"""`ns-prune restore`: a run again, out of a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import tyro


@dataclass
class Restore:
    """Make a run folder of a file of ns-prune export, in single precision, for ns-eval, ns-viewer, ns-render and
    ns-prune, and for ns-train to go on with."""

    file: tyro.conf.Positional[Path]
    """The .safetensors file."""
    output_dir: Path = Path("outputs")
    """Folder of all runs, as for ns-train."""
    experiment_name: Optional[str] = None
    """Name of the experiment. None: that of the file, without its ending."""
    data: Optional[Path] = None
    """Folder or file of the data set, which the host's commands need. None: that of the method."""
    dataparser: Optional[str] = None
    """Name of its data parser and, where they are not the defaults, its options, as behind ns-train, all within quotes.
    None: with --data what the folder says, blender-data or nerfstudio-data; else that of the method."""

    def main(self) -> None:
        """Writes the run, and says where it is.

        Raises:
            ValueError: If the file or the data cannot be read, the one does not belong to the other, no run of this
                version has such a network, or the run cannot be written; nothing is left of it then.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.opening.restoring import restore  # noqa: PLC0415

        restore(self)
