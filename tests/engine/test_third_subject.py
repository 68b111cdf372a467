"""The engine serves whatever stands behind the protocol: here a cloud of points, of which it has no line."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch
from support.counted_threads import CountedThreads
from support.host_fixtures import clean_host  # noqa: F401
from support.point_cloud import CloudConfig, CloudForm, CloudSubject, PointCloud, adams

from nerfstudio_prune.core.curve import TrainingCurve
from nerfstudio_prune.core.events import PruneState, Sizes
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.options import option
from nerfstudio_prune.engine.resuming import take_up, update_plan
from nerfstudio_prune.engine.steering import Steering
from nerfstudio_prune.engine.threads import Threads
from nerfstudio_prune.viewer.preview import take_draft
from nerfstudio_prune.viewer.session import Session
from nerfstudio_prune.viewer.texts import state_text

COUNT = 64


class Quality:
    """Minus the loss, so that a cut shows."""

    description = "all points"

    def __call__(self, model: PointCloud) -> dict[str, float]:
        return {"psnr": -float(model.loss().detach())}


class Training:
    """The host's loop in miniature; after every step optimizers and model are held against each other."""

    def __init__(self, count: int = COUNT, steps: int = 12, state: Optional[dict[str, Any]] = None, **given: Any):
        saved = state or {"step": -1}
        self.cloud = PointCloud(len(saved["model"]["seen"]) if state else count)
        self.optimizers = adams(self.cloud)
        if state:
            self.cloud.load_state_dict(saved["model"])
            for name, optimizer in self.optimizers.optimizers.items():
                optimizer.load_state_dict(saved["optimizers"][name])
        self.first_step, self.steps = saved["step"] + 1, steps
        self.subject = CloudSubject(self.cloud)
        run = take_up(
            self.cloud.prune_state,
            CloudConfig(**given),
            lambda options: self.subject,
            self.optimizers,
            0,
            self.first_step,
            steps,
        )
        self.controller = PruneController(run, Quality(), lambda: 1, watched=True)
        self.steering = Steering(self.controller)
        self.seed = 0
        self.datamanager = None
        self.measure = Quality()

    @property
    def options(self) -> Any:
        return self.controller.run.options

    @property
    def state(self) -> PruneState:
        return self.cloud.prune_state

    def passed(self, until: int) -> "Training":
        """Goes on up to and including a step."""
        for step in range(self.controller.run.step + (self.controller.run.step > self.first_step), until + 1):
            self.step(step)
        return self

    def step(self, step: int) -> None:
        self.controller.before_step(step)
        self.optimizers.zero_grad_all()
        self.cloud.loss().backward()
        for optimizer in self.optimizers.optimizers.values():
            optimizer.step()
        before = {k: (p, self.moments(k)) for k, p in self.cloud.points.items()}
        seen = self.cloud.seen
        self.controller.on_step(step)
        self.steering.on_step(step)
        if len(self.cloud.seen) < len(seen):
            self.check_slices(seen, before)
        check_optimizers(self.optimizers.optimizers, self.optimizers.parameters, self.subject.param_groups())
        assert {len(t) for t in (*self.cloud.points.values(), self.cloud.seen)} == {len(self.cloud.seen)}

    def moments(self, name: str) -> dict[str, torch.Tensor]:
        optimizer = self.optimizers.optimizers[name]
        (parameter,) = optimizer.param_groups[0]["params"]
        return {key: value.clone() for key, value in optimizer.state[parameter].items()}

    def check_slices(self, seen: torch.Tensor, before: dict[str, tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> None:
        """Points and moments are those of the points that stay, as the buffer that was cut with them tells."""
        keep = torch.searchsorted(seen, self.cloud.seen)
        assert torch.equal(seen[keep], self.cloud.seen)
        for name, (old, moments) in before.items():
            assert torch.equal(self.cloud.points[name], old[keep])
            found = self.moments(name)
            assert torch.equal(found["exp_avg"], moments["exp_avg"][keep])
            assert torch.equal(found["exp_avg_sq"], moments["exp_avg_sq"][keep])
            assert float(found["step"]) == float(moments["step"])

    def saved(self) -> dict[str, Any]:
        buffer = io.BytesIO()
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.optimizers.items()}
        step = self.controller.run.step
        torch.save({"model": self.cloud.state_dict(), "optimizers": optimizers, "step": step}, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads need not be reproducible."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sizes_of(training: Training) -> list[tuple[int, int, int]]:
    """Step, points before and after of each event."""
    return [(e.step, e.before.parts["cloud"], e.after.parts["cloud"]) for e in training.state.history]


def test_one_shot(capsys: pytest.CaptureFixture[str]) -> None:
    """The simplest plan: once, to the target, recorded with its sizes, its quality and its options."""
    training = Training(start_step=4).passed(11)
    (event,) = training.state.history
    assert (event.step, event.before, event.after) == (4, Sizes({"cloud": 64}, {"points": 64}), event.after)
    assert event.after == Sizes({"cloud": 32}, {"points": 32}) and training.state.phase == "recovery"
    assert event.metrics_before["psnr"] < event.metrics_after["psnr"] < 0
    assert event.options["keep"] == 0.5 and event.options["score"] == "opacity" and event.error == ""
    text = " ".join(capsys.readouterr().out.split())
    assert "Pruning plan: importance, recovery continue, step 4: to 32 points (phase dense)" in text
    assert "│ cloud │ 64 → 32 │ │" in text and "│ in all │ │ 64 → 32 │" in text and "2.00x fewer points, PSNR" in text


def test_gradual() -> None:
    """A cubic plan of three: sizes follow 1 - (1 - t)^3 of Zhu and Gupta, floored by exact fractions."""
    training = Training(schedule="cubic", num_events=3, start_step=2, stop_step=8, keep=0.25).passed(11)
    shares = [19 / 27, 26 / 27, 1]
    after = [64 - int(48 * share) for share in shares]
    assert after[-1] == 16
    assert sizes_of(training) == [(2, 64, after[0]), (5, after[0], after[1]), (8, after[1], 16)]


def test_by_hand_undo_and_go_on() -> None:
    """A person cuts beside the plan, goes back, and everything is as it was, moments and buffer included; the plan then
    happens as if nothing had been."""
    plain, steered = Training(start_step=9).passed(11), Training(start_step=9).passed(2)
    steered.steering.request("prune", {"keep": 0.25})
    steered.step(3)
    assert sizes_of(steered) == [(3, 64, 16)] and "64 → 16 points" in steered.steering.message.text
    kept = steered.controller.snapshot
    assert kept is not None and len(kept.view(torch.device("cpu")).seen) == 64
    steered.step(4)
    steered.controller.undo(4)
    before = Training(start_step=9).passed(3)
    for name, p in steered.cloud.points.items():
        assert torch.equal(p, before.cloud.points[name])
        assert all(torch.equal(v, before.moments(name)[k]) for k, v in steered.moments(name).items())
    assert torch.equal(steered.cloud.seen, torch.arange(64.0)) and steered.state.history == []
    for step in range(5, 12):
        steered.step(step)
    assert sizes_of(steered) == sizes_of(plain) == [(9, 64, 32)]


def test_pause_and_another_target() -> None:
    """A paused plan waits and an overdue event happens when it goes on; another target changes what is to come."""
    training = Training(start_step=3).passed(2)
    training.controller.run.paused = True
    training.passed(5)
    assert training.state.history == [] and training.controller.obstacle("retarget") == ""
    training.steering.request("retarget", {"keep": 0.75})
    training.passed(6)
    assert "goes to keep 0.75" in training.steering.message.text
    training.controller.run.paused = False
    training.passed(7)
    assert sizes_of(training) == [(7, 64, 48)]
    assert training.state.options["keep"] == 0.75 and training.state.given == {"start_step": 3, "keep": 0.75}


def test_impossible_requests_change_nothing() -> None:
    """What is out of range is refused in words, and neither cloud nor plan hears of it."""
    training = Training(start_step=9).passed(2)
    training.steering.request("prune", {"keep": 1.5})
    training.steering.request("undo")
    training.passed(3)
    assert training.steering.message.error and "no network is kept" in training.steering.message.text
    assert training.state.history == [] and len(training.cloud.seen) == 64
    assert training.controller.obstacle("undo") == "no pruning in this process to undo"


@pytest.mark.parametrize("step", [1, 3, 6])
def test_resuming(step: int) -> None:
    """A run that is killed and taken up ends bit for bit like one that was not, events included."""
    options = {"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 6}
    whole = Training(**options).passed(11)
    half = Training(**options).passed(step)
    resumed = Training(state=half.saved(), steps=11 - step, **options).passed(11)
    assert sizes_of(resumed) == sizes_of(whole) == [(3, 64, 48), (6, 48, 32)]
    for name, p in whole.cloud.points.items():
        assert torch.equal(p, resumed.cloud.points[name])
        assert all(torch.equal(v, resumed.moments(name)[k]) for k, v in whole.moments(name).items())
    assert torch.equal(whole.cloud.seen, resumed.cloud.seen)


def test_resuming_with_another_target() -> None:
    """An option that is given again replaces the plan; what is done stays done."""
    half = Training(start_step=3, keep=0.75).passed(5)
    resumed = Training(state=half.saved(), keep=0.5, start_step=3).passed(11)
    assert sizes_of(resumed) == [(3, 64, 48), (6, 48, 32)]
    assert resumed.controller.run.origin.endswith("given again: keep)")


def test_state_for_the_panel() -> None:
    """The panel shows a cloud with no line of its own for it."""
    training = Training(start_step=3).passed(5)
    pipeline = SimpleNamespace(
        controller=training.controller,
        steering=training.steering,
        seed=0,
        datamanager=None,
        options=training.options,
        subject=training.subject,
        measure=training.measure,
        subject_of=lambda options: training.subject,
    )
    session = Session(pipeline, Lock(), lambda: "training", lambda: 0)  # type: ignore[arg-type]
    status = session.status()
    assert status.sizes.parts == {"cloud": 32} and status.initial.parts == {"cloud": 64}
    assert status.summary == [("points", "64", "32")] and status.places == {"cloud": ("cloud", "points")}
    text = state_text(status)
    assert "| points | 64 | 32 |" in text and "**recovery**, step 5" in text and "last event: step 3" in text
    preview = session.preview({"keep": 0.25})
    assert preview.after.parts == {"cloud": 16} and len(training.cloud.seen) == 32
    assert preview.score_name == "opacity" and len(preview.scores["cloud"]) == 32
    assert isinstance(training.controller.curve, TrainingCurve)


def test_preview_takes_the_threads_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made in a thread of the panel, and has to be bit for bit what the event would give: several threads may add
    in another order."""
    counted, training = CountedThreads(monkeypatch, 2), Training(start_step=9).passed(2)
    with Threads(1, torch.device("cpu")).in_force():
        counted.number = 2  # as the panel's thread found it
        take_draft(training.controller.run.recipe, training.subject, step=2, seed=0)
        assert counted.number == 1


def test_a_checkpoint_holds_plain_values_only() -> None:
    """`torch.load(weights_only=True)` is what a careful person opens a checkpoint with; what comes out is the state."""
    training = Training(schedule="iterative", num_events=3, start_step=2, stop_step=8).passed(3)
    state = training.saved()["model"]["_extra_state"]
    assert PruneState.from_dict(state).history == training.state.history
    assert PruneState.from_dict(state).plan == training.state.plan
    assert state["format_version"] == 2 and [e["share"] for e in state["plan"]] == [[1, 3], [2, 3], [1, 1]]


def test_a_part_of_the_wanted_size_is_left_alone() -> None:
    """A subject may slice every tensor whatever the target. If all points stay nothing is removed: an event in the
    history would start the recovery of a network that lost nothing."""
    training = Training(start_step=3, keep=1.0).passed(5)
    assert training.state.history == [] and training.state.plan == [] and training.state.phase == "dense"


@pytest.mark.parametrize("recovery", ["retrain", "rewind", "scratch"])
def test_a_recovery_that_is_not_carried_out_is_refused(recovery: str) -> None:
    """Slices inherit weights and moments. The history must not name another recovery for what was inherited."""
    with pytest.raises(ValueError, match=f"prune.recovery must be continue, .* got {recovery}"):
        Training(start_step=3, recovery=recovery)


def test_undo_brings_back_a_buffer_that_is_gone() -> None:
    """A cut may leave a buffer without a use, or make one: what was there before is put back, whatever is there now."""
    training = Training(start_step=3).passed(3)
    del training.cloud._buffers["seen"]
    training.subject.buffers = dict  # type: ignore[method-assign]
    training.controller.undo(3)
    assert torch.equal(training.cloud.seen, torch.arange(64.0)) and training.state.history == []


class Hearing(Listener):
    """Counts other plans, and may fail at one."""

    def __init__(self, fails: bool = False) -> None:
        self.count, self.fails = 0, fails

    def replanned(self) -> None:
        self.count += 1
        if self.fails:
            raise RuntimeError("not now")


def test_listener_that_fails_at_another_plan_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The other target holds by then. A refusal would be wrong, and listeners behind the one that fails, the learning
    rates say, would go on with options that are not in force any more."""
    training, hearing = Training(start_step=9).passed(2), Hearing()
    training.controller.listeners = [Hearing(fails=True), *training.controller.listeners, hearing]
    training.steering.request("retarget", {"keep": 0.25})
    training.passed(9)
    assert hearing.count == 1 and training.steering.message.text.endswith("goes to keep 0.25")
    assert not training.steering.message.error and sizes_of(training) == [(9, 64, 16)]
    assert "Step 3, Hearing.replanned failed: RuntimeError: not now" in capsys.readouterr().out


def test_another_target_holds_as_a_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan and options go into checkpoints together: of a request that is refused half-way neither may stay."""
    training = Training(start_step=9).passed(2)

    def refuse(form: CloudForm, options: CloudConfig) -> dict[str, Any]:
        raise ValueError("no such field")

    monkeypatch.setattr(CloudForm, "named", refuse)
    before = training.state.to_dict()
    training.steering.request("retarget", {"keep": 0.25})
    training.passed(3)
    assert training.steering.message.error and "no such field" in training.steering.message.text
    assert training.state.to_dict() == before and training.options.keep == 0.5


@dataclass
class OwnConfig(CloudConfig):
    """A person's own options."""

    mercy: Optional[float] = option(0.1)


def test_own_options_resume_beside_registered_ones_of_a_base_class() -> None:
    """Who swaps the options of a registered method for own ones, with a field more, can stop and go on: what the
    registered options do not know is given if it is not absent."""
    subject, state = CloudSubject(PointCloud(COUNT)), PruneState()
    update_plan(state, OwnConfig(start_step=3), lambda _: subject, 0, 12, CloudConfig())
    assert update_plan(state, OwnConfig(), lambda _: subject, 2, 10, CloudConfig())[1] == []
    options, changed = update_plan(state, OwnConfig(mercy=0.5), lambda _: subject, 2, 10, CloudConfig())
    assert changed == ["mercy"] and isinstance(options, OwnConfig) and (options.mercy, options.start_step) == (0.5, 3)
