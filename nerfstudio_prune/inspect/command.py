"""`ns-prune inspect`: what the model of a run is, and what pruning did to it and has yet to do. Loads no data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass
class Inspect:
    """Show the model of a run, and the history and plan of its pruning: widths, costs, sparsity and scores of a
    network; number, degree, MB, opacities and sizes of Gaussians."""

    load_config: Path
    """The run's config.yml, as for ns-eval."""
    step: Optional[int] = None
    """Step of the checkpoint. None: the newest one."""
    score: Optional[tuple[str, ...]] = None
    """Scores of the neurons to show: w_in, w_out, w_in_w_out, sensitivity. None: w_out."""
    output: Optional[Path] = None
    """File for the same as JSON."""

    def main(self) -> None:
        """Inspects and prints the run.

        Raises:
            ValueError: If there is nothing to inspect, there is no such score, or the JSON cannot be written.
        """
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.inspect.showing import inspect_run, show  # noqa: PLC0415

        show(inspect_run(self.load_config, self.step, self.score), self.output)
