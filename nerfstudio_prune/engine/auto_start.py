"""Starts pruning as soon as the training has become slow."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Optional

import msgspec
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun

MEMORY = "auto_start"
"""Name in the pruning state."""
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


class Plateau(msgspec.Struct, forbid_unknown_fields=True):
    """Watches a quality that rises ever more slowly. Plain, so that it goes into checkpoints."""

    window: Annotated[int, msgspec.Meta(ge=2)]
    """Values that the slope is taken over; nothing is said before so many were seen."""
    least_slope: float
    """Slope per value, below which the plateau is reached."""
    values: list[float] = []
    """The newest ones, at most as many as the window has."""
    over: bool = False
    """Whether nobody needs to watch any more."""

    def add(self, value: float) -> bool:
        """Takes up the value of a step; whether the plateau is reached."""
        self.values = [*self.values[-self.window + 1 :], value]
        return len(self.values) == self.window and slope(self.values) < self.least_slope


class AutoStart(Listener):
    """Option `auto_start`: moves all events forward, once.

    Args:
        run: The run.

    Raises:
        ValueError: If what a checkpoint says of it cannot be used.
    """

    def __init__(self, run: PruneRun) -> None:
        self.run = run
        self.least_rise = run.recipe.auto_start
        self._plateau: Optional[Plateau] = None
        if self.least_rise is None:
            run.state.memory.pop(MEMORY, None)
            return
        window = max(2, run.num_iterations * WINDOW_PERCENT // 100)
        saved = run.state.memory.get(MEMORY, {"window": window, "least_slope": self.least_rise / window})
        try:
            self._plateau = msgspec.convert(saved, Plateau)
        except msgspec.ValidationError as error:
            raise ValueError(f"the checkpoint's course for prune.auto_start cannot be used: {error}") from error
        self._remember(self._plateau)

    def after_cut(self, event: PruneEvent) -> None:
        """Leaves the plan alone once a person has cut by hand."""
        if event.scheduled is None:
            self._stop()

    def after_undo(self, event: PruneEvent) -> None:
        """Leaves the plan alone once a person has gone back."""
        self._stop()

    def observe(self, step: int, psnr: Tensor) -> None:
        """Looks at a training step; changes the plan when it is time."""
        state, plateau = self.run.state, self._plateau
        if plateau is None or plateau.over or self.run.paused or state.phase != "dense" or not state.pending:
            return
        pending = state.pending
        value = float(psnr)
        if step >= pending[0].step or step < self.run.subject.earliest()[0] or not math.isfinite(value):
            return
        reached = plateau.add(value)
        self._remember(plateau)
        if not reached:
            return
        self._stop()
        ahead = pending[0].step - step
        state.plan = [replace(event, step=event.step - ahead) if event in pending else event for event in state.plan]
        CONSOLE.print(
            f"The training PSNR rises by less than {self.least_rise:g} dB within {WINDOW_PERCENT} % of the run: "
            f"pruning starts at step {step} instead of {step + ahead}"
        )

    def _stop(self) -> None:
        if self._plateau is not None:
            self._plateau.over, self._plateau.values = True, []
            self._remember(self._plateau)

    def _remember(self, plateau: Plateau) -> None:
        self.run.state.memory[MEMORY] = msgspec.structs.asdict(plateau)
