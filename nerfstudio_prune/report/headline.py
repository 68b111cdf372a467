"""What the records come to: the pruned network that stands for them, and five sentences about it.

The network is chosen by a rule that is the same for all records, and the sentences name it: presets before other
recipes before single strategies, then most seeds, then best quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Optional

from nerfstudio_prune.records.schema import SpeedRecord
from nerfstudio_prune.report.claims import distance, of, seeds_text, verdict
from nerfstudio_prune.report.markup import Column, code, counted, escape, item_table, joined
from nerfstudio_prune.report.stats import TIMES, number
from nerfstudio_prune.report.study import Arm, Study, paired
from nerfstudio_prune.report.tables import rate_text, sizes_of, speed_factors

KINDS = ("pruned network", "recipe", "preset")
"""What a network may be chosen among; a later kind goes before an earlier one."""
SAME_SIZE = 0.05
"""Relative difference of the parameters up to which a network from scratch is one of the same size."""


@dataclass(frozen=True)
class Headline:
    """The pruned network that stands for all records, and what it is compared with."""

    study: Study
    dense: Arm
    arm: Arm
    kind: str
    rivals: list[Arm]
    """All that it was chosen among within its study, itself included, largest first."""
    small: Optional[Arm]
    """A network of its size from scratch."""

    @property
    def controls(self) -> list[Arm]:
        """The dense network, and the small one if there is one."""
        return [self.dense, *([self.small] if self.small else [])]

    @property
    def arms(self) -> list[Arm]:
        """Lines of the figure: the controls and the pruned networks by size."""
        return [*self.controls, *([self.arm] if self.kind == KINDS[0] else self.rivals)]


def find_headline(studies: Sequence[Study]) -> Optional[Headline]:
    """Chooses the network; None if no pruned network has a dense one beside it."""
    candidates = [
        (study, arm)
        for study in studies
        for arm in study.arms
        if study.dense is not None and arm.inherits and not arm.lacks_a_part and study.delta(arm).n == arm.n
    ]
    if not candidates:
        return None

    def order(candidate: tuple[Study, Arm]) -> tuple[int, int, float]:
        study, arm = candidate
        return KINDS.index(_kind(arm)), arm.n, study.delta(arm).mean or 0.0

    study, arm = max(candidates, key=order)
    rivals = [a for s, a in candidates if s is study and _kind(a) == _kind(arm) and a.n == arm.n]
    rivals.sort(key=lambda rival: -sizes_of(rival).parameters)
    parameters = sizes_of(arm).parameters
    alike = [a for a in study.find("small") if abs(sizes_of(a).parameters / parameters - 1) < SAME_SIZE]
    assert study.dense is not None
    return Headline(study, study.dense, arm, _kind(arm), rivals, next(iter(alike), None))


def _kind(arm: Arm) -> str:
    word = arm.first.strategy.partition(" ")[0]
    return word if word in KINDS else KINDS[0]


def share_left(headline: Headline, arm: Arm) -> str:
    """Share of the dense network's parameters that an arm has."""
    return f"{100 * sizes_of(arm).parameters / sizes_of(headline.dense).parameters:.0f} %"


def _in_time(headline: Headline, arm: Arm) -> str:
    share = headline.study.time_share(arm).mean
    return "" if share is None else f" in {number(share, 2)} of the training time"


def sentences(studies: Sequence[Study]) -> list[str]:
    """Up to five sentences: what was won, against what, how fast, at which price, and what is behind them."""
    headline = find_headline(studies)
    made = []
    if headline is not None:
        made += [_won(headline), _against(headline)]
    made.append(_fast(studies, headline))
    if headline is not None:
        made.append(_price(headline))
    made.append(_behind(studies))
    return [sentence for sentence in made if sentence]


def _won(headline: Headline) -> str:
    arm, delta = headline.arm, headline.study.delta(headline.arm)
    among = f", the best of {len(headline.rivals)} {headline.kind}s," if len(headline.rivals) > 1 else ""
    return (
        f"**What was won:** {code(arm.short_name)}{among} keeps {share_left(headline, arm)} of the parameters"
        f"{_cut_text(arm)} and ends {distance(delta)} the dense network of equal steps{_in_time(headline, arm)}: "
        f"{verdict(delta)} ({seeds_text([delta])})."
    )


def _cut_text(arm: Arm) -> str:
    if not arm.cuts:
        return ""
    steps = f"{number(arm.cuts[0])} of {number(arm.first.steps)} steps"
    return f" after a cut at {steps}" if len(arm.cuts) == 1 else f" after {len(arm.cuts)} cuts, the first at {steps},"


def _against(headline: Headline) -> str:
    study, arm, small = headline.study, headline.arm, headline.small
    parts = []
    gain = study.delta_at_equal_time(arm)
    if gain.mean is not None:
        parts.append(
            f"{distance(gain)} the point that the dense network, in the midst of its schedule, had reached "
            f"after as many seconds ({seeds_text([gain])})"
        )
    if small is not None and (difference := paired(arm, small)).n:
        time = study.time_share(small, arm).mean
        parts.append(
            f"{distance(difference)} a network of that size trained from scratch{rate_text(study, small)}, "
            f"{verdict(difference)} ({seeds_text([difference])})"
            + ("" if time is None else f", which takes {number(time, 2)} of its time")
        )
    return f"**Against what:** it ends {joined(parts)}." if parts else ""


