"""What is written to TensorBoard."""

from typing import Optional

from nerfstudio.utils import writer

from nerfstudio_prune.core.events import Phase, PruneEvent
from nerfstudio_prune.nerf.sizes import Sizes

PHASES: tuple[Phase, ...] = ("dense", "pruning", "recovery")
"""Number of a phase -> its name."""


def write_scalars(step: int, phase: Phase, sizes: Sizes, kind: str, event: Optional[PruneEvent] = None) -> None:
    """Writes the state under `Prune/`.

    Args:
        step: Training step.
        phase: Phase of the run.
        sizes: Sizes of the network.
        kind: What the sizes of the groups count: `width` or `edges`.
        event: Event that has just happened, if there is one.
    """
    writer.put_scalar("Prune/parameters", sizes.parameters, step)
    writer.put_scalar("Prune/macs_per_ray", sizes.macs_per_ray, step)
    writer.put_scalar("Prune/phase", PHASES.index(phase), step)
    for name, size in sizes.groups.items():
        writer.put_scalar(f"Prune/{kind}/{name}", size, step)
    if event is not None:
        for label, metrics in (("before", event.metrics_before), ("after", event.metrics_after)):
            for name, value in metrics.items():
                writer.put_scalar(f"Prune/{name}_{label}", value, step)
