"""What happens beside the pruning itself hangs on hooks."""

from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent


class Listener:
    """Hooks that do nothing; all are called on the trainer's thread.

    What a hook raises after a cut, an undo or another plan is told and does not end the training: that has happened by
    then.
    """

    def started(self) -> None:
        """The run is ready, its first step comes next."""

    def before_step(self, step: int) -> None:
        """A training step begins."""

    def observe(self, step: int, psnr: Tensor) -> None:
        """The quality of a step's batch is known, in dB; before its backward pass."""

    def losses(self, step: int) -> dict[str, Tensor]:
        """Losses of a training step beside those of the model, by name."""
        return {}

    def after_step(self, step: int, seconds: float) -> None:
        """A training step has ended and took so long; nothing was pruned yet."""

    def settle(self) -> None:
        """A training step was broken off, or has ended: what holds within a step only has to be put back."""

    def step_done(self, step: int) -> None:
        """All that was due at the end of a step is done."""

    def before_cut(self, event: PruneEvent) -> None:
        """The network is about to be cut; nothing can fail any more but the hooks themselves."""

    def after_cut(self, event: PruneEvent) -> None:
        """The network has just been cut, and the event is in the history."""

    def measured(self, event: PruneEvent) -> None:
        """What came of a cut is known."""

    def after_undo(self, event: PruneEvent) -> None:
        """The network is again as it was before an event."""

    def replanned(self) -> None:
        """Other options are in force from now on."""