def _fast(studies: Sequence[Study], headline: Optional[Headline]) -> str:
    """Of the measured networks, the one whose size is nearest to that of the headline, else the smallest change."""
    speeds = [(study, record) for study in studies for record in study.speeds]
    if not speeds:
        return ""
    aim = None if headline is None else sizes_of(headline.arm).parameters

    def away(item: tuple[Study, SpeedRecord]) -> float:
        return item[1].pruning_ratio if aim is None else abs(item[1].pruned.sizes.parameters - aim)

    study, record = min(speeds, key=away)
    factors = speed_factors(record)
    if not factors["training step"]:
        return ""
    left = 100 * record.pruned.sizes.parameters / record.dense.sizes.parameters
    step, blocks = 1 / median(factors["training step"]), len(factors["training step"])
    rendering = f" and {1 / median(factors['rendering']):.2f} for rendering" if factors["rendering"] else ""
    return (
        f"**How fast:** a network with {left:.0f} % of the parameters takes {step:.2f} of the dense one's time for a "
        f"training step{rendering}, measured in turns (medians of {blocks} blocks, {escape(study.device)})."
    )


def _price(headline: Headline) -> str:
    # The best of each size.
    ordered = sorted(headline.rivals, key=lambda arm: headline.study.delta(arm).mean or 0.0)
    best = {sizes_of(arm).parameters: arm for arm in ordered}
    smaller = [best[size] for size in sorted(best, reverse=True) if size < sizes_of(headline.arm).parameters]
    if not smaller:
        return ""
    parts = [
        f"{code(arm.short_name)} with {share_left(headline, arm)} of the parameters ends "
        f"{distance(headline.study.delta(arm))} the dense network{_in_time(headline, arm)}"
        for arm in smaller
    ]
    deltas = [headline.study.delta(arm) for arm in smaller]
    return f"**At which price:** smaller still, {joined(parts)} ({seeds_text(deltas)})."


def _behind(studies: Sequence[Study]) -> str:
    every = [run for study in studies for arm in study.arms for run in arm.runs]
    # A control from scratch may stand beside cuts at several steps; it was trained once.
    runs = list({(run.digest, run.created, run.name, run.machine.device): run for run in every}.values())
    deltas = [study.delta(arm) for study in studies for arm in study.arms if arm.inherits]
    deltas = [delta for delta in deltas if delta.n]
    parts = []
    if runs:
        widths = [max(run.end.sizes.parts.values(), default=0) for run in runs]
        scenes = sorted({run.scene for run in runs})
        steps = sorted({run.steps for run in runs if run.role == "dense"} or {run.steps for run in runs})
        extent = number(steps[0]) if len(steps) == 1 else f"{number(steps[0])} to {number(steps[-1])}"
        devices = sorted({study.device for study in studies})
        parts.append(
            f"{counted(len(runs), 'run')} of networks up to {max(widths)} neurons wide, {extent} steps, on "
            f"{counted(len(scenes), 'scene')} ({', '.join(map(escape, scenes))}) and "
            f"{counted(len(devices), 'device')} ({'; '.join(map(escape, devices))})"
        )
    if deltas:
        above, below = (sum(delta.direction == way for delta in deltas) for way in (1, -1))
        parts.append(
            f"of {counted(len(deltas), 'comparison')} of a pruned network with the dense one of equal steps, "
            f"{of(below)} end clearly below and {of(above)} clearly above ({seeds_text(deltas)})"
        )
    return f"**What is behind it:** {'; '.join(parts)}; nothing beyond that was measured." if parts else ""


def headline_table(studies: Sequence[Study]) -> Optional[str]:
    """The network, its controls, and all whole pruned networks of its study by size; None without one."""
    headline = find_headline(studies)
    if headline is None:
        return None
    study = headline.study
    columns = [
        Column("network", lambda arm: code(arm.short_name) + rate_text(study, arm)),
        Column("parameters", lambda arm: number(sizes_of(arm).parameters)),
        Column("smaller", lambda arm: f"{sizes_of(headline.dense).parameters / sizes_of(arm).parameters:.1f}{TIMES}"),
        Column("training time", lambda arm: number(study.time_share(arm).mean, 2)),
        Column("PSNR dB", lambda arm: arm.psnr.text(2)),
        Column("Δ dense dB", lambda arm: study.delta(arm).text(2, signed=True)),
        Column("Δ dense at equal time dB", lambda arm: study.delta_at_equal_time(arm).text(2, signed=True)),
        Column("seeds", lambda arm: str(arm.n)),
    ]
    pruned = [arm for arm in study.arms if arm.inherits and not arm.lacks_a_part]
    pruned.sort(key=lambda arm: -sizes_of(arm).parameters)
    return item_table(columns, [[*headline.controls, *pruned]])
