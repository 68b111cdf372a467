"""`ns-prune pack`: the Gaussians of a run as one small file, and what that costs in quality."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from nerfstudio_prune.splat_files.profiles import ProfileName


@dataclass
class Pack:
    """Write the Gaussians of a run of splat-prune or splatfacto into one small .gsvt file; reads it back and measures
    it."""

    load_config: Path
    """The run's config.yml, as for ns-eval."""
    output: Path
    """The file, with the suffix .gsvt. One that is there is replaced."""
    profile: ProfileName = "small"
    """How far numbers are rounded: small (training views lose at most 0.04 dB), tiny (at most 0.3 dB), paper
    (VecTree of LightGaussian, for comparison)."""
    position_bits: Optional[int] = None
    """Round centres to 2^bits cells in each direction, in [1, 20]. None: each as finely as the views see it;
    16 bits for paper."""
    target_mb: Optional[float] = None
    """Largest file, in units of 10^6 bytes, instead of a largest loss; not for paper. None:
    any."""
    step: Optional[int] = None
    """Step of the checkpoint. None: the newest one."""
    data: Optional[Path] = None
    """Its data, where they have moved. None: where they were when it was trained."""
    views: int = 25
    """Test views to measure the file on, evenly spaced; 0 for none."""

    def main(self) -> None:
        """Writes the file, and prints what became of it.

        Raises:
            ValueError: If there is no such run, it has no place in a file, its data are needed and not there, an option
                is out of its range, it cannot be made as small as asked for, or the file cannot be written.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.pack.packing import pack  # noqa: PLC0415

        pack(self)
