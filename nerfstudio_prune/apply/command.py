"""`ns-prune apply`: a finished run, cut, as a new run that every command of the host opens."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional


@dataclass
class Apply:
    """Cut a finished run into a new run folder, with or without training on: neurons of nerf-prune or vanilla-nerf,
    Gaussians of splat-prune or splatfacto. The run itself stays as it is."""

    load_config: Path
    """The run's config.yml, as for ns-eval."""
    prune: dict[str, str] = field(default_factory=dict)
    """Which units leave, how far and how: options of the method's --pipeline.prune.* with their values, one after the
    other, such as `target-parameters 0.15` or `strategy importance refit merge width 64`; lists and mappings as in
    Python. What is not given is the preset's."""
    target_psnr_drop: Optional[float] = None
    """Most dB that views may lose which the cut was not judged by: the smallest size is searched whose mean loss plus
    two standard errors is at most this. None: the size is as given."""
    target_mb: Optional[float] = None
    """Size of what is left in float32, in units of 10^6 bytes. None: as given by other options."""
    dry_run: bool = False
    """Show what a cut would leave, and how quality goes with size; nothing is written."""
    recovery_steps: int = 0
    """Training steps after the cut, as ns-train does them, at the rates that the run ended with; 0 for none. A quality
    that is promised is that of before."""
    step: Optional[int] = None
    """Step of the checkpoint. None: the newest one."""
    data: Optional[Path] = None
    """Its data, where they have moved. None: where they were when it was trained."""
    rays: Optional[int] = None
    """Rays of training views, kept back from the cut, that the quality is measured on, in [0, 1048576]. None: 2,048;
    16,384 where the quality is promised, and 8,192 is the least then."""
    output_dir: Optional[Path] = None
    """Where the new run is saved. None: where the run was."""
    experiment_name: Optional[str] = None
    """Name of the new run's experiment. None: that of the run."""
    timestamp: Optional[str] = None
    """Name of the new run's folder. None: date and time."""

    def main(self) -> None:
        """Writes the new run, and prints what became of it.

        Raises:
            ValueError: If there is no such run, its data are needed and not there, options contradict each other or ask
                for what cannot be, or the new run cannot be written. Nothing is written then.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.apply.applying import apply  # noqa: PLC0415

        apply(self)
