"""`ns-prune export`: a run's network as one small file, and what that costs in quality."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

Rounding = Literal["nearest", "compensated"]
"""How weights become codes."""


@dataclass
class Export:
    """Write the network of a run of nerf-prune, vanilla-nerf or kilonerf into one small .safetensors file, which can be
    rendered without its data and without Nerfstudio; reads it back and measures it."""

    load_config: Path
    """The run's config.yml, as for ns-eval."""
    output: Path
    """The file. One that is there is replaced."""
    dtype: Optional[Literal["float32", "float16", "int8", "intN", "mixed"]] = None
    """Numbers of the weights: intN has as many bits as --bits says, mixed as many in the mean, shared out over layers
    by what each would lose. None: mixed for --target-mb and where --bits is not whole, intN where it is, else int8."""
    bits: Optional[float] = None
    """Bits of a weight, in [2, 8]. For intN whole, and layers that density and colour come out of keep eight; for mixed
    the largest mean over all weights. None: by dtype."""
    target_mb: Optional[float] = None
    """Largest file, header included, in units of 10^6 bytes; the bits of each layer follow from it. None: any."""
    widths: Literal["kept", "joint"] = "kept"
    """kept: neurons stay as they are; joint: with --target-mb the network is cut to several sizes as by ns-prune apply,
    and that one is written whose bits then make the best pictures of training views kept back. The run stays."""
    rounding: Optional[Rounding] = None
    """nearest: each weight to the nearest level; compensated: the weights that are left and the biases make up for it,
    on training rays. None: compensated below eight bits where there are training views, else nearest."""
    compress: bool = False
    """Compress integers, without loss, by lzma."""
    step: Optional[int] = None
    """Step of the checkpoint. None: the newest one."""
    data: Optional[Path] = None
    """Its data, where they have moved. None: where they were when it was trained."""
    dense_config: Optional[Path] = None
    """The config.yml of the run before it was pruned, or of the teacher, to be measured beside it. None: none is."""
    views: int = 3
    """Test views to measure the file on, evenly spaced; 0 for none."""

    def main(self) -> None:
        """Writes the file, and prints what became of it.

        Raises:
            ValueError: If there is no such run, it has no place in a file, its data are needed and not there, options
                contradict each other, it cannot be made as small as asked for, or the file cannot be written.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.export.exporting import export  # noqa: PLC0415

        export(self)
