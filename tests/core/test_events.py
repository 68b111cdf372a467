"""The record of what was planned and what was done."""

import math
from copy import deepcopy
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fuzz import nested, shared

from nerfstudio_prune.core.events import FORMAT_VERSION, Phase, PruneEvent, PruneState, ScheduledEvent, Sizes

PLAN = [
    ScheduledEvent(100, Fraction(1, 2), {"trunk.0": 12}, index=0),
    ScheduledEvent(200, Fraction(3, 4), {"trunk.0": 10}, index=1),
    ScheduledEvent(300, Fraction(1), {"trunk.0": 8}, index=2),
]


def happened(scheduled: ScheduledEvent | None, step: int = 0, error: str = "") -> PruneEvent:
    return PruneEvent(step or (scheduled.step if scheduled else 1), scheduled, "coreset", "rewind", error=error)


def full_state() -> PruneState:
    event = PruneEvent(
        step=100,
        scheduled=PLAN[0],
        strategy="importance",
        recovery="rewind",
        before=Sizes({"trunk.0": 16}, {"parameters": 1000, "macs_per_ray": 192_000}),
        after=Sizes({"trunk.0": 12}, {"parameters": 700, "macs_per_ray": 130_000}),
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
        masks={"trunk.0.weight": torch.tensor([[True, False], [False, True]])},
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
    assert replace(loaded, masks={}, rewind_snapshot={}) == replace(state, masks={}, rewind_snapshot={})
    torch.testing.assert_close(loaded.masks, state.masks, rtol=0, atol=0)
    torch.testing.assert_close(loaded.rewind_snapshot, state.rewind_snapshot, rtol=0, atol=0)
    assert loaded.phase == "pruning" and loaded.pending == PLAN[1:]


def test_saved_lists_are_copies() -> None:
    """A checkpoint is often written while the run goes on; events recorded later must not leak into what was handed out
    earlier, or a saved history would claim events that its weights have not seen."""
    state = full_state()
    values = state.to_dict()
    state.history.append(happened(PLAN[1]))
    state.plan.clear()
    state.masks.clear()
    assert len(values["masks"]) == 1 and len(values["history"]) == 2 and len(values["plan"]) == 3


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
        {"plan": [{"step": 1, "share": [1, 1], "unknown": 2}]},
        {"plan": [{"step": 1, "share": [1, 0]}]},
        {"history": [{"step": 1}]},
        {"history": [{"scheduled": None, "step": 1}]},
        {"masks": None},
    ],
    ids=["unknown field", "no number", "no scheduled", "fields missing", "no masks"],
)
def test_damaged_content_gives_one_kind_of_error(damage: dict[str, Any]) -> None:
    """The host swallows RuntimeError when it loads and goes on with half a state; everything unreadable must therefore
    come out as ValueError, and say that it is the pruning state."""
    with pytest.raises(ValueError, match="pruning state in the checkpoint cannot be read"):
        PruneState.from_dict({**full_state().to_dict(), **damage})


def put(path: str, value: Any) -> dict[str, Any]:
    """The state as plain values with another one at a path such as `plan.0.step`."""
    values = deepcopy(full_state().to_dict())
    *owners, last = path.split(".")
    place: Any = values
    for owner in owners:
        place = place[int(owner) if isinstance(place, list) else owner]
    place[int(last) if isinstance(place, list) else last] = value
    return values


