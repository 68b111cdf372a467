"""A training that is pruned, as the controller and its listeners share it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nerfstudio.engine.optimizers import Optimizers

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.options import PruneOptions, Recipe


def event_seed(seed: int, step: int) -> int:
    """Seed of the random choices of an event.

    Args:
        seed: Seed of the run.
        step: Training step of the event.
    """
    return seed * 1_000_003 + step


@dataclass
class PruneRun:
    """One per training; made when all options are known. Changed on the trainer's thread only, but for `paused`."""

    subject: Subject[Any]
    """What is pruned."""
    optimizers: Optimizers
    """The host's optimizers over the model's parameters."""
    options: PruneOptions
    """Options in force, filled in."""
    recipe: Recipe
    """What they come to."""
    seed: int
    """Seed of the run."""
    first_step: int
    """First training step of this run."""
    num_iterations: int
    """Steps that this run takes."""
    origin: str = ""
    """Where the plan comes from, if it is not new; follows the words «Pruning plan»."""
    without_effect: Mapping[str, str] = field(default_factory=dict)
    """Options that are given and change nothing of what is planned -> what they go with."""
    step: int = 0
    """Training step that ended last."""
    paused: bool = False
    """Whether the planned events wait; holds in this process only."""

    def __post_init__(self) -> None:
        self.step = self.first_step

    @property
    def state(self) -> PruneState:
        """What survives in checkpoints."""
        return self.subject.state

    @property
    def last_step(self) -> int:
        """Last training step of this run."""
        return self.first_step + self.num_iterations - 1

    def event_seed(self, step: int) -> int:
        """Seed of the random choices of an event at a step."""
        return event_seed(self.seed, step)
