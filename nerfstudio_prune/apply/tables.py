"""What `ns-prune apply` prints beside what an event prints."""

from collections.abc import Sequence
from typing import Any, Optional

from rich.table import Table

from nerfstudio_prune.apply.quality import ERRORS, Drop
from nerfstudio_prune.apply.searching import Probe
from nerfstudio_prune.core.subject import Subject

BYTES = 4
"""Of a number in float32."""


def size_table(subject: Subject[Any], before: float, probes: Sequence[Probe], measured_on: str) -> Table:
    """Quality against size: a row for each size that was tried, the largest first.

    Args:
        subject: What is pruned, as it is.
        before: PSNR before, in dB.
        probes: What was tried.
        measured_on: What it was measured on.
    """
    counted = next(iter(subject.labels))
    table = Table(title=f"Size and quality, on {measured_on}", title_justify="left")
    for column in (subject.labels[counted], "share", "MB in fp32", "PSNR dB", f"loss dB, ± {ERRORS} standard errors"):
        table.add_column(column, justify="right")
    whole = subject.sizes()
    rows = [(whole, before, "—")]
    rows += [(p.sizes, p.drop.psnr, loss_text(p.drop)) for p in sorted(probes, key=lambda p: -p.share)]
    for sizes, psnr, loss in rows:
        share = sizes.costs[counted] / max(1, whole.costs[counted])
        megabytes = BYTES * sizes.costs["parameters"] / 1e6
        table.add_row(f"{sizes.costs[counted]:,}", f"{share:.1%}", f"{megabytes:.3f}", f"{psnr:.2f}", loss)
    return table


def loss_text(drop: Optional[Drop]) -> str:
    """A loss with its uncertainty, in dB.

    Args:
        drop: The loss; None where it is not known.
    """
    if drop is None:
        return "not measured"
    return f"{drop.mean:+.3f} ± {ERRORS * drop.error:.3f}"
