"""When events happen and how far they go."""

import itertools
from fractions import Fraction
from typing import Any

import pytest

from nerfstudio_prune.core.schedule import ScheduleKind, event_progress, event_steps, size_at


@pytest.mark.parametrize(
    ("start", "stop", "events", "steps"),
    [
        (0, 0, 1, [0]),
        (150, 500, 1, [150]),
        (500, 150, 1, [500]),
        (0, 1, 2, [0, 1]),
        (150, 500, 2, [150, 500]),
        (150, 500, 3, [150, 325, 500]),
        (0, 10, 4, [0, 3, 6, 10]),
        (7, 10, 4, [7, 8, 9, 10]),
        (15_000, 50_000, 5, [15_000, 23_750, 32_500, 41_250, 50_000]),
    ],
)
def test_event_steps_table(start: int, stop: int, events: int, steps: list[int]) -> None:
    """The steps are part of every record and of the paper's protocol, so they are pinned as a table: start and stop are
    both inclusive, and one event happens at the start wherever the stop lies."""
    assert event_steps(start, stop, events) == steps


@pytest.mark.parametrize("events", [2, 3, 5, 7, 16, 50])
@pytest.mark.parametrize("length", [49, 50, 97, 1000])
def test_event_steps_are_distinct_and_even(events: int, length: int) -> None:
    """Two events on one step would be one event in fact, and a bunched schedule leaves the network no time to recover:
    gaps may differ by the rounding of one step only, whatever the numbers."""
    steps = event_steps(11, 11 + length, events)
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert len(steps) == events and steps[0] == 11 and steps[-1] == 11 + length
    assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("start", "stop", "events", "message"),
    [
        (0, 10, 0, r"num_events must be at least 1, got 0"),
        (-1, 10, 2, r"start_step must be at least 0, got -1"),
        (-1, 10, 1, r"start_step must be at least 0, got -1"),
        (5, 6, 3, r"stop_step must be at least .* = 7, .* 3 events .*; got 6"),
        (5, 4, 2, r"stop_step must be at least .* = 6, .*; got 4"),
    ],
)
def test_event_steps_errors(start: int, stop: int, events: int, message: str) -> None:
    """A wrong schedule must stop the run when it is configured, hours before the first event, and the message must
    carry the offending number and the least that would do."""
    with pytest.raises(ValueError, match=message):
        event_steps(start, stop, events)


@pytest.mark.parametrize(
    ("kind", "events", "progress"),
    [
        ("one-shot", 1, [Fraction(1)]),
        ("iterative", 1, [Fraction(1)]),
        ("iterative", 4, [Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1)]),
        ("cubic", 1, [Fraction(1)]),
        ("cubic", 2, [Fraction(7, 8), Fraction(1)]),
        ("cubic", 4, [Fraction(37, 64), Fraction(7, 8), Fraction(63, 64), Fraction(1)]),
    ],
)
def test_event_progress_table(kind: ScheduleKind, events: int, progress: list[Fraction]) -> None:
    """How much is done after each event decides every width on the way; pinned as exact fractions, because a float's
    rounding could leave the last event one neuron short of the target."""
    assert event_progress(kind, events) == progress


@pytest.mark.parametrize("events", [1, 2, 3, 10])
@pytest.mark.parametrize(("initial", "final"), [(0.0, 0.5), (0.0, 0.9)])
def test_cubic_is_the_curve_of_zhu_and_gupta(events: int, initial: float, final: float) -> None:
    """The option is named after a published curve, so it must be that curve: equation 1 of arXiv 1710.01878,
    s_t = s_f + (s_i - s_f) (1 - t)^3, in terms of sparsity."""
    times = [(k + 1) / events for k in range(events)]
    expected = [final + (initial - final) * (1 - t) ** 3 for t in times]
    found = [initial + (final - initial) * float(p) for p in event_progress("cubic", events)]
    assert found == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("kind", "events", "message"),
    [("one-shot", 2, "exactly 1 event, got num_events 2"), ("linear", 2, "one-shot, iterative or cubic, got 'linear'")],
)
def test_event_progress_errors(kind: str, events: int, message: str) -> None:
    """A one-shot schedule that silently ignored the number of events, or an unknown kind that fell through to a
    default, would run for hours with the wrong protocol. The undecorated function is called, since the runtime type
    check of the tests would catch the unknown kind first."""
    unchecked: Any = getattr(event_progress, "__wrapped__", event_progress)
    with pytest.raises(ValueError, match=message):
        unchecked(kind, events)


@pytest.mark.parametrize(
    ("initial", "target", "kind", "events", "round_to", "sizes"),
    [
        (256, 128, "one-shot", 1, 1, [128]),
        (256, 128, "iterative", 4, 1, [224, 192, 160, 128]),
        (10, 1, "iterative", 4, 1, [8, 6, 4, 1]),
        (256, 64, "cubic", 4, 1, [145, 88, 67, 64]),
        (256, 64, "cubic", 4, 16, [160, 96, 80, 64]),
        (256, 50, "iterative", 3, 8, [192, 120, 50]),
        (20, 10, "iterative", 5, 16, [20, 16, 16, 16, 10]),
        (64, 64, "iterative", 3, 16, [64, 64, 64]),
    ],
)
def test_sizes_table(
    initial: int, target: int, kind: ScheduleKind, events: int, round_to: int, sizes: list[int]
) -> None:
    """The widths that a user sees on the console: pinned, with the last one the target itself even where it is no
    multiple of `round_to`, and those on the way rounded up so that no event cuts more than it was told to."""
    assert [size_at(initial, target, p, round_to) for p in event_progress(kind, events)] == sizes


@pytest.mark.parametrize("kind", ["iterative", "cubic"])
@pytest.mark.parametrize("events", [1, 2, 7, 31])
@pytest.mark.parametrize(("initial", "target"), [(256, 64), (128, 127), (9, 1), (33, 33), (37, 20)])
@pytest.mark.parametrize("round_to", [1, 8, 16])
def test_sizes_only_fall_and_end_at_the_target(
    kind: ScheduleKind, events: int, initial: int, target: int, round_to: int
) -> None:
    """Neurons cannot come back, so a width that rose between two events would be an impossible request; and a schedule
    that ends one neuron off makes two runs of one target incomparable."""
    sizes = [initial, *(size_at(initial, target, p, round_to) for p in event_progress(kind, events))]
    assert all(a >= b for a, b in itertools.pairwise(sizes))
    assert min(sizes) >= target and sizes[-1] == target
    assert all(size % round_to == 0 or size in (initial, target) for size in sizes)


def test_size_before_the_first_event_is_the_initial_one() -> None:
    """Progress zero must be a no-op also under rounding; otherwise asking for the size of a run that has not begun
    would report a cut that never happened."""
    assert size_at(250, 100, Fraction(0), round_to=16) == 250
