"""What records are compared as.

A study holds what may be compared: one scene, one scale, one method, one device, one schedule. An arm holds the runs of
a study that differ in the seed only. Times are never taken across studies.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np

from nerfstudio_prune.records.schema import MachineRecord, RunRecord, SpeedRecord, Stage
from nerfstudio_prune.report.stats import Stat

CONTINUE, SCRATCH = "continue", "scratch"
ANY_STRATEGY = "any"
"""Strategy of runs in which the choice of the neurons plays no part."""
MAX_NAME = 60
"""Characters of a part of a file name; longer ones are cut. Disks take 255 for the whole."""
RECIPES = ("recipe", "preset")
"""What the strategy of an arm begins with that prunes by several means at once."""
BUSY_BELOW = 0.7
"""A CPU run that had less of its threads' time than this is marked: others used the machine."""


@dataclass(frozen=True)
class RoleTraits:
    """What the role of a record means for its place in tables and plots."""

    label: str = "{choice}"
    """Name in plots; `{choice}` is how the neurons were chosen, `{arm}` the arm."""
    in_frontier: bool = True
    """Whether it is a row of the table of quality against size and time."""
    weight_options: Mapping[str, str] = field(default_factory=dict)
    """Option of an event -> what it is called, where single weights are masked instead of neurons: there is no pruning
    ratio, and the size of the tensors says nothing."""


ROLES = {
    "start": RoleTraits("dense start", in_frontier=False),
    "dense": RoleTraits("dense"),
    "pruned": RoleTraits(),
    "masked": RoleTraits("masked {choice}"),
    "small": RoleTraits("small from scratch"),
    "small-equal-time": RoleTraits("small, equal time"),
    "peer": RoleTraits(in_frontier=False),
    "edges": RoleTraits("{arm}", weight_options={"edge_threshold": "threshold", "edge_keep_fraction": "share kept"}),
}
"""Role in a record -> what it means, in the order of rows of one pruning ratio."""
FRONTIER_ROLES = tuple(role for role, traits in ROLES.items() if traits.in_frontier)
"""Roles that are compared by size and time."""
SIZED_ROLES = tuple(role for role in FRONTIER_ROLES if not ROLES[role].weight_options)
"""Those of them whose tensors have the size that counts."""


Moment = Literal["early", "middle", "late"]
EARLY, LATE = 0.5, 0.75
"""Shares of a training: cuts before the first are early ones, and late ones from the second on."""


@dataclass(frozen=True)
class Entry:
    """A training run and where its record lies."""

    record: RunRecord
    path: Path

    @property
    def root(self) -> Path:
        """Folder that pictures are relative to."""
        return self.path.parent.parent


@dataclass
class Arm:
    """Runs of a study that differ in the seed only."""

    entries: list[Entry]
    """By seed."""
    label: str = ""
    """For plots: what it is, without the pruning ratio."""

    @property
    def first(self) -> RunRecord:
        """The run of the lowest seed."""
        return self.entries[0].record

    @property
    def runs(self) -> list[RunRecord]:
        """By seed."""
        return [entry.record for entry in self.entries]

    @property
    def name(self) -> str:
        """What is compared, without the seed."""
        return self.first.arm

    @property
    def short_name(self) -> str:
        """The same without what the schedule says already."""
        return self.name.removesuffix("-decay")

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.entries)

    @property
    def inherits(self) -> bool:
        """Whether it is a pruned network that keeps its weights."""
        return self.first.role == "pruned" and self.first.recovery != SCRATCH

    @property
    def traits(self) -> RoleTraits:
        """What its role means."""
        return ROLES[self.first.role]

    @property
    def weight_option(self) -> Optional[tuple[str, float]]:
        """Which option chose the single weights that are masked, as it is called, and its value; None without one."""
        history = [event for event in self.first.history if not event.error]
        options = history[-1].options if history else {}
        values = {words: options.get(name) for name, words in self.traits.weight_options.items()}
        return next(((words, float(v)) for words, v in values.items() if isinstance(v, (int, float))), None)

    @property
    def recipe(self) -> bool:
        """Whether it is pruned by a recipe, whole or without a part, or by a preset."""
        return self.first.role == "pruned" and self.first.strategy.startswith(RECIPES)

    @property
    def lacks_a_part(self) -> bool:
        """Whether it is a recipe that one part was left out of."""
        return self.recipe and " without " in self.first.strategy

    @property
    def cuts(self) -> list[int]:
        """Steps that were taken before each cut of the first run."""
        return [event.step for event in self.first.history if not event.error]

    def stat(self, value: Callable[[RunRecord], Optional[float]]) -> Stat:
        """A quantity over the seeds."""
        return Stat.of(value(run) for run in self.runs)

    def at(self, label: str, value: Callable[[Stage], Optional[float]]) -> Stat:
        """A quantity of a stage over the seeds."""
        stages = [run.end if label == "end" else run.stage(label) for run in self.runs]
        return Stat.of(value(stage) if stage is not None else None for stage in stages)

    @property
    def psnr(self) -> Stat:
        """PSNR at the end, in dB."""
        return self.at("end", psnr)

    @property
    def busy(self) -> bool:
        """Whether a run on a CPU got much less processor time than its threads could take."""
        return any(busy(run) for run in self.runs)

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """Dense first, then by what is left, controls behind the pruned, masks of single weights last."""
        run = self.first
        unsized = math.inf if self.traits.weight_options else 0.0
        ratio = unsized if run.pruning_ratio is None else run.pruning_ratio
        return (ratio, list(ROLES).index(run.role), run.recovery == SCRATCH, run.strategy, run.score or "", run.arm)


