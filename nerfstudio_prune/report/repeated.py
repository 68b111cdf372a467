"""Runs that differ in the seed only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Optional, TypeVar

from nerfstudio_prune.report.stats import Stat

RecordT = TypeVar("RecordT", bound=Any)
"""Record of a run: has an `arm` and a `seed`; for `at` also stages, and the last one of them as `end`."""


@dataclass
class Repeated(Generic[RecordT]):
    """Runs of one arm."""

    runs: list[RecordT]
    """By seed."""

    @property
    def first(self) -> RecordT:
        """The run of the lowest seed."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """What is compared, without the seed."""
        return self.first.arm

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.runs)

    def stat(self, value: Callable[[RecordT], Optional[float]]) -> Stat:
        """A quantity over the seeds."""
        return Stat.of(value(run) for run in self.runs)

    def at(self, label: str, value: Callable[[Any], Optional[float]]) -> Stat:
        """A quantity of a stage over the seeds."""
        stages = [run.end if label == "end" else run.stage(label) for run in self.runs]
        return Stat.of(None if stage is None else value(stage) for stage in stages)

    def less(self, other: Optional["Repeated[RecordT]"], value: Callable[[RecordT], Optional[float]]) -> Stat:
        """A quantity less that of another arm, seed by seed, over the seeds that both have."""
        others = {} if other is None else {run.seed: run for run in other.runs}
        pairs = [(value(run), value(others[run.seed])) for run in self.runs if run.seed in others]
        return Stat.of(None if a is None or b is None else a - b for a, b in pairs)
