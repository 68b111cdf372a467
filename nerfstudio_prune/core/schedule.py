"""When pruning events happen and how far each one goes. Exact integer and rational arithmetic only."""

from fractions import Fraction
from typing import Literal

ScheduleKind = Literal["one-shot", "iterative", "cubic"]


def event_steps(start_step: int, stop_step: int, num_events: int) -> list[int]:
    """Spreads events evenly over the steps from start to stop, both inclusive.

    Args:
        start_step: Training step of the first event, >= 0.
        stop_step: Training step of the last event; ignored when there is one event.
        num_events: Number of events, >= 1.

    Returns:
        Strictly increasing training steps, one per event.

    Raises:
        ValueError: If a number is out of range or two events would fall on one step.
    """
    if num_events < 1:
        raise ValueError(f"num_events must be at least 1, got {num_events}")
    if start_step < 0:
        raise ValueError(f"start_step must be at least 0, got {start_step}")
    if num_events == 1:
        return [start_step]
    if stop_step - start_step < num_events - 1:
        raise ValueError(
            f"prune.stop_step must be at least start_step + num_events - 1 = {start_step + num_events - 1}, "
            f"so that the {num_events} events fall on different steps; got {stop_step}"
        )
    return [start_step + (stop_step - start_step) * k // (num_events - 1) for k in range(num_events)]


def event_progress(schedule: ScheduleKind, num_events: int) -> list[Fraction]:
    """Share of the whole cut that is done after each event; the last entry is exactly 1.

    `iterative` takes equal parts. `cubic` follows the curve 1 - (1 - t)^3 of Zhu and Gupta 2017 (arXiv 1710.01878,
    equation 1), which removes most at the beginning. The curve is sampled at t = 1/n, 2/n, ..., 1 so that the first
    event already removes something.

    Args:
        schedule: Kind of schedule; `one-shot` has exactly one event.
        num_events: Number of events n, >= 1.

    Returns:
        Increasing fractions in (0, 1], one per event.

    Raises:
        ValueError: If `one-shot` is asked for more than one event, or the kind is unknown.
    """
    times = [Fraction(k + 1, num_events) for k in range(num_events)]
    if schedule == "one-shot":
        if num_events != 1:
            raise ValueError(f"schedule one-shot has exactly 1 event, got num_events {num_events}")
        return times
    if schedule == "iterative":
        return times
    if schedule == "cubic":
        return [1 - (1 - t) ** 3 for t in times]
    raise ValueError(f"schedule must be one-shot, iterative or cubic, got {schedule!r}")


def size_at(initial: int, target: int, progress: Fraction, round_to: int = 1) -> int:
    """Size after the given share of the way from `initial` down to `target`.

    Args:
        initial: Size before the first event.
        target: Size after the last event, at most `initial`.
        progress: Share of the cut that is done, in [0, 1].
        round_to: Sizes on the way are rounded up to a multiple of this; the end points are exact.

    Returns:
        Size in [target, initial].
    """
    removed = (initial - target) * progress.numerator // progress.denominator
    size = initial - removed
    if size in (initial, target):
        return size
    return min(initial, -(-size // round_to) * round_to)