NAN, INF = float("nan"), float("inf")
WRONG: list[tuple[str, Any, str]] = [
    ("plan.0.step", "100", "plan[0]: Expected `int`, got `str` - at `$.step`"),
    ("plan.0.step", 100.0, "plan[0]: Expected `int`, got `float`"),
    ("plan.0.step", True, "plan[0]: Expected `int`, got `bool`"),
    ("plan.0.step", -1, "plan[0]: Expected `int` >= 0"),
    ("plan.0.step", 10**30, "state.plan[0].step must lie within"),
    ("plan.0.step", 250, "plan: expected events by increasing step and index, got steps 250, 200"),
    ("plan.1.index", 0, "plan: expected events by increasing step and index"),
    ("plan.0.share", [3, 2], "event of step 100: expected a share in (0, 1], got 3/2"),
    ("plan.0.share", [0, 1], "expected a share in (0, 1], got 0"),
    ("plan.0.share", ["1", 2], "expected numerator and denominator, got ['1', 2]"),
    ("plan.0.share", [0.5, 1], "expected numerator and denominator"),
    ("plan.0.share", [True, 1], "expected numerator and denominator"),
    ("plan.0.share", 0.5, "expected numerator and denominator, got 0.5"),
    ("plan.0.progress", [1], "plan[0]: has an unknown field 'progress'"),
    ("plan.0.targets", {"trunk.0": "8"}, "plan[0]: Expected `int`, got `str` - at `$.targets[...]`"),
    ("plan.0.targets", [1], "plan[0]: Expected `object`, got `array`"),
    ("plan", {}, "plan: Expected `array`, got `object`"),
    ("history.0.step", INF, "history[0]: Expected `int`, got `float` - at `$.step`"),
    ("history.0.step", 200, "history: expected the oldest event first, got steps 200, 150"),
    ("history.0.scheduled.share", [1, 0], "expected numerator and denominator"),
    ("history.0.scheduled.more", 1, "history[0].scheduled: has an unknown field 'more'"),
    ("history.0.before.parts", {"a": -1}, "history[0].before: Expected `int` >= 0"),
    ("history.0.before.more", 1, "history[0].before: has an unknown field 'more'"),
    ("history.0.options", {"a": torch.ones(1)}, "history[0].options.a: expected plain values, got Tensor"),
    ("history.0.options", {"a": NAN}, "history[0].options.a must be finite, got nan"),
    ("history.0.seconds", NAN, "history[0]: Expected `float` >= 0.0"),
    ("history.0.seconds", INF, "must be finite, got inf"),
    ("history.0.metrics_after", {"psnr": "20"}, "history[0]: Expected `float`, got `str`"),
    ("history.0.strategy", None, "history[0]: Expected `str`, got `null`"),
    ("history.0.error", 3, "history[0]: Expected `str`, got `int`"),
    ("initial_sizes", {"trunk.0": 8.5}, "initial_sizes: Expected `int`, got `float`"),
    ("options", [1], "options: Expected `object`, got `array`"),
    ("options", {"width": INF}, "options.width must be finite, got inf"),
    ("options", {"width": b"8"}, "state.options.width: expected plain values, got bytes"),
    ("options", {"width": {8: 1}}, "state.options.width: expected texts for keys, got int"),
    ("options", nested(), "nested more deeply, or larger"),
    ("options", {"width": shared()}, "nested more deeply, or larger"),
    ("given", 3, "given: Expected `object | null`, got `int`"),
    ("masks", {"a": [True]}, "mask of a: expected a tensor, got list"),
    ("masks", {"a": torch.ones(2)}, "mask of a: expected torch.bool, got torch.float32"),
    (
        "masks",
        {"a": torch.ones(1, dtype=torch.bool).expand(10**10)},
        "takes 10,000,000,000 bytes, and the file holds 1",
    ),
    ("rewind_snapshot", {"a": torch.ones(2, dtype=torch.int64)}, "rewind snapshot of a: expected torch.float32 or"),
    ("rewind_snapshot", {"a": torch.full((2,), NAN)}, "rewind snapshot of a: 2 of 2 values are not finite"),
    ("format_version", True, "has format version True"),
    ("format_version", "2", "has format version '2'"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[f"{path}: {text[:30]}" for path, _, text in WRONG])
def test_values_that_cannot_be_are_named(path: str, value: Any, message: str) -> None:
    """Each of these was taken once, and failed in mid-training, at the first save, or gave NaN rates. Whatever comes
    from a file is read by its type, before anything goes on from it."""
    with pytest.raises(ValueError) as caught:
        PruneState.from_dict(put(path, value))
    assert message in str(caught.value)


def test_quality_may_be_no_number() -> None:
    """It is for information: a run whose network rendered NaN once must still be resumed."""
    state = PruneState.from_dict(put("history.0.metrics_after", {"psnr": NAN}))
    assert math.isnan(state.history[0].metrics_after["psnr"])


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


def without_indices(plan: list[ScheduledEvent]) -> list[ScheduledEvent]:
    """A plan as it is resolved from options, before the state numbers it."""
    return [replace(event, index=0) for event in plan]


def test_replanned_targets_become_due_again() -> None:
    """Resuming with a smaller target means that the user wants more removed: an entry whose target changed is a new
    event, due at once if its step has passed, although an event of that very step is in the history."""
    history = [happened(event) for event in PLAN]
    state = PruneState(plan=list(PLAN), history=history)
    replanned = [*PLAN[:2], ScheduledEvent(300, Fraction(1), {"trunk.0": 4})]
    state.plan = state.numbered(without_indices(replanned))
    assert state.phase == "pruning"
    assert state.due(299) is None
    due = state.due(301)
    assert due is not None and due.same_cut(replanned[2])
    state.history.append(happened(due, step=301))
    assert state.due(10_000) is None and state.phase == "recovery"


def test_first_plan_is_numbered_from_zero() -> None:
    """Nothing was tried: all events are to come, and steps, shares and targets are those of the plan."""
    state = PruneState()
    assert state.newest_index == -1
    state.plan = state.numbered(without_indices(PLAN))
    assert state.plan == PLAN == state.pending


@pytest.mark.parametrize("error", ["", "not finite"], ids=["done", "failed"])
def test_entry_that_was_tried_is_not_tried_again(error: str) -> None:
    """A run that is resumed with another option plans anew. An entry that is the same as one of the history has been
    carried out, or has failed, already, and what lies before it is overtaken; the same plan gets the same numbers."""
    state = PruneState(history=[happened(PLAN[1], error=error)])
    state.plan = state.numbered(without_indices(PLAN))
    assert [event.index for event in state.plan] == [0, 1, 2]
    assert state.pending == PLAN[2:] and state.due(250) is None


def test_another_plan_goes_on_with_larger_indices() -> None:
    """Events of two plans stand in one history. If another plan's numbers began at zero again, its first events would
    count as done and a smaller target would never be reached."""
    state = PruneState(plan=list(PLAN), history=[happened(PLAN[0]), happened(PLAN[1])])
    other = [ScheduledEvent(step, Fraction(step, 400), {"trunk.0": 4}) for step in (250, 400)]
    state.plan = state.numbered(other)
    assert [event.index for event in state.plan] == [2, 3]
    assert [event.step for event in state.pending] == [250, 400]
    state.history = [*state.history, happened(state.plan[0])]
    assert state.newest_index == 2 and [event.step for event in state.pending] == [400]
    state.plan = state.numbered([*other[:1], ScheduledEvent(500, Fraction(1), {"trunk.0": 2})])
    assert [(event.step, event.index) for event in state.pending] == [(500, 3)]
    assert len({event.index for event in [*state.plan, *PLAN[:2]]}) == 4


def test_last_entry_without_targets_becomes_due_again_for_another_aim() -> None:
    """Under a budget an event names no targets: only the options say that more is to be removed than what was, and an
    entry that is taken for done would leave a smaller budget unheard. What goes on to the end anyway is not repeated,
    and what an old record does not say counts as the same."""
    plan = [ScheduledEvent(step, Fraction(i, 2), {}) for i, step in ((1, 100), (2, 200))]
    half, whole = (replace(happened(event), options={"budget": 0.5, "seed": 1}) for event in plan)
    state = PruneState(history=[half])
    state.plan = state.numbered(plan, {"budget": 0.2})
    assert [event.step for event in state.pending] == [200]
    state.history = [half, replace(whole, scheduled=state.plan[1])]
    for aim in ({"budget": 0.5}, {"another": 1}, {}):
        state.plan = state.numbered(plan, aim)
        assert state.pending == [] and state.phase == "recovery", aim
    state.plan = state.numbered(plan, {"budget": 0.2})
    due = state.due(300)
    assert due is not None and due.step == 200 and state.pending == [due]


def test_skipped_event_stays_out_of_the_way() -> None:
    """An event that would remove nothing leaves the plan and is not in the history. Those behind it keep their numbers:
    none of them may count as done, and none that lies before may come back."""
    state = PruneState(plan=list(PLAN), history=[happened(PLAN[0])])
    state.plan = [event for event in state.plan if event.index != 1]
    assert state.pending == PLAN[2:] and state.due(200) is None
    loaded = PruneState.from_dict(state.to_dict())
    assert loaded.pending == PLAN[2:]
    loaded.history = [*loaded.history, happened(PLAN[2])]
    assert loaded.pending == [] and loaded.phase == "recovery"


def test_same_cut_looks_at_everything_but_the_index() -> None:
    """Step, share and targets make an event; another one of them, and it is another cut."""
    event = PLAN[0]
    assert event.same_cut(replace(event, index=7))
    others: list[dict[str, Any]] = [{"step": 101}, {"share": Fraction(1, 3)}, {"targets": {"trunk.0": 11}}]
    assert not any(event.same_cut(replace(event, **other)) for other in others)


def test_events_cannot_be_changed() -> None:
    """The viewer's thread reads plan and history while the trainer goes on; what it has been given must stay."""
    for event in (PLAN[0], happened(PLAN[0])):
        with pytest.raises(FrozenInstanceError):
            event.step = 5  # type: ignore[misc]


def test_share_survives_exactly(tmp_path: Path) -> None:
    """A third has no float. Through a checkpoint and back it must still be a third, or the last of three events would
    leave a neuron too many, and an entry of the history would not be recognised in a plan that is made anew."""
    third = ScheduledEvent(10, Fraction(1, 3), {"a": 5}, index=3)
    state = PruneState(plan=[third], history=[happened(third)])
    torch.save(state.to_dict(), tmp_path / "state.pt")
    loaded = PruneState.from_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    (event,) = loaded.plan
    assert event == third and event.share == Fraction(1, 3) and event.progress == 1 / 3
    assert loaded.history[0].scheduled == third


def in_format_1(plan: list[ScheduledEvent], history: list[tuple[ScheduledEvent | None, str]]) -> dict[str, Any]:
    """A state as the first format wrote it, by hand."""

    def scheduled(event: ScheduledEvent) -> dict[str, Any]:
        return {"step": event.step, "progress": float(event.share), "targets": dict(event.targets)}

    events = [
        {
            "step": 100 + i,
            "scheduled": None if event is None else scheduled(event),
            "strategy": "importance",
            "recovery": "rewind",
            "options": {"seed": i},
            "sizes_before": {} if error else {"trunk.0": 16},
            "sizes_after": {} if error else {"trunk.0": 12},
            "parameters_before": 0 if error else 1000,
            "parameters_after": 0 if error else 700,
            "macs_per_ray_before": 0 if error else 192_000,
            "macs_per_ray_after": 0 if error else 130_000,
            "metrics_before": {"psnr": 21.5},
            "metrics_after": {"psnr": 19.25},
            "rays_per_sec_before": 1234.5,
            "seconds": 0.25,
            "error": error,
        }
        for i, (event, error) in enumerate(history)
    ]
    return {
        "format_version": 1,
        "initial_sizes": {"trunk.0": 16},
        "options": {"strategy": "importance"},
        "given": {"strategy": "importance"},
        "plan": [scheduled(event) for event in plan],
        "history": events,
        "phase": "pruning",
        "edge_masks": {"trunk.0.weight": torch.tensor([[True, False]])},
        "rewind_snapshot": {"trunk.0.weight": torch.tensor([[0.1, -2.0]])},
    }


def test_format_1_is_read() -> None:
    """Checkpoints of runs from before go on to be resumed and evaluated; written out by hand and compared field by
    field, so that a renamed key cannot take both sides along."""
    old = in_format_1(PLAN, [(PLAN[0], ""), (None, "")])
    state = PruneState.from_dict(old)
    before = Sizes({"trunk.0": 16}, {"parameters": 1000, "macs_per_ray": 192_000})
    after = Sizes({"trunk.0": 12}, {"parameters": 700, "macs_per_ray": 130_000})
    first = PruneEvent(
        step=100,
        scheduled=PLAN[0],
        strategy="importance",
        recovery="rewind",
        options={"seed": 0},
        before=before,
        after=after,
        metrics_before={"psnr": 21.5},
        metrics_after={"psnr": 19.25},
        rays_per_sec_before=1234.5,
        seconds=0.25,
    )
    assert state.history == [first, replace(first, step=101, scheduled=None, options={"seed": 1})]
    assert state.plan == PLAN and state.pending == PLAN[1:] and state.phase == "pruning"
    assert (state.initial_sizes, state.options, state.given) == (
        {"trunk.0": 16},
        {"strategy": "importance"},
        {"strategy": "importance"},
    )
    assert torch.equal(state.masks["trunk.0.weight"], torch.tensor([[True, False]]))
    assert torch.equal(state.rewind_snapshot["trunk.0.weight"], torch.tensor([[0.1, -2.0]]))
    assert old["format_version"] == 1 and "edge_masks" in old and "sizes_before" in old["history"][0]
    again = PruneState.from_dict(state.to_dict())
    assert again.plan == state.plan and again.history == state.history


def test_format_1_with_a_plan_that_was_replaced() -> None:
    """Format 1 told events by equality: an entry of the history that is not in the plan, because a resumed run got
    another target, retires none of the new plan's, and is itself not planned any more."""
    replaced = ScheduledEvent(100, Fraction(1, 2), {"trunk.0": 14})
    state = PruneState.from_dict(in_format_1(PLAN, [(replaced, "")]))
    assert state.pending == PLAN and state.due(150) == PLAN[0] and state.phase == "pruning"
    old = state.history[0].scheduled
    assert old is not None and old.same_cut(replaced) and old.index < PLAN[0].index
    both = PruneState.from_dict(in_format_1(PLAN, [(replaced, ""), (PLAN[1], "not finite")]))
    assert both.pending == PLAN[2:]
    state.plan = state.numbered(without_indices(PLAN))  # the plan is made anew, and nothing in it has been tried
    assert state.pending == state.plan and [event.step for event in state.plan] == [100, 200, 300]


@pytest.mark.parametrize("share", [Fraction(1, 3), Fraction(19, 27), Fraction(37, 64), Fraction(1), Fraction(61, 125)])
def test_shares_of_format_1_become_exact(share: Fraction) -> None:
    """Format 1 kept shares as floats. What schedules give, thirds and cubes, must come back as the very fraction, for a
    plan that is made anew is compared with it."""
    event = ScheduledEvent(100, share, {"trunk.0": 12})
    state = PruneState.from_dict(in_format_1([event], []))
    assert state.plan == [event]


@pytest.mark.parametrize("events", [3, 101, 300])
def test_cubic_shares_of_format_1_become_exact(events: int) -> None:
    """An event that was carried out is told by its share when the options are given again. Of many cubic events the
    shares have large denominators; one that came back as a neighbour would be carried out a second time."""
    plan = [ScheduledEvent(i, 1 - (1 - Fraction(i, events)) ** 3) for i in range(1, events + 1)]
    assert [event.share for event in PruneState.from_dict(in_format_1(plan, [])).plan] == [e.share for e in plan]


def test_failed_event_of_format_1_has_no_sizes() -> None:
    """It wrote zeros where nothing had been counted; a network of no parameters would be told of."""
    (event,) = PruneState.from_dict(in_format_1(PLAN, [(PLAN[0], "not finite")])).history
    assert (event.before, event.after, event.error) == (Sizes(), Sizes(), "not finite")


@pytest.mark.parametrize("missing", ["edge_masks", "plan", "history", "rewind_snapshot"])
def test_damaged_format_1_gives_the_same_error(missing: str) -> None:
    """As for the present format: one kind of error, which says that it is the pruning state and names the key."""
    values = in_format_1(PLAN, [(PLAN[0], "")])
    del values[missing]
    with pytest.raises(ValueError, match=f"pruning state in the checkpoint cannot be read: .*{missing}"):
        PruneState.from_dict(values)
