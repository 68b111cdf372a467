"""Texts around the tables, and the short tables of a README."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Optional

from nerfstudio_prune.report.claims import claims_text
from nerfstudio_prune.report.markup import escape
from nerfstudio_prune.report.paper import compact_table
from nerfstudio_prune.report.study import FRONTIER_ROLES, Study
from nerfstudio_prune.report.tables import (
    ablation_table,
    frontier_table,
    measured_table,
    peers_table,
    speed_table,
    versions_text,
)

MISSING = "No records for this; `ns-prune bench {}` makes them."
BUSY = (
    "† The machine was busy: a run got less than 70 % of its threads' processor time. Its seconds and rays/s say "
    "little; see the section on speed, where both networks were measured in turns."
)


def missing(suite: str) -> str:
    """Line in place of a section that there are no records for."""
    return MISSING.format(suite)


def by_study(studies: Sequence[Study], make: Callable[[Study], Optional[str]]) -> Iterator[tuple[Study, str]]:
    """What can be made of each study."""
    for study in studies:
        text = make(study)
        if text:
            yield study, text


def measured_text(studies: Sequence[Study]) -> str:
    """What was measured, where, and whether times can be compared."""
    devices = {study.letter: study.device for study in studies}
    lines = [measured_table(studies), versions_text(studies)]
    if len(devices) > 1:
        names = "; ".join(f"{letter}: {escape(device)}" for letter, device in sorted(devices.items()))
        lines.insert(
            0,
            f"**The records come from {len(devices)} devices ({names}).** Every row names its device by this letter. "
            "Times are compared within one device only; no ratio mixes two.",
        )
    else:
        lines.insert(0, "All records come from one device.")
    lines.append(
        "PSNR (dB), SSIM and LPIPS are of the fine field, means over the evaluation views; sizes and "
        "multiply-accumulates (MACs) count the coarse and the fine field. MB are 10⁶ bytes, of fp32. «±» is the "
        "standard deviation over n seeds. Δ dense is the difference to the dense run of the same seed, seed by seed. "
        "The best mean of each group of equal pruning ratio is bold, whether or not the difference is clear. "
        "With one thread on a CPU, training and rendering are timed by the processor's clock, else by the wall clock."
    )
    return "\n\n".join(lines)


def ablation_text(study: Study, compact: bool = False) -> Optional[str]:
    """The table of an ablation, with the footnote that it needs; None for a study without a recipe.

    Args:
        study: The study.
        compact: Fewer columns, for the README.
    """
    table = ablation_table(study, compact)
    busy = any(arm.busy for arm in study.arms if arm.first.role in FRONTIER_ROLES)
    return f"{table}\n\n{BUSY}" if table and busy else table


def without_ablations(studies: Sequence[Study]) -> list[Study]:
    """Studies in which arms differ in how neurons are chosen: in a recipe other things decide as well."""
    return [study for study in studies if not study.ablation]


def caption(study: Study) -> str:
    """Line below a table of a README: where its numbers come from."""
    seeds = sorted({run.seed for arm in study.arms for run in arm.runs})
    parts = [escape(study.title)]
    views = sorted({run.eval_views for arm in study.arms for run in arm.runs})
    if views:
        parts.append(f"{views[0] if len(views) == 1 else f'{views[0]} to {views[-1]}'} views")
    return ", ".join(parts) + (f", seeds {', '.join(map(str, seeds))}" if seeds else "") + "."


def _frontier(study: Study) -> Optional[str]:
    return frontier_table(study, compact=True) if any(arm.inherits for arm in study.arms) else None


def _short(studies: Sequence[Study], suite: str, make: Callable[[Study], Optional[str]]) -> str:
    parts = [f"{text}\n\n{caption(study)}" for study, text in by_study(studies, make)]
    return "\n\n".join(parts) or missing(suite)


def readme_tables(studies: Sequence[Study]) -> dict[str, Callable[[], str]]:
    """Tables that a README may hold: name -> what makes it."""
    plain = without_ablations(studies)
    return {
        "frontier": partial(_short, plain, "frontier", _frontier),
        "ablation": partial(_short, studies, "ablation", partial(ablation_text, compact=True)),
        "paper": partial(_short, plain, "paper", compact_table),
        "speed": partial(_short, studies, "speed", partial(speed_table, compact=True)),
        "peers": partial(_short, plain, "peers", partial(peers_table, compact=True)),
        "claims": partial(_short, plain, "frontier", claims_text),
    }
