"""A finished run that was opened to be cut, and what each kind of run says about itself."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.apply.quality import HeldOut
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.checkpoints import Checkpoint
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.optimizers import RunOptimizers
from nerfstudio_prune.engine.options import PruneOptions
from nerfstudio_prune.engine.run import PruneRun


@dataclass(frozen=True)
class Asked:
    """What is asked of a run that is opened."""

    step: Optional[int]
    """Step of the checkpoint; None for the newest one."""
    data: Optional[Path]
    """Where its data are now; None where they were."""
    rays: int
    """Rays to measure on; kinds that render whole views measure on all pixels, or on none for 0."""


@dataclass
class Opened:
    """A finished run with all that a cut of it changes."""

    checkpoint: Checkpoint
    """What was read of it."""
    config: TrainerConfig
    """Configuration of the new run, but for its place and its name."""
    model: Any
    """The model, in no training."""
    optimizers: RunOptimizers
    """Optimizers over its parameters, with the moments of the checkpoint if it has any."""
    keeps_moments: bool
    """Whether it has."""
    subject_of: Callable[[Any], Subject[Any]]
    """Gives what is pruned under some options."""
    listeners: Callable[[PruneRun], Sequence[Listener]]
    """What hangs on the hooks of an event."""
    held_out: HeldOut
    """Quality on views that a cut does not see."""
    without_data: str
    """Why there are no views; empty where there are."""
    pixels: int = 0
    """Pixels of the views that a cut is judged by."""


class Kind(Protocol):
    """One kind of runs."""

    @property
    def methods(self) -> Sequence[str]:
        """Those that make such runs."""
        ...

    @property
    def targets(self) -> Collection[str]:
        """Options that say how far a cut goes; of groups of options the name of the group."""
        ...

    def takes(self, config: TrainerConfig) -> bool:
        """Whether a configuration is one of such a run.

        Args:
            config: The run's configuration.
        """
        ...

    def options(self) -> PruneOptions:
        """Options of pruning of which none is given."""
        ...

    def without_recovery(self, options: Any, pixels: int) -> Any:
        """Options with those that are not given as a cut asks for that nothing makes up for.

        Args:
            options: Options that are given.
            pixels: Pixels of the views that it is judged by.
        """
        ...

    def open(self, config: TrainerConfig, path: Path, asked: Asked) -> Opened:
        """Opens a run.

        Args:
            config: Its configuration; it is not changed.
            path: The file of that.
            asked: What is asked of it.

        Raises:
            ValueError: If it cannot be opened, or could not be written as a run that the host opens.
        """
        ...

    def sized(self, subject: Subject[Any], options: Any, share: float) -> Any:
        """Options with another target.

        Args:
            subject: What is pruned.
            options: Options without a target.
            share: Share of the present size that stays, in (0, 1).

        Raises:
            ValueError: If there is nothing as small.
        """
        ...