@dataclass
class Study:
    """One scene, scale, method, device and schedule."""

    scene: str
    scale: str
    method: str
    device: str
    """What must agree for two times to be compared."""
    schedule: str = ""
    """When its runs are cut and end, and how their rate falls; empty where the scale decides all of it."""
    arms: list[Arm] = field(default_factory=list)
    speeds: list[SpeedRecord] = field(default_factory=list)
    controls: Mapping[Path, RunRecord] = field(default_factory=dict)
    """Record of a run -> the dense run that it is compared with."""
    letter: str = "A"
    """Short name of the device."""

    @property
    def title(self) -> str:
        """For headings."""
        return ", ".join(part for part in (self.scene, f"scale {self.scale}", self.schedule, self.device) if part)

    @property
    def slug(self) -> str:
        """For file names: unique, and short enough for any disk, whatever the names in the records are."""
        parts = (self.scene, self.scale, self.method, self.letter, self.schedule)
        return file_name("-".join(part for part in parts if part).lower(), parts)

    @property
    def machines(self) -> list[MachineRecord]:
        """Machine of every record."""
        return [run.machine for arm in self.arms for run in arm.runs] + [speed.machine for speed in self.speeds]

    @property
    def ablation(self) -> bool:
        """Whether it takes a recipe apart. Such a study has a table of its own."""
        return any(arm.recipe for arm in self.arms)

    @property
    def moment(self) -> Moment:
        """When its networks are cut: in the first half of their training, in its last quarter, or between."""
        first = min((arm.cuts[0] / arm.first.steps for arm in self.arms if arm.cuts), default=1.0)
        return "early" if first < EARLY else "middle" if first < LATE else "late"

    def find(self, role: str, **fields: Any) -> list[Arm]:
        """Arms of a role whose first run has these values."""
        return [
            arm
            for arm in self.arms
            if arm.first.role == role and all(getattr(arm.first, name) == value for name, value in fields.items())
        ]

    @property
    def dense(self) -> Optional[Arm]:
        """The dense control."""
        return next(iter(self.find("dense")), None)

    @property
    def ratios(self) -> list[float]:
        """Pruning ratios of the arms, ascending."""
        return sorted({arm.first.pruning_ratio for arm in self.arms if arm.first.pruning_ratio is not None})

    def blocks(self, roles: tuple[str, ...]) -> Iterator[tuple[Optional[float], list[Arm]]]:
        """Arms of these roles by pruning ratio, in order; without one the dense arm first, masks of weights last."""
        arms = [arm for arm in self.arms if arm.first.role in roles]
        keys = list(dict.fromkeys(arm.sort_key[0] for arm in arms))
        for key in keys:
            block = [arm for arm in arms if arm.sort_key[0] == key]
            yield block[0].first.pruning_ratio, block

    def reinitialised(self, arm: Arm) -> Optional[Arm]:
        """The arm of the same widths or masks that starts from a new initialisation at the cut."""
        run = arm.first
        candidates = self.find(run.role, pruning_ratio=run.pruning_ratio, recovery=SCRATCH)
        candidates = [other for other in candidates if other.weight_option == arm.weight_option]
        fitting = [other for other in candidates if other.first.strategy in (run.strategy, ANY_STRATEGY)]
        return next(iter(fitting), None)

    def delta(self, arm: Arm, seeds: Optional[set[int]] = None) -> Stat:
        """PSNR at the end less that of the dense control of the same seed, in dB."""
        pairs = [(e.record, self.controls.get(e.path)) for e in arm.entries if seeds is None or e.record.seed in seeds]
        return Stat(tuple(run.end.quality.psnr - control.end.quality.psnr for run, control in pairs if control))

    def delta_at_equal_time(self, arm: Arm) -> Stat:
        """`gain_at_equal_time` over the dense control of the same seed, over the seeds that have one, in dB."""
        pairs = [(entry.record, self.controls.get(entry.path)) for entry in arm.entries]
        gains = [gain_at_equal_time(run, control) for run, control in pairs if control]
        return Stat(tuple(gain for gain in gains if gain is not None))

    def time_share(self, arm: Arm, other: Optional[Arm] = None) -> Stat:
        """Training time of an arm over that of another, else the dense one, over the seeds that both have."""
        others = {run.seed: run for run in (other or self.dense or arm).runs}
        pairs = [(run, others[run.seed]) for run in arm.runs if run.seed in others]
        return Stat(
            tuple(
                run.seconds.train_total / partner.seconds.train_total
                for run, partner in pairs
                if timed_alike(run, partner) and partner.seconds.train_total > 0
            )
        )


