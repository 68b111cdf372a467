"""Starts pruning as soon as the training has become slow."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun

WINDOW_PERCENT = 5
"""Share of the run over which the slope of the training PSNR is taken."""


def slope(values: Sequence[float]) -> float:
    """Slope of the least-squares line through equally spaced values, per step; 0 for fewer than two."""
    count = len(values)
    if count < 2:
        return 0.0
    middle = (count - 1) / 2
    products = sum((i - middle) * value for i, value in enumerate(values))
    return products / (count * (count * count - 1) / 12)


class Plateau:
    """Watches a quality that rises ever more slowly.

    Args:
        window: Steps that the slope is taken over, >= 2; nothing is said before so many were seen.
        least_slope: Slope per step, below which the plateau is reached.
    """

    def __init__(self, window: int, least_slope: float) -> None:
        self.least_slope = least_slope
        self._values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> bool:
        """Takes up the value of a step; whether the plateau is reached."""
        self._values.append(value)
        return len(self._values) == self._values.maxlen and slope(self._values) < self.least_slope


class AutoStart(Listener):
    """Option `auto_start`: moves all events forward, once.

    Args:
        run: The run.
    """

    def __init__(self, run: PruneRun) -> None:
        self.run = run
        self.least_rise = run.recipe.auto_start
        self._plateau: Optional[Plateau] = None
        if self.least_rise is not None:
            window = max(2, run.num_iterations * WINDOW_PERCENT // 100)
            self._plateau = Plateau(window, self.least_rise / window)

    def after_cut(self, event: PruneEvent) -> None:
        """Leaves the plan alone once a person has cut by hand."""
        if event.scheduled is None:
            self._plateau = None

    def after_undo(self, event: PruneEvent) -> None:
        """Leaves the plan alone once a person has gone back."""
        self._plateau = None

    def observe(self, step: int, psnr: Tensor) -> None:
        """Looks at a training step; changes the plan when it is time."""
        state = self.run.state
        if self._plateau is None or self.run.paused or state.phase != "dense" or not state.pending:
            return
        pending = state.pending
        if step >= pending[0].step or not self._plateau.add(float(psnr)):
            return
        self._plateau = None
        ahead = pending[0].step - step
        state.plan = [replace(event, step=event.step - ahead) if event in pending else event for event in state.plan]
        CONSOLE.print(
            f"The training PSNR rises by less than {self.least_rise:g} dB within {WINDOW_PERCENT} % of the run: "
            f"pruning starts at step {step} instead of {step + ahead}"
        )
