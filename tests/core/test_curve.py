"""The smoothed course of a value that the panel plots."""

from itertools import pairwise

import pytest
import torch

from nerfstudio_prune.core.curve import TrainingCurve


def filled(values: list[float], **options: float) -> TrainingCurve:
    """A curve of values at steps 10, 11, 12, ..."""
    curve = TrainingCurve(**options)  # type: ignore[arg-type]
    for step, value in enumerate(values, start=10):
        curve.add(step, torch.tensor(value))
    return curve


def weighted_mean(values: list[float], smoothing: float) -> float:
    """Brute force: the newest value counts 1, each one before it `smoothing` times as much as the next."""
    weights = [smoothing**age for age in range(len(values))][::-1]
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def test_first_points_by_hand() -> None:
    """A plain running mean starts at zero and creeps up, which looks like a training that learns. Here the first point
    is the first value; then (4 / 2 + 8) / 1.5 and (4 / 4 + 8 / 2 + 2) / 1.75."""
    points = filled([4.0, 8.0, 2.0], smoothing=0.5).points()
    assert [step for step, _ in points] == [10, 11, 12]
    assert [value for _, value in points] == pytest.approx([4.0, 10 / 1.5, 4.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.95, 0.999])
def test_constant_stays_constant(smoothing: float) -> None:
    """What does not change must be drawn as a level line at its own height, from the first step on."""
    points = filled([23.5] * 300, smoothing=smoothing).points()
    assert [value for _, value in points] == pytest.approx([23.5] * 300, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.8, 0.95])
def test_every_point_is_the_weighted_mean(smoothing: float) -> None:
    """Thinning drops points and never values: what is drawn at a step knows of all steps before it."""
    values = (20 + torch.randn(200, generator=torch.Generator().manual_seed(1))).tolist()
    points = filled(values, smoothing=smoothing, max_points=16).points()
    expected = [weighted_mean(values[: step - 9], smoothing) for step, _ in points]
    assert [value for _, value in points] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("max_points", [2, 3, 8, 9])
@pytest.mark.parametrize("count", [1, 10, 257, 1000])
def test_thinned_evenly(max_points: int, count: int) -> None:
    """A night of training must neither fill the memory nor the browser. What stays begins at the first step, is spread
    evenly over the run up to its end, and is no fewer points than half of what is allowed."""
    curve, most = TrainingCurve(max_points=max_points), 0
    for step in range(count):
        curve.add(10 + 5 * step, torch.tensor(1.0))
        most = max(most, len(curve.points()))
    steps = [step for step, _ in curve.points()]
    gaps = {after - before for before, after in pairwise(steps)}
    assert most <= max_points and steps[0] == 10
    assert len(gaps) <= 1 and all(gap > 0 for gap in gaps)
    assert len(steps) >= min(count, (max_points + 1) // 2)
    assert 10 + 5 * (count - 1) - steps[-1] < max(gaps, default=5 * max_points)


def test_no_step_waits_for_its_value() -> None:
    """Reading a number off a GPU waits for all that is queued there. Meta tensors have no value at all, so that adding
    them succeeds only if nothing is read before somebody asks."""
    curve = TrainingCurve(max_points=4)
    for step in range(20):
        curve.add(step, torch.zeros((), device="meta"))
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        curve.points()


def test_graph_of_a_step_is_let_go() -> None:
    """A value that carries its graph would keep the activations of every step alive."""
    curve = TrainingCurve()
    curve.add(0, torch.tensor(2.0, requires_grad=True) * 3)
    curve.add(1, torch.tensor(4.0, requires_grad=True) * 3)
    assert [value.requires_grad for _, value in curve._points] == [False, False]
    assert not torch.as_tensor(curve._mean).requires_grad


def test_points_of_a_reader_do_not_grow() -> None:
    """The panel's thread draws a list while the trainer adds to the curve."""
    curve = filled([1.0, 2.0])
    points = curve.points()
    curve.add(12, torch.tensor(3.0))
    assert (len(points), len(curve.points())) == (2, 3)


def test_nothing_yet() -> None:
    """A panel that opens before the first step has nothing to draw, and must not fail."""
    assert TrainingCurve().points() == []