def file_name(text: str, identity: object) -> str:
    """A part of a file name: letters, digits and dashes, cut, and a digest that keeps two of them apart.

    Args:
        text: What it says.
        identity: What it stands for; equal ones have equal names.
    """
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in text[:MAX_NAME])
    return f"{safe}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:8]}"


def by_study(studies: Sequence[Study], make: Callable[[Study], Optional[str]]) -> Iterator[tuple[Study, str]]:
    """What can be made of each study."""
    for study in studies:
        text = make(study)
        if text:
            yield study, text


def without_ablations(studies: Sequence[Study]) -> list[Study]:
    """Studies in which arms differ in how neurons are chosen: in a recipe other things decide as well."""
    return [study for study in studies if not study.ablation]


def psnr(stage: Stage) -> float:
    """PSNR of a stage in dB."""
    return stage.quality.psnr


def paired(arm: Arm, other: Arm) -> Stat:
    """PSNR at the end of one arm less that of another, over the seeds that both have, in dB."""
    others = {run.seed: run for run in other.runs}
    pairs = [(run, others[run.seed]) for run in arm.runs if run.seed in others]
    return Stat(tuple(run.end.quality.psnr - partner.end.quality.psnr for run, partner in pairs))


def gain_at_equal_time(run: RunRecord, dense: RunRecord) -> Optional[float]:
    """How far the end of a run's curve lies above the dense curve at the same training time.

    The dense curve is a straight line between two points. A run that was cut has taken less time for its steps than
    the dense one, so that the dense curve covers its end.

    Args:
        run: A run.
        dense: The dense run that it is compared with.

    Returns:
        Difference of the PSNR on the held-out rays of the curve, in dB. None if the times or the rays cannot be
        compared (other device or clock, a busy machine, other rays), or the dense curve does not cover the time.
    """
    if not timed_alike(run, dense) or run.curve_rays != dense.curve_rays or not run.curve or not dense.curve:
        return None
    end, times = run.curve[-1], [point.train_seconds for point in dense.curve]
    if not times[0] <= end.train_seconds <= times[-1]:
        return None
    return end.psnr - float(np.interp(end.train_seconds, times, [point.psnr for point in dense.curve]))


def timed_alike(run: RunRecord, other: RunRecord) -> bool:
    """Whether the training times of two runs can be compared: of one device and clock, with no busy machine."""
    return (run.machine.key, run.clock) == (other.machine.key, other.clock) and not (busy(run) or busy(other))


def busy(run: RunRecord) -> bool:
    """Whether a run on a CPU got much less processor time than its threads could take."""
    available = run.seconds.train * run.machine.threads
    return run.machine.device_type == "cpu" and run.seconds.train_cpu < BUSY_BELOW * available
