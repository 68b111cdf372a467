"""The record of what was planned and what was done."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nerfstudio_prune.core.events import FORMAT_VERSION, Phase, PruneEvent, PruneState, ScheduledEvent

PLAN = [
    ScheduledEvent(100, 0.5, {"trunk.0": 12}),
    ScheduledEvent(200, 0.75, {"trunk.0": 10}),
    ScheduledEvent(300, 1.0, {"trunk.0": 8}),
]


def happened(scheduled: ScheduledEvent | None, step: int = 0, error: str = "") -> PruneEvent:
    return PruneEvent(step or (scheduled.step if scheduled else 1), scheduled, "coreset", "rewind", error=error)


def full_state() -> PruneState:
    event = PruneEvent(
        step=100,
        scheduled=PLAN[0],
        strategy="importance",
        recovery="rewind",
        sizes_before={"trunk.0": 16},
        sizes_after={"trunk.0": 12},
        parameters_before=1000,
        parameters_after=700,
        macs_per_ray_before=192_000,
        macs_per_ray_after=130_000,
        metrics_before={"psnr": 21.5},
        metrics_after={"psnr": 19.25},
        rays_per_sec_before=1234.5,
        seconds=0.25,
    )
    by_hand = PruneEvent(150, None, "uniform", "continue", error="trunk.0.weight: 1 of 3 values are not finite")
    return PruneState(
        initial_sizes={"trunk.0": 16},
        options={"strategy": "importance", "num_events": 3, "group_widths": {"trunk.*": 8}, "stop_step": None},
        plan=list(PLAN),
        history=[event, by_hand],
        edge_masks={"trunk.0.weight": torch.tensor([[True, False], [False, True]])},
        rewind_snapshot={"trunk.0.weight": torch.tensor([[0.1, -2.0]], dtype=torch.float64)},
        given={"strategy": "importance"},
    )


def test_state_survives_a_checkpoint_read_with_weights_only(tmp_path: Path) -> None:
    """The extra state travels in every checkpoint and must load under `weights_only=True`, the default since torch 2.6:
    a single dataclass or NumPy number inside would make the whole checkpoint unreadable. Masks and snapshot must come
    back to the bit, else a resumed run revives dead weights or rewinds elsewhere."""
    state = full_state()
    torch.save(state.to_dict(), tmp_path / "state.pt")
    loaded = PruneState.from_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert replace(loaded, edge_masks={}, rewind_snapshot={}) == replace(state, edge_masks={}, rewind_snapshot={})
    torch.testing.assert_close(loaded.edge_masks, state.edge_masks, rtol=0, atol=0)
    torch.testing.assert_close(loaded.rewind_snapshot, state.rewind_snapshot, rtol=0, atol=0)
    assert loaded.phase == "pruning" and loaded.pending == PLAN[1:]


def test_saved_lists_are_copies() -> None:
    """A checkpoint is often written while the run goes on; events recorded later must not leak into what was handed out
    earlier, or a saved history would claim events that its weights have not seen."""
    state = full_state()
    values = state.to_dict()
    state.history.append(happened(PLAN[1]))
    state.plan.clear()
    assert len(values["history"]) == 2 and len(values["plan"]) == 3


@pytest.mark.parametrize("version", [None, 0, FORMAT_VERSION + 1])
def test_unknown_format_version_is_refused(version: int | None) -> None:
    """A reader that guesses at a newer layout would resume with a wrong history; it must refuse and say both versions,
    so that the user knows which side to update."""
    values = {**full_state().to_dict(), "format_version": version}
    with pytest.raises(ValueError, match=f"format version {version}, this version .* reads up to {FORMAT_VERSION}"):
        PruneState.from_dict(values)


@pytest.mark.parametrize(
    "damage",
    [
        {"plan": [{"step": 1, "unknown": 2}]},
        {"history": [{"step": 1}]},
        {"history": [{"scheduled": None, "step": 1}]},
        {"edge_masks": None},
    ],
    ids=["unknown field", "no scheduled", "fields missing", "no masks"],
)
def test_damaged_content_gives_one_kind_of_error(damage: dict[str, Any]) -> None:
    """The host swallows RuntimeError when it loads and goes on with half a state; everything unreadable must therefore
    come out as ValueError, and say that it is the pruning state."""
    with pytest.raises(ValueError, match="pruning state in the checkpoint cannot be read"):
        PruneState.from_dict({**full_state().to_dict(), **damage})


def test_checkpoint_that_does_not_say_what_was_given() -> None:
    """Earlier versions wrote only the options in force; such a checkpoint stays readable, and tells so."""
    values = full_state().to_dict()
    del values["given"]
    assert PruneState.from_dict(values).given is None
    assert PruneState.from_dict(full_state().to_dict()).given == {"strategy": "importance"}


def test_missing_key_gives_the_same_error() -> None:
    """A key that is missing is the commonest damage (a hand-edited file); the message must name it."""
    values = full_state().to_dict()
    del values["rewind_snapshot"]
    with pytest.raises(ValueError, match=r"cannot be read: .*rewind_snapshot"):
        PruneState.from_dict(values)


@pytest.mark.parametrize(
    ("plan", "history", "phase"),
    [
        ([], [], "dense"),
        (PLAN, [], "dense"),
        (PLAN, [happened(PLAN[0], error="not finite")], "dense"),
        (PLAN, [happened(PLAN[0])], "pruning"),
        (PLAN, [happened(PLAN[0]), happened(PLAN[1])], "pruning"),
        (PLAN, [happened(PLAN[2], step=900)], "recovery"),
        (PLAN, [happened(PLAN[0], error="not finite"), happened(None)], "pruning"),
        ([], [happened(None)], "recovery"),
    ],
)
def test_phase(plan: list[ScheduledEvent], history: list[PruneEvent], phase: Phase) -> None:
    """The viewer, the console and the records show the phase; a failed event removed nothing, so it must not turn a
    dense network into a pruned one, while an event by hand does."""
    assert PruneState(plan=list(plan), history=list(history)).phase == phase


@pytest.mark.parametrize(
    ("done", "step", "index"),
    [
        ([], 0, None),
        ([], 99, None),
        ([], 100, 0),
        ([], 101, 0),
        ([], 199, 0),
        ([], 200, 1),
        ([], 10_000, 2),
        ([0], 100, None),
        ([0], 199, None),
        ([0], 200, 1),
        ([0], 300, 2),
        ([1], 150, None),
        ([1], 299, None),
        ([2], 10_000, None),
        ([0, 1, 2], 10_000, None),
    ],
)
def test_due_once_overdue_and_newest(done: list[int], step: int, index: int | None) -> None:
    """An event must happen exactly once, also when the run was resumed past its step; of several overdue ones the
    newest does the work of all (three events in a row at one step would measure nothing between them), and doing it
    retires the older ones, which must never come back and cut less than is cut already."""
    state = PruneState(plan=list(PLAN), history=[happened(PLAN[i]) for i in done])
    assert state.due(step) == (None if index is None else PLAN[index])


def test_failed_event_is_not_repeated_every_step() -> None:
    """A failed event stays in the history with its entry of the plan: trying again at every following step would spend
    the run on measuring quality and filling the console with the same message."""
    state = PruneState(plan=list(PLAN), history=[happened(PLAN[0], error="not finite")])
    assert state.due(150) is None
    assert state.due(200) == PLAN[1]


def test_event_by_hand_retires_nothing() -> None:
    """A button pressed in the viewer is not on the plan; it must not swallow a planned event."""
    state = PruneState(plan=list(PLAN), history=[happened(None, step=250)])
    assert state.due(250) == PLAN[1]


def test_replanned_targets_become_due_again() -> None:
    """Resuming with a smaller target means that the user wants more removed: an entry whose target changed is a new
    event, due at once if its step has passed, although an event of that very step is in the history."""
    history = [happened(event) for event in PLAN]
    replanned = [*PLAN[:2], ScheduledEvent(300, 1.0, {"trunk.0": 4})]
    state = PruneState(plan=replanned, history=history)
    assert state.phase == "pruning"
    assert state.due(299) is None
    assert state.due(301) == replanned[2]
    state.history.append(happened(replanned[2], step=301))
    assert state.due(10_000) is None and state.phase == "recovery"
