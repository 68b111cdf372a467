"""`ns-prune export`: a run's network as one small file, and what that costs in quality."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional


@dataclass
class Export:
    """Write the network of a run of nerf-prune or vanilla-nerf into one small .safetensors file, which can be rendered
    without its data and without Nerfstudio; reads it back and measures it."""

    load_config: Path
    """The run's config.yml, as for ns-eval."""
    output: Path
    """The file. One that is there is replaced."""
    dtype: Optional[Literal["float32", "float16", "int8", "intN"]] = None
    """Numbers of the weights; intN has as many bits as --bits says. None: intN if --bits is given, else int8."""
    bits: Optional[int] = None
    """Bits of a weight for intN, in [2, 8]; layers that density and colour come out of keep eight. None: by dtype."""
    compress: bool = False
    """Compress integers, without loss, by lzma."""
    step: Optional[int] = None
    """Step of the checkpoint. None: the newest one."""
    data: Optional[Path] = None
    """Its data, where they have moved. None: where they were when it was trained."""
    views: int = 3
    """Test views to measure the file on, evenly spaced; 0 for none."""

    def main(self) -> None:
        """Writes the file, and prints what became of it.

        Raises:
            ValueError: If there is no such run, it has no place in a file, its data are given and not there, options
                contradict each other, or the file cannot be written.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.export.exporting import export  # noqa: PLC0415

        export(self)
