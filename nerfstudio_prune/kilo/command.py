"""`ns-prune distil`: makes tiny networks of a run that is there, with its data and the options of its scene."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional


@dataclass
class Distil:
    """Make a grid of tiny networks of a trained run, for fast pictures: as ns-train kilonerf, on the same data."""

    load_config: Path
    """Trained run of nerf-prune or vanilla-nerf to learn from: its config.yml, as for ns-eval."""
    data: Optional[Path] = None
    """Its data, where they have moved. None: where they were when it was trained."""
    output_dir: Optional[Path] = None
    """Where the run is saved. None: where that one was."""
    experiment_name: Optional[str] = None
    """Name of the experiment. None: that of the trained run."""
    vis: Optional[
        Literal["viewer", "wandb", "tensorboard", "comet", "viewer+wandb", "viewer+tensorboard", "viewer+comet"]
    ] = None
    """How it is watched. None: as with ns-train kilonerf."""
    seed: Optional[int] = None
    """Seed of all that is drawn. None: as with ns-train kilonerf."""
    max_num_iterations: Optional[int] = None
    """Training steps. None: those of both phases."""
    distil_steps: Optional[int] = None
    """Steps of the first phase, which learns from the trained run. None: as with ns-train kilonerf."""
    finetune_steps: Optional[int] = None
    """Steps of the second phase, which learns from photos. None: as with ns-train kilonerf."""
    resolution: Optional[int] = None
    """Cells along the longest side of what is occupied. None: as with ns-train kilonerf."""
    hidden_width: Optional[int] = None
    """Neurons of each hidden layer of a network. None: as with ns-train kilonerf."""
    target_parameters: Optional[int] = None
    """Most parameters of all networks, in place of resolution and width. None: no such budget."""
    target_mb: Optional[float] = None
    """The same as the size of the networks in float32, in units of 10^6 bytes. None: no such budget."""
    target_macs: Optional[float] = None
    """Most multiply-accumulates per ray, in place of the width. None: no such budget."""
    narrow_to: Optional[float] = None
    """Share of their parameters that networks keep after distilling, in (0, 1). None: all."""

    def main(self) -> None:
        """Trains, and says where the run is.

        Raises:
            ValueError: If there is no such run, it cannot be learnt from, its data are not there, or an option is out
                of its range; nothing is written then.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.kilo.distilling import distil  # noqa: PLC0415

        distil(self)
