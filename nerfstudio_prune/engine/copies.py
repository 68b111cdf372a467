"""A cut that is only tried: on a copy, as an event would cut the run."""

from fractions import Fraction
from typing import Any

from nerfstudio_prune.core.events import ScheduledEvent
from nerfstudio_prune.core.subject import NoOptimizers, Subject
from nerfstudio_prune.engine.run import event_seed


def cut_copy(subject: Subject[Any], recipe: Any, evidence: Any, seed: int, step: int) -> Subject[Any]:
    """A copy that was cut as an event would cut the run.

    Args:
        subject: What is pruned; it stays as it is.
        recipe: How to cut.
        evidence: What the subject's `gather` gave, for the seed of the event.
        seed: Seed of the run.
        step: Step of the event.

    Raises:
        ValueError: If the cut is impossible.
    """
    copy = subject.detached()
    event = ScheduledEvent(step, Fraction(1), copy.targets(recipe))
    copy.prepare(recipe, event, evidence, NoOptimizers(), event_seed(seed, step)).apply()
    return copy
