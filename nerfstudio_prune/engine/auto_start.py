"""Starts pruning as soon as the training has become slow."""

from typing import Optional

from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.plateau import Plateau

WINDOW_PERCENT = 5
"""Share of the run over which the slope of the training PSNR is taken."""


class AutoStart:
    """Option `auto_start`: moves all events forward, once.

    Args:
        least_rise: Training PSNR, in dB, by which it must rise within the window for pruning to wait; None: off.
        num_iterations: Steps of the run.
    """

    def __init__(self, least_rise: Optional[float], num_iterations: int) -> None:
        self.least_rise = least_rise
        self._plateau: Optional[Plateau] = None
        if least_rise is not None:
            window = max(2, num_iterations * WINDOW_PERCENT // 100)
            self._plateau = Plateau(window, least_rise / window)

    def stop(self) -> None:
        """Leaves the plan alone from now on."""
        self._plateau = None

    def observe(self, state: PruneState, step: int, psnr: Tensor) -> None:
        """Looks at a training step; changes the plan when it is time.

        Args:
            state: Pruning state.
            step: Training step.
            psnr: PSNR of its batch, in dB.
        """
        if self._plateau is None or state.phase != "dense" or not state.pending or step >= state.pending[0].step:
            return
        if self._plateau.add(float(psnr)):
            self.stop()
            pending, ahead = state.pending, state.pending[0].step - step
            for event in pending:
                event.step -= ahead
            CONSOLE.print(
                f"The training PSNR rises by less than {self.least_rise:g} dB within {WINDOW_PERCENT} % of the run: "
                f"pruning starts at step {step} instead of {step + ahead}"
            )
