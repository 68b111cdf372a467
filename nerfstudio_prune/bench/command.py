"""`ns-prune bench`: carries out the runs of a suite that are not recorded yet."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Optional

import tyro


@dataclass
class Bench:
    """Train, prune and measure the runs of a suite; what is recorded already is not run again."""

    suite: tyro.conf.Positional[
        Literal["paper", "frontier", "speed", "scaling", "peers", "ablation", "kilo", "files", "splats", "frontier-all"]
    ]
    """paper: tables and figures of Ding et al. 2025; frontier: every strategy and its controls; speed: dense and pruned
    in turns, and several sizes beside the host's own model; scaling: time and memory by width, samples, rays and
    pixels; peers: other libraries on the same checkpoint; ablation: the best recipe, and each of its parts left out;
    kilo: tiny networks of a dense run, beside their controls; files: finished networks, tiny networks and Gaussians as
    small files, read back; splats: Gaussians, scored, cut and recovered, beside theirs; frontier-all: all that files
    makes, and the runs beside each other."""
    data: Optional[Path] = None
    """Data set in the Blender or Nerfstudio format. None: the built-in scene."""
    output: Path = Path("benchmarks/results")
    """Folder of the records; another one for every scene, scale and schedule. `work` in it (checkpoints, logs) may be
    deleted."""
    scale: Literal["smoke", "cpu", "gpu"] = "cpu"
    """Sizes of network and runs: smoke takes a minute, cpu suits two cores, gpu has the paper's size."""
    seeds: Optional[tuple[int, ...]] = None
    """Seeds. None: the scale's."""
    start_steps: Optional[int] = None
    """Dense training steps before the cut. None: the scale's."""
    steps: Optional[int] = None
    """Training steps in all. None: the scale's."""
    views: Optional[int] = None
    """Evaluation views that quality is measured on. None: the scale's, for splats all."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of the method for all runs, by dotted path, e.g. `pipeline.model.base-mlp-layer-width 128`; a value of
    several words is quoted, e.g. `pipeline.model.skip-connections "2 4"`."""
    only: Annotated[str, tyro.conf.arg(metavar="PATTERN")] = "*"
    """Names of runs to carry out, as a pattern, or several with commas between them; runs that they go on from are
    added."""
    threads: Optional[int] = None
    """Threads of one CPU operation; 1 gives steady times on a machine that does other things as well. None: all."""
    dry_run: bool = False
    """Print the runs and the estimated minutes, and do nothing."""

    def main(self) -> None:
        """Carries the suite out.

        Raises:
            ValueError: If an option is wrong, or another process works on the same folder.
            RecordError: If a record in the output folder cannot be read.
            SystemExit: If a run failed; the others are recorded.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.bench.suite_run import run_suite  # noqa: PLC0415

        run_suite(self)
