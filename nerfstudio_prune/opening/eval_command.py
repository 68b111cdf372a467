"""`ns-prune eval`: what a file is worth on the test views of a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import tyro


@dataclass
class Eval:
    """Measure a file of ns-prune export on the test views of a data set: PSNR and SSIM in the mean and of the worst
    views, and bytes. Needs no run."""

    file: tyro.conf.Positional[Path]
    """The .safetensors file."""
    data: Optional[Path] = None
    """Folder or file of the data set. None: where the data parser looks by itself."""
    dataparser: Optional[str] = None
    """Name of its data parser and, where they are not the defaults, its options, as behind ns-train, all within quotes.
    None: what the folder says, blender-data or nerfstudio-data."""
    views: Optional[int] = None
    """Test views to measure on, evenly spaced. None: all."""
    worst: int = 3
    """Views of the lowest PSNR to name, 0 for none."""

    def main(self) -> None:
        """Measures, and prints what was found.

        Raises:
            ValueError: If the file or the data cannot be read, the one does not belong to the other, or an option is
                out of its range.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.opening.evaluating import evaluate  # noqa: PLC0415

        evaluate(self)
