"""What a person reads of an event."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import nerfstudio.engine.trainer  # noqa: F401  the host's writer cannot be imported before it
import pytest

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.engine.display import Display, failure_text, metric_text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"psnr": 20.0}, {"psnr": 19.25}, "20.00 → 19.25 dB"),
        ({"psnr": 20.0}, {}, "20.00 → not measured"),
        ({}, {"psnr": 19.25}, "not measured → 19.25 dB"),
    ],
)
def test_a_metric_may_be_missing_on_either_side(before: dict[str, float], after: dict[str, float], text: str) -> None:
    """A measurement that fails takes nothing from the other one, and no number is invented in its place."""
    event = PruneEvent(3, None, "coreset", "continue", metrics_before=before, metrics_after=after)
    assert metric_text(event, "psnr") == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("prune.width must be at least 1"), "prune.width must be at least 1"),
        (ValueError(), "ValueError: "),
        (MemoryError(), "MemoryError: "),
        (
            OSError(2, "No such file or directory", "a.png"),
            "FileNotFoundError: [Errno 2] No such file or directory: 'a.png'",
        ),
    ],
    ids=["own", "silent", "memory", "file"],
)
def test_a_failure_always_has_a_text(error: Exception, text: str) -> None:
    """An event without an error text counts as one that succeeded, so a silent exception must not give an empty one."""
    assert failure_text(error) == text


def test_plan_is_told_letter_by_letter(capsys: pytest.CaptureFixture[str]) -> None:
    """Patterns of names have brackets, which the console takes for colours; and an event of a step that a resumed run
    is past happens at its first step, which is what a person waits for."""
    recipe = SimpleNamespace(rule="obs", recovery="continue", recovery_lr_factor=1)
    pending = [ScheduledEvent(step, Fraction(1)) for step in (3, 9)]
    subject = SimpleNamespace(aim=lambda recipe, event: "to [abc]*.layers 8")
    state = SimpleNamespace(pending=pending, phase="dense")
    run: Any = SimpleNamespace(recipe=recipe, subject=subject, state=state, first_step=6, last_step=9, origin="")
    run.without_effect = {}
    Display(run, str).started()
    told = " ".join(capsys.readouterr().out.split())
    assert "step 3, overdue, done at 6: to [abc]*.layers 8; step 9: to [abc]*.layers 8 (phase dense)" in told
