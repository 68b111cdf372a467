"""Resolves options into a plan: absolute steps and sizes. Decides nothing about what leaves."""

from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeVar

from nerfstudio_prune.core.events import ScheduledEvent
from nerfstudio_prune.core.schedule import event_progress, event_steps
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.options import Recipe, ScheduleOptions

LEAST_PERCENT = 10
"""Of the run: what lies between the two at least if `stop_step` is not given."""

OptionsT = TypeVar("OptionsT", bound=ScheduleOptions)


def resolve_steps(options: OptionsT, first_step: int, num_iterations: int, earliest: int = 0) -> OptionsT:
    """Fills in the steps that were left open.

    Args:
        options: Options, filled in.
        first_step: First training step of this run.
        num_iterations: Steps that this run takes.
        earliest: First step at whose end an event may happen; those whose step was left open wait for it.

    Returns:
        A copy with `start_step`, `stop_step` and `num_events` set.

    Raises:
        ValueError: If an event would never happen, or something is to last longer than the run.
    """
    end = first_step + num_iterations
    for name in options.durations:
        steps = attrgetter(name)(options)
        if steps is not None and steps > end:
            raise ValueError(
                f"prune.{name} {steps} is longer than the run, whose last step is {end - 1}; lower it or raise "
                "max_num_iterations"
            )
    start = options.start_step
    if start is None:
        assert options.start_fraction is not None
        # A share such as 0.57 is a little less than it says; the step that it says is meant.
        start = max(first_step, earliest, int(num_iterations * options.start_fraction + 1e-6))
    events = options.num_events or (1 if options.schedule == "one-shot" else 4)
    stop = options.stop_step
    if stop is None:
        stop = num_iterations * options.stop_percent // 100
        if stop - start < max(events - 1, num_iterations * LEAST_PERCENT // 100):
            stop = max((start + end) // 2, min(start + events, end) - 1)
    advice = "Lower it, raise max_num_iterations, or choose prune.strategy none"
    if start >= end:
        raise ValueError(
            f"prune.start_step {start} lies past the end of the run, whose last step is {end - 1}; pruning would "
            f"never happen. {advice}"
        )
    if events > 1 and stop >= end:
        raise ValueError(
            f"prune.stop_step {stop} lies past the end of the run, whose last step is {end - 1}; the last event would "
            f"never happen. {advice}"
        )
    if events > end - start:
        raise ValueError(
            f"prune.num_events {events} is more than the {end - start} steps from the first event at step {start} to "
            "the end of the run; lower it, or raise max_num_iterations"
        )
    options = replace(options, start_step=start, stop_step=stop, num_events=events)
    return options.with_own_steps(first_step, end)


def resolve_plan(recipe: Recipe, subject: Subject[Any], initial: Mapping[str, int]) -> list[ScheduledEvent]:
    """Lays out all events; the steps of the recipe must be resolved.

    Args:
        recipe: Resolved options.
        subject: What is pruned.
        initial: Name of the part -> size before the first event.

    Raises:
        ValueError: If steps, schedule or targets contradict each other.
    """
    assert recipe.start_step is not None and recipe.stop_step is not None and recipe.num_events is not None
    steps = event_steps(recipe.start_step, recipe.stop_step, recipe.num_events)
    progress = event_progress(recipe.schedule, recipe.num_events)
    targets = subject.targets(recipe)
    events = [ScheduledEvent(step, share) for step, share in zip(steps, progress, strict=True)]
    scheduled = [subject.scaled(event, targets, initial, recipe.round_to) for event in events]
    return sorted([*scheduled, *subject.further_events(recipe)], key=lambda event: event.step)
