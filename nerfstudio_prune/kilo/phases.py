"""What a step of a run is for, and at which rate: a function of the step alone."""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from nerfstudio_prune.kilo.config import KiloOptions

Phase = Literal["distil", "finetune"]
"""distil: learn from the teacher; finetune: learn from photos."""


def falling(first: Any, last: Any, step: int, steps: int) -> float:
    """Learning rate that falls by the same factor with each step.

    Args:
        first: That of the first step, > 0.
        last: That of the last one, > 0.
        step: Number of the step, >= 0.
        steps: Number of steps.
    """
    share = min(step / max(1, steps - 1), 1.0)
    return float(first * (last / first) ** share)


@dataclass(frozen=True)
class Phases:
    """The phases of a run, one after the other.

    Args:
        options: Options in force.
    """

    options: KiloOptions

    @property
    def distil_steps(self) -> int:
        """Steps of the first phase; the number of the first step of the second one."""
        return self._steps(self.options.distil)

    @property
    def steps(self) -> int:
        """Steps of both phases."""
        return self.distil_steps + self._steps(self.options.finetune)

    @property
    def tightening_step(self) -> int:
        """Step before which voxels leave that nothing is seen in; the number of steps where that is only at the end."""
        own: Any = self.options.finetune
        return self.distil_steps + ceil(own.tighten_at * own.steps)

    def tightens(self, step: int) -> bool:
        """Whether voxels that nothing is seen in leave before a step, or, at the number of steps, at the end. Networks
        that no photo was shown to keep theirs.

        Args:
            step: Training step.
        """
        own: Any = self.options.finetune
        return own.tighten_threshold > 0 and own.steps > 0 and step in (self.tightening_step, self.steps)

    def phase(self, step: int) -> Phase:
        """What a step is for.

        Args:
            step: Training step.
        """
        return "distil" if step < self.distil_steps else "finetune"

    def rate(self, step: int) -> float:
        """Learning rate of a step: falls by the same factor with each, from the phase's first rate to its last.

        Args:
            step: Training step.
        """
        first = self.phase(step) == "distil"
        own: Any = self.options.distil if first else self.options.finetune
        place = step if first else step - self.distil_steps
        return falling(own.lr, own.lr_final, place, own.steps)

    @staticmethod
    def _steps(own: Any) -> int:
        return int(own.steps)
