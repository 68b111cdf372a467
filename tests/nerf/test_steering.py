"""A person steers a run: prune, undo, pause, change the plan. In the host's real training loop."""

import math
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig, MultiStepSchedulerConfig
from support.tiny_run import (
    after_each_step,
    before_each_step,
    checkpoint,
    copied_state,
    form_values,
    resume,
    same_bits,
    start,
    tiny_model,
    tiny_parameters,
    tiny_widths,
    train,
    widths,
)

from nerfstudio_prune.core.curve import TrainingCurve
from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine import controller as controller_module
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.rates import Rates
from nerfstudio_prune.engine.steering import Message, RequestName, Steering
from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.nerf.form import OWN_SCORE, NeuronForm
from nerfstudio_prune.nerf.presets import PRESETS
from nerfstudio_prune.nerf.teacher.config import TeacherConfig

Config = Callable[..., Any]
Cut = dict[str, Any]
Requests = dict[int, list[tuple[RequestName, Cut | None]]]
HALF = form_values("coreset", None, "none", "pruning_ratio", 0.5)
QUARTER = {**HALF, "value": 0.25}
THREE_QUARTERS = {**HALF, "value": 0.75}
FEW = {"calibration_rays": 64}
DENSE = {"strategy": "none", **FEW}
TWICE = {"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 6}
THRICE = {"schedule": "iterative", "num_events": 3, "start_step": 2, "stop_step": 6}
UNDO: tuple[RequestName, None] = ("undo", None)


def watched(config: Any, requests: Requests | None = None, same_noise: bool = False) -> Any:
    """A trainer of a run that a person looks on at, with requests that are made in the midst of given steps."""
    trainer = start(config, same_noise=same_noise)
    controller = trainer.pipeline.controller
    controller._watched, controller.curve = True, TrainingCurve()

    def ask(step: int) -> None:
        for name, cut in (requests or {}).get(step, []):
            trainer.pipeline.steering.request(name, cut)

    before_each_step(trainer, ask)
    return trainer


def steered(config: Any, requests: Requests, same_noise: bool = False) -> Any:
    """A whole run with requests."""
    trainer = watched(config, requests, same_noise)
    trainer.train()
    assert trainer.step == config.max_num_iterations + trainer._start_step - 1
    check(trainer)
    return trainer


def check(trainer: Any) -> None:
    """The invariant of docs/design.md: optimizer, clipping list and model hold the same tensors in the same order."""
    optimizers, model = trainer.optimizers, trainer.pipeline.model
    check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())


def in_each_step(trainer: Any, function: Callable[[], Any]) -> dict[int, Any]:
    """Step -> what a function gives in it, behind the controller's own hook; filled by the training."""
    seen: dict[int, Any] = {}

    def note(step: int) -> None:
        seen[step] = function()

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], note))
    return seen


def state_of(trainer: Any) -> Any:
    return trainer.pipeline.model.prune_state


def message_of(trainer: Any) -> Message:
    return trainer.pipeline.steering.message


def optimizer_of(trainer: Any) -> torch.optim.Optimizer:
    return trainer.optimizers.optimizers["fields"]


def rate_of(trainer: Any) -> float:
    return float(optimizer_of(trainer).param_groups[0]["lr"])


def events(trainer: Any) -> list[tuple[int, dict[str, int]]]:
    return [(event.step, event.after.parts) for event in state_of(trainer).history]


def plan(trainer: Any) -> list[tuple[int, dict[str, int]]]:
    return [(event.step, event.targets) for event in state_of(trainer).plan]


def bits(trainer: Any) -> Any:
    """Weights, pruning state and moments, out of the reach of later changes."""
    state = optimizer_of(trainer).state
    parameters = trainer.pipeline.model.get_param_groups()["fields"]
    return (
        copied_state(trainer.pipeline.model),
        [{key: value.clone() for key, value in state[p].items()} for p in parameters],
        [{key: value for key, value in g.items() if key != "params"} for g in optimizer_of(trainer).param_groups],
    )


def saved_bits(trainer: Any, step: int = 9) -> Any:
    """Tensors of the network, moments and schedule in a checkpoint."""
    saved = checkpoint(trainer, step)
    tensors = {key: value for key, value in saved["pipeline"].items() if torch.is_tensor(value)}
    optimizer = saved["optimizers"]["fields"]
    return tensors, dict(sorted(optimizer["state"].items())), optimizer["param_groups"], saved["schedulers"]


def with_scheduler(config: Any, kind: str) -> Any:
    """A schedule that computes its rate anew in each step, or one that multiplies the rate that it finds."""
    config.optimizers["fields"]["scheduler"] = {
        "none": None,
        "exponential": ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20),
        "multi-step": MultiStepSchedulerConfig(max_steps=20, gamma=0.5, milestones=(2, 5, 8)),
    }[kind]
    return config


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("cut", "target"),
    [
        (HALF, tiny_widths(8, 4)),
        (form_values("importance", "w_out", "merge", "pruning_ratio", 0.25), tiny_widths(12, 6)),
        (form_values("uniform", None, "none", "pruning_ratio", 0.75, lr_factor=2.0), tiny_widths(4, 2)),
        (form_values("pivoted-qr", None, "lstsq", "pruning_ratio", 0.5), tiny_widths(8, 4)),
    ],
)
def test_prune_by_hand(
    tiny_config: Config, cut: Cut, target: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever presses the button gets the cut that is on the form, at the end of the very step, in a run that plans
    nothing itself; and finds it in the history under the options of the form, or nobody could repeat it."""
    trainer = watched(tiny_config(**DENSE), {4: [("prune", cut)]})
    seen = in_each_step(trainer, lambda: widths(trainer.pipeline.model))
    trainer.train()
    check(trainer)
    assert (seen[4], seen[5], widths(trainer.pipeline.model)) == (tiny_widths(16, 8), target, target)
    (event,) = state_of(trainer).history
    assert (event.step, event.scheduled, event.strategy, event.error) == (4, None, cut["strategy"], "")
    assert event.options["pruning_ratio"] == cut["value"] and event.options["refit"] == cut["refit"]
    assert event.options["recovery_lr_factor"] == cut["lr_factor"] and event.options["seed"] == 42
    own = {"importance": "w_out", "coreset": "w_in_w_out"}
    assert event.options["score"] == own.get(cut["strategy"])
    assert {event.options[name] for name in ("width", "head_width", "target_parameters", "target_macs")} == {None}
    assert (event.before.parts, event.after.parts) == (tiny_widths(16, 8), target)
    assert event.before.costs["parameters"] == tiny_parameters(16, 8)
    assert event.metrics_before["psnr"] > 0 and event.metrics_after["psnr"] > 0
    assert state_of(trainer).plan == [] and state_of(trainer).phase == "recovery"
    before, after = (f"{sizes.costs['parameters']:,}" for sizes in (event.before, event.after))
    message = message_of(trainer)
    assert not message.error and f"Step 4: {before} → {after} parameters, PSNR " in message.text
    assert f"By hand at step 4: {before} → {after} parameters" in printed(capsys)
    assert trainer.pipeline.steering.waiting == () and trainer.pipeline.steering.busy == ""


@pytest.mark.parametrize("target", ["target_parameters", "target_macs"])
def test_prune_by_hand_to_a_budget(tiny_config: Config, target: Any) -> None:
    """The default form asks for a share of the parameters; it counts from the network before the first event, whatever
    has left since, or two presses on the same button would cut twice."""
    cut = form_values("obs", None, "lstsq", target, 0.4)
    trainer = steered(tiny_config(**DENSE), {3: [("prune", QUARTER)], 5: [("prune", cut)], 7: [("prune", cut)]})
    quarter, budget = state_of(trainer).history
    size = "macs_per_ray" if target == "target_macs" else "parameters"
    initial = quarter.before.costs[size]
    assert 0.3 * initial < budget.after.costs[size] <= 0.4 * initial
    assert (budget.step, budget.options[target]) == (5, 0.4)
    assert message_of(trainer).error and "nothing is left to remove" in message_of(trainer).text


@pytest.mark.parametrize(
    ("cut", "options"),
    [
        (HALF, {"strategy": "coreset", "pruning_ratio": 0.5}),
        (
            form_values("obs", None, "lstsq", "target_parameters", 0.4, 2.0),
            {"strategy": "obs", "refit": "lstsq", "target_parameters": 0.4, "recovery_lr_factor": 2.0},
        ),
        (
            form_values("importance", "activation", "lstsq", "target_macs", 0.4),
            {"strategy": "importance", "score": "activation", "refit": "lstsq", "target_macs": 0.4},
        ),
        (
            form_values("uniform", None, "none", "pruning_ratio", 0.3, 3.0),
            {
                "strategy": "uniform",
                "pruning_ratio": 0.3,
                "recovery": "retrain",
                "recovery_warm_up": 2,
                "recovery_lr_factor": 3.0,
            },
        ),
    ],
)
def test_by_hand_is_as_planned(tiny_config: Config, cut: Cut, options: dict[str, Any]) -> None:
    """What was found by playing is put into a command line and run again. The same cut at the same step has to give
    the same bits, to the end of the run, whether a finger or the plan asked for it."""
    kept = {key: options[key] for key in ("recovery", "recovery_warm_up") if key in options}
    planned = train(with_scheduler(tiny_config("planned", start_step=4, **FEW, **options), "exponential"))
    config = with_scheduler(tiny_config("by hand", **DENSE, **kept), "exponential")
    by_hand = steered(config, {4: [("prune", cut)]})
    assert same_bits(saved_bits(planned), saved_bits(by_hand))
    (one,), (other,) = state_of(planned).history, state_of(by_hand).history
    assert one.after.parts == other.after.parts and one.metrics_after == other.metrics_after
    assert one.scheduled is not None and other.scheduled is None


def test_plan_stays_beside_a_cut_by_hand(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan's targets are sizes of the network, not further cuts: an event that finds its target met has nothing to
    do and says so, one that does not goes the rest of the way."""
    requests: Requests = {1: [("prune", QUARTER)]}
    trainer = steered(tiny_config(**TWICE), requests)
    assert events(trainer) == [(1, tiny_widths(12, 6)), (6, tiny_widths(8, 4))]
    assert plan(trainer) == [(6, tiny_widths(8, 4))] and state_of(trainer).phase == "recovery"
    text = printed(capsys)
    assert [step for step in range(10) if f"Pruning at step {step} skipped: nothing is left" in text] == [3]


def test_planned_event_is_skipped_when_the_hand_went_further(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """A later event must neither widen the network again nor be recorded as a cut that there was not."""
    trainer = watched(tiny_config(**TWICE), {4: [("prune", THREE_QUARTERS)]})
    phases = in_each_step(trainer, lambda: (state_of(trainer).phase, len(plan(trainer))))
    trainer.train()
    check(trainer)
    assert events(trainer) == [(3, tiny_widths(12, 6)), (4, tiny_widths(4, 2))]
    assert [phases[step] for step in (3, 4, 5, 6, 7)] == [
        ("dense", 2),
        ("pruning", 2),
        ("pruning", 2),
        ("pruning", 2),
        ("recovery", 1),
    ]
    assert "Pruning at step 6 skipped" in printed(capsys) and widths(trainer.pipeline.model) == tiny_widths(4, 2)


WRONG: dict[str, tuple[Cut, str]] = {
    "unknown strategy": ({**HALF, "strategy": "typo"}, "strategy must be one of coreset, importance"),
    "strategy edge": ({**HALF, "strategy": "edge"}, "pivoted-qr, uniform, got 'edge'"),
    "strategy none": ({**HALF, "strategy": "none"}, "pivoted-qr, uniform, got 'none'"),
    "unknown score": ({**HALF, "score": "typo"}, "typo"),
    "score of a rule without": ({**HALF, "strategy": "obs", "score": "w_in"}, "takes no prune.score"),
    "ratio 1": ({**HALF, "value": 1.0}, "prune.pruning_ratio must be in [0, 1), got 1.0"),
    "ratio no number": ({**HALF, "value": math.nan}, "value must be a number in [0, 1], got nan"),
    "budget too small": ({**HALF, "target": "target_macs", "value": 1e-6}, "the smallest widths already take"),
    "factor 0": ({**HALF, "lr_factor": 0.0}, "lr_factor must be a number in [0.1, 10], got 0.0"),
    "factor no number": ({**HALF, "lr_factor": math.nan}, "lr_factor must be a number in [0.1, 10], got nan"),
    "nothing to remove": ({**HALF, "value": 0.0}, "nothing is left to remove for this target"),
    "budget that is met": ({**HALF, "target": "target_parameters", "value": 1.0}, "nothing is left to remove"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_request_changes_nothing(tiny_config: Config, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip on a form must not cost a run: no exception leaves the step, model, moments, plan and history are the very
    bits from before, the person reads why, and the planned event comes as planned."""
    cut, why = WRONG[wrong]
    trainer = watched(tiny_config(start_step=7), {4: [("prune", cut)]})
    before: list[Any] = []
    after_each_step(trainer, lambda step: before.append(bits(trainer)) if step == 4 else None)
    after: dict[int, Any] = {}

    def compare(step: int) -> None:
        after[step] = (same_bits(bits(trainer), before[0]), message_of(trainer)) if step == 4 else None

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], compare))
    trainer.train()
    check(trainer)
    same, message = after[4]
    assert same and message.error and message.text.startswith("Step 4, prune: ") and why in message.text
    text = printed(capsys)
    assert "By hand at step 4, prune failed: " in text and "Traceback" not in text
    assert trainer.step == 9 and events(trainer) == [(7, tiny_widths(8, 4))]
    assert trainer.pipeline.controller.snapshot is not None  # from before the planned event


@pytest.mark.parametrize("name", ["prune", "retarget"])
def test_refit_does_not_go_with_new_weights(tiny_config: Config, name: RequestName) -> None:
    """Options of the run that the form does not show can contradict it; that too is found before anything changes."""
    config = tiny_config(start_step=7, recovery="scratch")
    trainer = steered(config, {4: [(name, {**HALF, "refit": "merge"})]})
    assert message_of(trainer).error and "prune.recovery scratch replaces the weights" in message_of(trainer).text
    (event,) = state_of(trainer).history
    assert (event.step, event.options["refit"]) == (7, "none")


def poisoned_at(trainer: Any, at: int) -> None:
    """One weight of the fine field becomes NaN at the end of a step."""

    def poison(step: int) -> None:
        if step == at:
            with torch.no_grad():
                trainer.pipeline.model.field_fine.mlp_base.layers[3].weight[2, 5] = torch.nan

    after_each_step(trainer, poison)


def test_diverged_network_is_not_pruned(tiny_config: Config) -> None:
    """Scores of a network with NaN in it mean nothing; the person is told which layer it is, and the training goes on,
    since a look at it, or an undo, is what comes next."""
    trainer = watched(tiny_config(**DENSE), {4: [("prune", HALF)]})

    poisoned_at(trainer, 4)
    trainer.train()
    check(trainer)
    message = message_of(trainer)
    assert message.error and "field_fine.mlp_base.layers.3.weight: 1 of 256 values are not finite" in message.text
    assert trainer.step == 9 and events(trainer) == [] and trainer.pipeline.controller.snapshot is None


def test_undo_brings_a_diverged_run_back(tiny_config: Config) -> None:
    """The best reason of all for an undo is a network that the cut broke."""
    trainer = watched(tiny_config(**DENSE), {3: [("prune", HALF)], 5: [UNDO]})

    poisoned_at(trainer, 4)
    trainer.train()
    check(trainer)
    assert not message_of(trainer).error and widths(trainer.pipeline.model) == tiny_widths(16, 8)
    assert all(bool(torch.isfinite(p).all()) for p in trainer.pipeline.model.parameters())


def test_planned_event_that_is_undone_does_not_come_back(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its step has passed and its target is not met: left in the plan it would happen again right at the next step, and
    nobody could ever get rid of it. The events after it were not undone."""
    trainer = watched(tiny_config(**TWICE), {4: [UNDO]})
    seen = in_each_step(trainer, lambda: (widths(trainer.pipeline.model), state_of(trainer).phase, plan(trainer)))
    trainer.train()
    check(trainer)
    later = [(6, tiny_widths(8, 4))]
    assert seen[4] == (tiny_widths(12, 6), "pruning", [(3, tiny_widths(12, 6)), *later])
    assert seen[5] == seen[6] == (tiny_widths(16, 8), "dense", later)
    assert events(trainer) == later
    assert message_of(trainer) == Message(
        f"Step 4: the pruning of step 3 is undone, {tiny_parameters(16, 8):,} parameters again"
    )
    assert "By hand at step 4: the pruning of step 3 is undone" in printed(capsys)


def test_undo_of_the_only_event_ends_the_plan(tiny_config: Config) -> None:
    """The network stays dense to the end, and in a run that is resumed from the checkpoint as well, even if the options
    of the first start are typed again."""
    trainer = steered(tiny_config("first", start_step=3), {5: [UNDO]})
    assert (plan(trainer), events(trainer), state_of(trainer).phase) == ([], [], "dense")
    resumed = train(resume(tiny_config("second", start_step=3), trainer, 9, 5))
    assert (plan(resumed), events(resumed)) == ([], []) and widths(resumed.pipeline.model) == tiny_widths(16, 8)


def test_undo_of_the_second_event_keeps_the_first(tiny_config: Config) -> None:
    """Only one step back is known; the history ends with the first event again, and so does the phase."""
    trainer = steered(tiny_config(**TWICE), {8: [UNDO]})
    assert events(trainer) == [(3, tiny_widths(12, 6))] and plan(trainer) == [(3, tiny_widths(12, 6))]
    assert state_of(trainer).phase == "recovery" and widths(trainer.pipeline.model) == tiny_widths(12, 6)


def test_undo_of_a_cut_by_hand_leaves_the_plan(tiny_config: Config) -> None:
    """The plan had no part in it."""
    trainer = watched(tiny_config(start_step=7), {2: [("prune", QUARTER)], 4: [UNDO]})
    plans = in_each_step(trainer, lambda: plan(trainer))
    trainer.train()
    check(trainer)
    assert events(trainer) == [(7, tiny_widths(8, 4))]
    assert all(plans[step] == [(7, tiny_widths(8, 4))] for step in range(10))
    assert state_of(trainer).history[0].before.parts == tiny_widths(16, 8)


def test_undo_of_a_cut_by_hand_leaves_an_event_that_waits(tiny_config: Config) -> None:
    """A planned event that a pause holds back was not undone: it is still to come when the plan goes on."""
    trainer = watched(tiny_config(start_step=3), {4: [("prune", QUARTER)], 5: [UNDO]})
    controller = trainer.pipeline.controller
    before_each_step(trainer, lambda step: setattr(controller.run, "paused", 2 <= step < 7))
    trainer.train()
    assert events(trainer) == [(7, tiny_widths(8, 4))]


@pytest.mark.parametrize(
    ("requests", "steps"),
    [
        ({4: [UNDO]}, []),
        ({3: [("prune", HALF)], 5: [UNDO], 6: [UNDO]}, []),
        ({2: [("prune", QUARTER)], 3: [("prune", HALF)], 5: [UNDO], 6: [UNDO]}, [2]),
    ],
)
def test_nothing_to_undo(tiny_config: Config, requests: Requests, steps: list[int]) -> None:
    """One network is kept, not a stack of them; a second undo must not restore something older or something else."""
    trainer = steered(tiny_config(**DENSE), requests)
    message = message_of(trainer)
    assert message.error and f"Step {max(requests)}, undo: no network is kept" in message.text
    assert [step for step, _ in events(trainer)] == steps


def test_nothing_is_kept_where_nobody_looks_on(tiny_config: Config) -> None:
    """A run without a viewer pays neither memory nor time for an undo that nobody can ask for."""
    trainer = train(tiny_config(start_step=3))
    controller = trainer.pipeline.controller
    assert controller.snapshot is None and controller.curve is None


@pytest.mark.parametrize("kind", ["none", "exponential", "multi-step"])
def test_cut_and_undo_in_one_step_leave_no_trace(tiny_config: Config, kind: str) -> None:
    """Requests of one step happen in the order in which they were made. The rest of the run is that of one in which
    nobody touched anything: network, moments, schedule, random numbers."""
    dense = train(with_scheduler(tiny_config("dense", **DENSE), kind))
    cut = form_values("obs", None, "lstsq", "target_parameters", 0.4, 2.0)
    touched = steered(with_scheduler(tiny_config("touched", **DENSE), kind), {4: [("prune", cut), UNDO]})
    assert "is undone" in message_of(touched).text
    assert same_bits(saved_bits(dense), saved_bits(touched))
    assert state_of(touched) == state_of(dense)


def test_undo_before_a_cut_in_one_step(tiny_config: Config) -> None:
    """The other order: from the network before the first cut to a milder one."""
    trainer = steered(tiny_config(**DENSE), {2: [("prune", THREE_QUARTERS)], 5: [UNDO, ("prune", QUARTER)]})
    (event,) = state_of(trainer).history
    assert (event.step, event.before.parts, event.after.parts) == (5, tiny_widths(16, 8), tiny_widths(12, 6))


def test_last_request_of_a_name_counts(tiny_config: Config) -> None:
    """A second press before the step ends is a correction of the first, not a second cut."""
    requests: Requests = {4: [("prune", THREE_QUARTERS), ("prune", QUARTER)]}
    assert events(steered(tiny_config(**DENSE), requests)) == [(4, tiny_widths(12, 6))]


def bare_steering() -> tuple[Steering, list[tuple[str, Any]]]:
    """A steering without a run, and what it carries out."""
    steering, done = Steering(None), []  # type: ignore[arg-type]

    def answer(name: str, cut: Any, step: int) -> str:
        done.append((name, cut))
        return ""

    steering._answer = answer  # type: ignore[method-assign,assignment]
    return steering, done


def test_replaced_request_waits_at_the_end() -> None:
    """What is asked for last is done last."""
    steering, done = bare_steering()
    steering.request("prune", HALF)
    steering.request("undo")
    assert steering.waiting == ("prune", "undo")
    steering.request("prune", QUARTER)
    assert steering.waiting == ("undo", "prune")
    steering.on_step(0)
    assert done == [("undo", None), ("prune", QUARTER)] and steering.waiting == ()
    steering.on_step(1)
    assert len(done) == 2


def test_request_from_within_a_step_waits_for_the_next() -> None:
    """A button that is pressed while a cut is carried out is not lost with the queue that was taken."""
    steering, done = bare_steering()
    inner = steering._answer

    def answer(name: RequestName, cut: Any, step: int) -> str:
        if step == 0:
            steering.request("undo")
        return inner(name, cut, step)

    steering._answer = answer  # type: ignore[method-assign]
    steering.request("prune", HALF)
    steering.on_step(0)
    assert (done, steering.waiting) == ([("prune", HALF)], ("undo",))
    steering.on_step(1)
    assert done == [("prune", HALF), ("undo", None)]


@pytest.mark.parametrize(("name", "cut"), [("undo", HALF), ("prune", None), ("retarget", None)])
def test_request_without_its_cut_is_refused_at_once(name: RequestName, cut: Cut | None) -> None:
    """A mistake of the caller shows in the caller, not in the trainer's thread a step later."""
    steering, _ = bare_steering()
    with pytest.raises(AssertionError):
        steering.request(name, cut)
    assert steering.waiting == ()


def test_eight_threads_at_once() -> None:
    """Every browser tab has a thread of its own. Round by round all of them press something: of each name exactly one
    request is carried out, one that was made in this round, and none twice or later."""
    steering, done = bare_steering()
    gate, failures = threading.Barrier(9), []
    names: list[RequestName] = ["prune", "retarget"]

    def press(tab: int) -> None:
        try:
            for turn in range(50):
                gate.wait(10)
                for again in range(3):
                    steering.request(names[tab % 2], {**HALF, "value": turn + tab / 10 + again / 100})
                steering.request("undo")
                gate.wait(10)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=press, args=(tab,)) for tab in range(8)]
    for thread in threads:
        thread.start()
    rounds = []
    for turn in range(50):
        gate.wait(10)
        gate.wait(10)
        steering.on_step(turn)
        rounds.append({name: cut for name, cut in done})
        assert len(done) == 3
        done.clear()
    for thread in threads:
        thread.join(10)
    assert failures == [] and steering.waiting == ()
    assert [set(found) for found in rounds] == [{"prune", "retarget", "undo"}] * 50
    assert [{int(found[name]["value"]) for name in names} for found in rounds] == [{turn} for turn in range(50)]
    # The last of a tab's three presses replaced the others.
    assert {round(found[name]["value"] * 100) % 10 for found in rounds for name in names} == {2}


def test_requests_while_steps_go_on() -> None:
    """The trainer takes the queue while others write to it: no request is done twice, those of a thread are done in
    their order, and the last one of all is done."""
    steering, done = bare_steering()
    failures: list[Exception] = []

    def press(tab: int) -> None:
        try:
            for turn in range(200):
                steering.request("prune", {**HALF, "value": 1000 * tab + turn})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=press, args=(tab,)) for tab in range(8)]
    for thread in threads:
        thread.start()
    step = 0
    while any(thread.is_alive() for thread in threads):
        steering.on_step(step)
        step += 1
    steering.on_step(step)
    values = [int(cut["value"]) for _, cut in done]
    assert failures == [] and len(set(values)) == len(values) > 0
    per_tab = [[value for value in values if value // 1000 == tab] for tab in range(8)]
    assert per_tab == [sorted(found) for found in per_tab]
    assert values[-1] % 1000 == 199 and steering.waiting == ()


@pytest.mark.parametrize(
    ("options", "until", "expected"),
    [
        ({"start_step": 3}, 6, [(6, tiny_widths(8, 4))]),
        ({"start_step": 3}, 3, [(3, tiny_widths(8, 4))]),
        (TWICE, 5, [(5, tiny_widths(12, 6)), (6, tiny_widths(8, 4))]),
        (TWICE, 8, [(8, tiny_widths(8, 4))]),
        ({"start_step": 3, "shrink_steps": 2}, 6, [(6, tiny_widths(8, 4))]),
        ({"start_step": 3}, 100, []),
    ],
)
def test_pause(
    tiny_config: Config, options: dict[str, Any], until: int, expected: list[tuple[int, dict[str, int]]]
) -> None:
    """A person who looks at something wants no event under their hands. What was due meanwhile happens at the first
    step after the pause, several of them as one; nothing is forgotten and nothing moves forward."""
    trainer = watched(tiny_config(**options))
    before_each_step(trainer, lambda step: setattr(trainer.pipeline.controller.run, "paused", 1 <= step < until))
    trainer.train()
    check(trainer)
    assert events(trainer) == expected


def test_plan_does_not_move_forward_in_a_pause(tiny_config: Config) -> None:
    """With `auto_start` a slow training brings the event forward. The pause stops that clock as well; else the event
    would be long overdue, and jump at the person, when the pause ends."""
    trainer = watched(tiny_config(start_step=8, auto_start=1000.0))
    before_each_step(trainer, lambda step: setattr(trainer.pipeline.controller.run, "paused", step < 4))
    trainer.train()
    assert events(trainer) == [(5, tiny_widths(8, 4))]  # two steps are a look here: 4 and 5


def test_nothing_shrinks_in_a_pause(tiny_config: Config) -> None:
    """Weights that an event is to remove are drawn to zero before it. An event that waits must not go on with that:
    until the pause ends the training is that of a run without a plan."""
    dense = train(tiny_config("dense", **DENSE))
    trainer = watched(tiny_config("paused", start_step=5, shrink_steps=3))
    trainer.pipeline.controller.run.paused = True
    trainer.train()
    assert same_bits(saved_bits(trainer), saved_bits(dense))


def test_hand_works_during_a_pause(tiny_config: Config) -> None:
    """The pause holds the plan back, not the person."""
    trainer = watched(tiny_config(start_step=3), {4: [("prune", QUARTER)]})
    before_each_step(trainer, lambda step: setattr(trainer.pipeline.controller.run, "paused", step < 6))
    trainer.train()
    assert events(trainer) == [(4, tiny_widths(12, 6)), (6, tiny_widths(8, 4))]


TEACHER = TeacherConfig(steps=4)


@pytest.mark.parametrize("by_hand", [False, True])
def test_undo_sends_the_teacher_away(tiny_config: Config, by_hand: bool) -> None:
    """The dense network needs no copy of itself as a teacher, and a teacher without an event has no age. The next event
    takes a new one."""
    options = {**DENSE} if by_hand else {**TWICE, "stop_step": 7}
    requests: Requests = {3: [("prune", QUARTER)], 7: [("prune", HALF)]} if by_hand else {}
    requests[5] = [UNDO]
    trainer = watched(tiny_config(teacher=TEACHER, **options), requests)
    lessons = trainer.pipeline.distillation
    teachers = in_each_step(trainer, lambda: lessons.teacher)
    used = in_each_step(trainer, lambda: lessons.at(trainer.step) is not None)
    trainer.train()
    check(trainer)
    assert events(trainer) == [(7, tiny_widths(8, 4))] and not message_of(trainer).error
    assert [step for step in range(10) if used[step]] == [4, 5, 8, 9]
    assert [step for step in range(10) if teachers[step] is not None] == [4, 5, 8, 9]
    assert teachers[8] is not teachers[4] and lessons.teacher is None


def test_undo_to_a_pruned_network_keeps_its_teacher(tiny_config: Config) -> None:
    """After an undo of the second event the first one's recovery goes on, with its own age."""
    trainer = watched(tiny_config(teacher=TeacherConfig(steps=5), **TWICE), {6: [UNDO]})
    lessons = trainer.pipeline.distillation
    ages = in_each_step(trainer, lambda: (lessons.at(trainer.step) or (None, None))[1])
    trainer.train()
    check(trainer)
    assert [ages[step] for step in range(10)] == [None] * 4 + [0, 1, 2, 3, 4, None]


@pytest.mark.parametrize("kind", ["none", "exponential", "multi-step"])
def test_rate_of_a_cut_by_hand(tiny_config: Config, kind: str) -> None:
    """The factor on the form holds in the steps after its event, is gone with an undo, and never gets into the
    schedule: the rates without it, and what a checkpoint saves, are those of a run that nobody touched."""
    rates, trainers = {}, {}
    touch: Requests = {3: [("prune", {**HALF, "lr_factor": 3.0})], 6: [UNDO]}
    for name in ("dense", "touched"):
        trainer = watched(with_scheduler(tiny_config(name, **DENSE), kind), touch if name == "touched" else {})
        rates[name] = in_each_step(trainer, lambda trainer=trainer: rate_of(trainer))
        trainer.train()
        trainers[name] = trainer
    factors = [rates["touched"][step] / rates["dense"][step] for step in range(10)]
    assert factors == pytest.approx([1, 1, 1, 1, 3, 3, 3, 1, 1, 1])
    assert (len(set(rates["dense"].values())) == 1) == (kind == "none")
    assert rate_of(trainers["touched"]) == pytest.approx(rate_of(trainers["dense"]))
    dense, touched = (checkpoint(trainers[name], 9)["schedulers"] for name in ("dense", "touched"))
    assert dense.keys() == touched.keys()
    assert [s["last_epoch"] for s in touched.values()] == [s["last_epoch"] for s in dense.values()]
    assert [s["base_lrs"] for s in touched.values()] == [s["base_lrs"] for s in dense.values()]


def test_newest_event_says_the_rate(tiny_config: Config) -> None:
    """A cut by hand brings its own factor, whole at once; a planned one the run's, by the share that is done."""
    requests: Requests = {4: [("prune", {**HALF, "value": 0.4, "lr_factor": 1.0})], 8: [UNDO]}
    trainer = watched(with_scheduler(tiny_config(**TWICE, recovery_lr_factor=4.0), "none"), requests)
    rates = in_each_step(trainer, lambda: rate_of(trainer))
    trainer.train()
    # Planned at 3 (half of the way), by hand at 4, planned at 6 (all of the way), undone at 8.
    assert [rates[step] / 5e-4 for step in range(10)] == pytest.approx([1, 1, 1, 1, 2, 1, 1, 4, 4, 1])


def test_rate_of_a_cut_by_hand_is_resumed(tiny_config: Config) -> None:
    """The factor is in the history, so that a resumed run has it without anybody typing it."""
    requests: Requests = {3: [("prune", {**HALF, "lr_factor": 3.0})]}
    first = steered(with_scheduler(tiny_config("first", **DENSE), "none"), requests)
    trainer = start(resume(with_scheduler(tiny_config("second", preset=None), "none"), first, 9, 3))
    rates = in_each_step(trainer, lambda: rate_of(trainer))
    trainer.train()
    assert list(rates.values()) == pytest.approx([1.5e-3] * 3)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        # 16 and 8 neurons: a third of the way to 4 and 2 is 12 and 6, two thirds 8 and 4.
        (1, [(2, tiny_widths(12, 6)), (4, tiny_widths(8, 4)), (6, tiny_widths(4, 2))]),
        (3, [(2, tiny_widths(14, 7)), (4, tiny_widths(8, 4)), (6, tiny_widths(4, 2))]),
        (5, [(2, tiny_widths(14, 7)), (4, tiny_widths(11, 6)), (6, tiny_widths(4, 2))]),
    ],
)
def test_new_target_for_the_events_to_come(
    tiny_config: Config, at: int, expected: list[tuple[int, dict[str, int]]]
) -> None:
    """Half-way through a plan somebody sees that there is room for more. The events to come go their shares of the new
    way, from the first network, at their own steps; what is done stays recorded as it was planned and done."""
    trainer = steered(tiny_config(**THRICE), {at: [("retarget", {**THREE_QUARTERS, "strategy": "uniform"})]})
    assert events(trainer) == plan(trainer) == expected
    own = ["coreset" if step < at else "uniform" for step, _ in expected]
    assert [event.strategy for event in state_of(trainer).history] == own
    assert not message_of(trainer).error
    steps = ", ".join(str(step) for step, _ in expected if step > at)
    assert message_of(trainer).text == f"Step {at}: the planned pruning (step {steps}) goes to pruning_ratio 0.75"
    assert all(event.scheduled is not None for event in state_of(trainer).history)


def test_new_target_respects_rounding(tiny_config: Config) -> None:
    """Widths on the way are multiples of what the run asks for, as in a plan that was made so from the start."""
    config = {**THRICE, "round_to": 4, "min_width": 4}
    planned = steered(tiny_config("planned", **config, pruning_ratio=0.75), {})
    changed = steered(tiny_config("changed", **config), {0: [("retarget", THREE_QUARTERS)]})
    assert plan(changed) == plan(planned) and events(changed) == events(planned)


def test_from_widths_to_a_budget_and_back(tiny_config: Config) -> None:
    """The two kinds of targets take each other's place without a rest of the old one."""
    budget = form_values("obs", None, "lstsq", "target_parameters", 0.3)
    trainer = watched(tiny_config(**THRICE, **FEW), {1: [("retarget", budget)], 5: [("retarget", HALF)]})
    plans = in_each_step(trainer, lambda: plan(trainer))
    trainer.train()
    check(trainer)
    assert plans[2] == plans[5] == [(2, {}), (4, {}), (6, {})]
    assert plan(trainer) == [(2, {}), (4, {}), (6, tiny_widths(8, 4))]
    first, second = state_of(trainer).history[:2]
    initial = tiny_parameters(16, 8)
    shares = [(initial - event.after.costs["parameters"]) / initial for event in (first, second)]
    assert shares == pytest.approx([0.7 / 3, 1.4 / 3], abs=0.03)
    assert [event.options["target_parameters"] for event in state_of(trainer).history][:2] == [0.3, 0.3]


def saving(config: Any, every: int) -> Any:
    config.steps_per_save, config.save_only_latest_checkpoint = every, False
    return config


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        (TWICE, {**THREE_QUARTERS, "lr_factor": 2.0}),
        (TWICE, form_values("obs", None, "lstsq", "target_parameters", 0.3, 2.0)),
        ({**TWICE, "preset": "best"}, HALF),
        ({**TWICE, "coarse": FieldTargetConfig(width=8), "fine": FieldTargetConfig(width=12)}, HALF),
        ({**TWICE, "group_widths": {"*.layers.1": 4}}, HALF),
    ],
)
def test_new_target_is_resumed(tiny_config: Config, options: dict[str, Any], cut: Cut) -> None:
    """The change was made on a screen and stands in no command line. A run that is cut off after it and goes on with no
    options given must do what the whole run did, to the bit."""
    config = {**options, "stop_step": 8, **FEW}
    first = with_scheduler(saving(tiny_config("whole", **config), 5), "exponential")
    whole = steered(first, {4: [("retarget", cut)]}, same_noise=True)
    saved = checkpoint(whole, 5)["pipeline"]["_model._extra_state"]
    assert [event["step"] for event in saved["plan"]] == [3, 8]
    second = tiny_config("resumed", preset=None, min_width=None, num_eval_rays=64)
    trainer = train(resume(with_scheduler(second, "exponential"), whole, 5, 4), same_noise=True)
    assert same_bits(saved_bits(whole), saved_bits(trainer))
    assert events(trainer) == events(whole) and len(events(trainer)) == 2
    assert state_of(trainer).history[1].options == state_of(whole).history[1].options


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_new_target_outlives_another_option(tiny_config: Config, preset: str) -> None:
    """On a resume one option is typed: the plan is made anew from all that was ever asked for, and what was asked for
    on the screen is part of that. Without it the preset would fill in its own rule and target again."""
    config = saving(tiny_config("first", **{**TWICE, "stop_step": 8, "preset": preset, **FEW}), 5)
    cut = form_values("importance", "w_in", "none", "pruning_ratio", 0.75, 1.5)
    first = steered(config, {4: [("retarget", cut)]})
    trainer = start(resume(tiny_config("second", preset=None, stop_step=7), first, 5, 4))
    assert plan(trainer)[-1] == (7, tiny_widths(4, 2))
    own = trainer.pipeline.controller.run.options
    assert (own.strategy, own.score, own.refit, own.recovery_lr_factor) == ("importance", "w_in", "none", 1.5)
    assert (own.target_parameters, own.target_macs) == (None, None)


@pytest.mark.parametrize(
    ("options", "cut", "why"),
    [
        (DENSE, HALF, "no event is planned any more"),
        ({"start_step": 2}, QUARTER, "no event is planned any more"),
        ({"strategy": "edge", "start_step": 8}, HALF, "strategy edge masks single weights"),
        ({"start_step": 8}, {**HALF, "value": 1.0}, "must be in [0, 1)"),
        ({"start_step": 8}, {**HALF, "target": "target_macs", "value": 1e-6}, "the smallest widths already take"),
    ],
)
def test_plan_that_cannot_be_changed(tiny_config: Config, options: dict[str, Any], cut: Cut, why: str) -> None:
    """A change that is refused leaves plan and options as they were, also those that a resumed run reads."""
    trainer = watched(tiny_config(**options), {4: [("retarget", cut)]})
    configs = in_each_step(trainer, lambda: trainer.pipeline.controller.run.options)
    states = in_each_step(trainer, lambda: deepcopy(state_of(trainer).to_dict()))
    trainer.train()
    check(trainer)
    assert message_of(trainer).error and why in message_of(trainer).text
    assert configs[0] is configs[9] and same_bits(states[4], states[5])
    assert len(events(trainer)) == ("start_step" in options)


def test_edges_cannot_be_cut_by_hand(tiny_config: Config) -> None:
    """Whoever asks past the panel gets its answer, and no network that is cut in two ways at once."""
    trainer = steered(tiny_config(strategy="edge", start_step=8), {4: [("prune", HALF)]})
    assert message_of(trainer) == Message(
        "Step 4, prune: strategy edge masks single weights; the panel removes neurons", error=True
    )
    assert widths(trainer.pipeline.model) == tiny_widths(16, 8)
    assert [event.step for event in state_of(trainer).history] == [8]


def test_strategy_none_is_no_plan_for_neurons(tiny_config: Config) -> None:
    """`none` leaves no neurons out; as a plan it would fail at its event, hours after the person has gone to bed. It is
    refused when it is asked for."""
    trainer = steered(tiny_config(start_step=8), {4: [("retarget", {**HALF, "strategy": "none"})]})
    assert message_of(trainer).error
    assert events(trainer) == [(8, tiny_widths(8, 4))]


HALF_SHARE = tiny_parameters(8, 4) / tiny_parameters(16, 8)


def offered(form: NeuronForm, options: PruneConfig) -> Cut:
    """What the form shows at first."""
    return {field.name: field.value for field in form.fields(options)}


@pytest.mark.parametrize(
    ("prune", "expected"),
    [
        ({"preset": "best"}, form_values("obs", None, "lstsq", "target_parameters", 0.28, 1.0)),
        ({}, form_values("obs", None, "lstsq", "target_parameters", 0.28, 1.0)),
        ({"preset": "fast"}, form_values("obs", None, "lstsq", "target_macs", 0.15, 1.0)),
        ({"preset": "tiny"}, form_values("obs", None, "lstsq", "target_parameters", 0.1, 1.0)),
        ({"preset": "paper"}, form_values("coreset", None, "none", "pruning_ratio", 0.5)),
        ({"preset": "paper", "pruning_ratio": 0.3}, form_values("coreset", None, "none", "pruning_ratio", 0.3)),
        (
            {"preset": "paper", "strategy": "importance", "score": "w_in"},
            {**HALF, "strategy": "importance", "score": "w_in"},
        ),
        ({"strategy": "none"}, form_values("obs", None, "lstsq", "target_parameters", 0.28, 1.0)),
        ({"strategy": "edge"}, form_values("obs", None, "lstsq", "target_parameters", 0.28, 1.0)),
        ({"width": 8, "min_width": 2}, form_values("obs", None, "lstsq", "target_parameters", HALF_SHARE)),
        (
            {"fine": FieldTargetConfig(width=8), "coarse": FieldTargetConfig(pruning_ratio=0.0), "min_width": 2},
            form_values("obs", None, "lstsq", "target_parameters", (1 + HALF_SHARE) / 2),
        ),
        (
            {"target_mb": 4e-6 * tiny_parameters(8, 4)},
            form_values("obs", None, "lstsq", "target_parameters", HALF_SHARE),
        ),
    ],
)
def test_form_starts_with_the_options_of_the_run(prune: dict[str, Any], expected: Cut) -> None:
    """The form is filled in with what the run would do, so that pressing the button without a change does that; where
    the run prunes no neurons, with what the README recommends."""
    options, form = PruneConfig(**prune).filled(), NeuronForm(tiny_model())
    cut = offered(form, options)
    assert cut == {**expected, "score": expected["score"] or OWN_SCORE, "value": pytest.approx(expected["value"])}
    assert offered(form, form.options(cut, options)) == cut


@pytest.mark.parametrize("preset", PRESETS)
def test_form_of_a_preset_is_that_preset(preset: Any) -> None:
    """What the form asks for without a change differs from the run in nothing but steps and schedule."""
    config, form = PruneConfig(preset=preset).filled(), NeuronForm(tiny_model())
    options = form.options(offered(form, config), config)
    assert replace(options, pruning_ratio=config.pruning_ratio) == config


def test_cut_takes_the_place_of_all_other_targets() -> None:
    """A rest of the run's own target beside that of the form would contradict it, or win."""
    base = PruneConfig(preset="paper", width=64, head_width=32, coarse=FieldTargetConfig(width=16), round_to=8).filled()
    options = NeuronForm(tiny_model()).options({**HALF, "target": "target_macs", "value": 0.2}, base)
    assert (options.target_macs, options.width, options.head_width, options.pruning_ratio) == (0.2, None, None, None)
    assert options.coarse.given() == {} and options.round_to == 8 and base.width == 64


class Refusing:
    """Fails at some of its calls, like a GPU that runs out of memory."""

    description = "nothing"

    def __init__(self, inner: Any, *bad_calls: int) -> None:
        self.inner, self.bad_calls, self.calls = inner, bad_calls, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        if self.calls in self.bad_calls:
            raise RuntimeError("out of [memory]")
        return self.inner(*args)


def test_any_error_ends_the_request_and_not_the_run(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Out of memory is no ValueError. The request is lost, with a traceback on the console for the report of it, and
    the night's training is not: the network is as before."""
    dense = train(tiny_config("dense", **DENSE))
    cut = form_values("obs", None, "lstsq", "target_parameters", 0.4)
    trainer = watched(tiny_config(**DENSE), {4: [("prune", cut)]})
    subject = trainer.pipeline.controller.run.subject
    subject.calibrate = Refusing(subject.calibrate, 1)
    trainer.train()
    check(trainer)
    assert message_of(trainer) == Message("Step 4, prune: RuntimeError: out of [memory]", error=True)
    assert trainer.pipeline.steering.busy == "" and events(trainer) == []
    text = printed(capsys)
    assert (
        "By hand at step 4, prune failed: RuntimeError: out of [memory]" in text
        and "Traceback (most recent call last)" in text
    )
    assert same_bits(saved_bits(trainer), saved_bits(dense))


def test_cut_that_cannot_be_measured_is_a_cut(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The second measurement comes when the network is pruned already. Told as a failure the person would ask again,
    and prune twice. The event did happen: it is recorded without the numbers that are missing, the optimizer fits, the
    training goes on, and it can be undone."""
    trainer = watched(tiny_config(**DENSE), {4: [("prune", HALF)], 7: [UNDO]})
    controller = trainer.pipeline.controller
    controller.measure = Refusing(controller.measure, 2)
    seen = in_each_step(
        trainer, lambda: (widths(trainer.pipeline.model), list(state_of(trainer).history), message_of(trainer))
    )
    trainer.train()
    check(trainer)
    cut, (event,), message = seen[5]
    assert cut == tiny_widths(8, 4)
    assert (event.step, event.error, event.after.parts) == (4, "", tiny_widths(8, 4)) and event.seconds > 0
    assert event.metrics_before["psnr"] > 0 and event.metrics_after == {}
    before, after = tiny_parameters(16, 8), tiny_parameters(8, 4)
    assert not message.error and message.text.startswith(f"Step 4: {before:,} → {after:,} parameters, PSNR ")
    assert "dB" not in message.text and " → not measured, " in message.text
    text = printed(capsys)
    assert "Pruning at step 4 is done, but its quality could not be measured: RuntimeError: out of [memory]" in text
    assert "Traceback (most recent call last)" in text and "failed" not in text
    assert trainer.step == 9 and seen[8][:2] == (tiny_widths(16, 8), []) and not message_of(trainer).error


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_planned_event_that_cannot_be_measured_does_not_end_the_run(
    tiny_config: Config, on_error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A measurement is for information, and `on_error` is about events that did not happen. These did, a night's
    training hangs on them, and what can be measured is."""
    trainer = start(tiny_config(**TWICE, on_error=on_error))
    controller = trainer.pipeline.controller
    controller.measure = Refusing(controller.measure, 2, 3)
    trainer.train()
    check(trainer)
    assert trainer.step == 9 and events(trainer) == [(3, tiny_widths(12, 6)), (6, tiny_widths(8, 4))]
    first, second = state_of(trainer).history
    assert (first.error, set(first.metrics_before), first.metrics_after) == ("", {"psnr"}, {})
    assert (second.error, second.metrics_before, set(second.metrics_after)) == ("", {}, {"psnr"})
    text = printed(capsys)
    assert "Pruning at step 3 is done, but its quality could not be measured: RuntimeError: out of [memory]" in text
    assert "Pruning at step 6: the quality before could not be measured: RuntimeError: out of [memory]" in text
    assert f"PSNR {first.metrics_before['psnr']:.2f} → not measured, " in text
    saved = checkpoint(trainer, 9)["pipeline"]["_model._extra_state"]["history"]
    assert [set(event["metrics_after"]) for event in saved] == [set(), {"psnr"}]


def test_cut_by_hand_is_preceded_by_a_checkpoint(tiny_config: Config) -> None:
    """A second cut uses up the undo, and the next save deletes the last uncut checkpoint. What is kept right before is
    the network as it was, and a planned event needs none: who planned it has chosen what is saved."""
    trainer = watched(
        tiny_config(**{**TWICE, "start_step": 2, "stop_step": 8}), {4: [("prune", {**HALF, "value": 0.4})]}
    )
    controller, kept = trainer.pipeline.controller, []
    controller.keep_checkpoint = lambda step: kept.append((step, widths(trainer.pipeline.model)))
    trainer.train()
    assert kept == [(4, tiny_widths(12, 6))] and [step for step, _ in events(trainer)] == [2, 4, 8]


def test_cut_by_hand_without_a_checkpoint_does_not_happen(tiny_config: Config) -> None:
    """On a full disk there would be no way back; the request fails and says why."""
    dense = train(tiny_config("dense", **DENSE))
    trainer = watched(tiny_config(**DENSE), {4: [("prune", HALF)]})
    trainer.pipeline.controller.keep_checkpoint = failing(OSError(28, "No space left on device"))
    trainer.train()
    assert message_of(trainer).error and "No space left on device" in message_of(trainer).text
    assert events(trainer) == [] and same_bits(saved_bits(trainer), saved_bits(dense))


def failing(error: Exception) -> Any:
    def fail(*args: Any) -> Any:
        raise error

    return fail


def fail_calibration(trainer: Any, error: Exception) -> None:
    trainer.pipeline.controller.run.subject.calibrate = failing(error)


def fail_choice(trainer: Any, error: Exception) -> None:
    trainer.pipeline.controller.run.subject.prepare = failing(error)


def fail_before_cut(trainer: Any, error: Exception) -> None:
    trainer.pipeline.controller.listeners[-1].before_cut = failing(error)


@pytest.mark.parametrize("fail", [fail_calibration, fail_choice, fail_before_cut])
@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "gone", "photo.png"), torch.OutOfMemoryError("out of it")])
def test_continue_holds_for_whatever_fails(
    tiny_config: Config, fail: Any, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asked to continue has asked for the night's training, not for a training without ValueErrors. The event is in
    the history as a failure, also where the error itself says nothing, and the network is the dense one, bit for bit.
    """
    dense = train(tiny_config("dense", **DENSE))
    options = {"strategy": "obs", "refit": "lstsq", "start_step": 4, "on_error": "continue"}
    trainer = start(tiny_config(**options))
    fail(trainer, error)
    trainer.train()
    check(trainer)
    (event,) = state_of(trainer).history
    assert trainer.step == 9 and event.error.startswith(type(error).__name__) and state_of(trainer).phase == "dense"
    text = printed(capsys)
    assert "Pruning at step 4 failed, training goes on with the network as it was" in text and event.error in text
    assert same_bits(saved_bits(trainer), saved_bits(dense))


@pytest.mark.parametrize("fail", [fail_calibration, fail_choice, fail_before_cut])
def test_stop_raises_whatever_failed(tiny_config: Config, fail: Any) -> None:
    """The default: nobody finds a dense network in the morning without having been told."""
    trainer = start(tiny_config(strategy="obs", refit="lstsq", start_step=4))
    fail(trainer, MemoryError("full"))
    with pytest.raises(MemoryError, match="full"):
        trainer.train()
    assert trainer.step == 4 and state_of(trainer).history == [] and state_of(trainer).phase == "dense"


class Deaf(Listener):
    """Fails at one of its hooks."""

    def __init__(self, hook: str) -> None:
        def fail(event: PruneEvent) -> None:
            raise RuntimeError("not [now]")

        setattr(self, hook, fail)


class Hearing(Listener):
    """Notes the hooks after a cut."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def after_cut(self, event: PruneEvent) -> None:
        self.heard.append(("after_cut", event.step))

    def measured(self, event: PruneEvent) -> None:
        self.heard.append(("measured", event.step))

    def after_undo(self, event: PruneEvent) -> None:
        self.heard.append(("after_undo", event.step))


@pytest.mark.parametrize("hook", ["after_cut", "measured", "after_undo"])
def test_listener_that_fails_after_the_fact_is_told(
    tiny_config: Config, hook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What hangs on an event cannot unmake it. One that fails must neither end the training nor keep the event from
    those behind it, the learning rates say, and the person has to know that it failed."""
    trainer = watched(tiny_config(start_step=3), {6: [UNDO]})
    controller, hearing = trainer.pipeline.controller, Hearing()
    controller.listeners = [Deaf(hook), *controller.listeners, hearing]
    seen = in_each_step(trainer, lambda: widths(trainer.pipeline.model))
    trainer.train()
    check(trainer)
    assert hearing.heard == [("after_cut", 3), ("measured", 3), ("after_undo", 3)]
    assert trainer.step == 9 and seen[4] == tiny_widths(8, 4) and seen[7] == tiny_widths(16, 8)
    assert not message_of(trainer).error and events(trainer) == []
    text = printed(capsys)
    assert (
        f"Step 3, Deaf.{hook} failed: RuntimeError: not [now]" in text and "Traceback (most recent call last)" in text
    )
    assert "Pruning at step 3 (coreset, continue)" in text  # the display heard of it too


def test_no_memory_to_keep_the_network(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy for an undo is made when the teacher has taken the network already. If there is no room for it the
    event does not happen, and the teacher must not be left behind without an event that it could count from."""

    def refuse(*args: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(controller_module, "NetworkSnapshot", refuse)
    trainer = steered(tiny_config(teacher=TEACHER, **DENSE), {4: [("prune", HALF)]})
    assert message_of(trainer).error and events(trainer) == []


def test_course_of_the_training(tiny_config: Config) -> None:
    """The plot has a point for every step, before an event, after it and while the plan waits."""
    trainer = watched(tiny_config(start_step=3, auto_start=0.0001), {5: [UNDO]})
    before_each_step(trainer, lambda step: setattr(trainer.pipeline.controller.run, "paused", step == 7))
    trainer.train()
    points = trainer.pipeline.controller.curve.points()
    assert [step for step, _ in points] == list(range(10))
    assert all(0 < value < 60 for _, value in points)


def test_auto_start_does_not_follow_an_undo(tiny_config: Config) -> None:
    """It has pulled the plan forward once. After an undo the phase is dense and the PSNR as flat as before: without an
    end to it the later events would come at once, and with them what the person has just undone."""
    options = {**TWICE, "start_step": 10, "stop_step": 20, "auto_start": 50.0}
    config = tiny_config(**options)
    config.max_num_iterations = 25
    trainer = steered(config, {8: [UNDO]})
    first = trainer.pipeline.model.prune_state.plan[-1].step - 10
    assert first < 8
    assert [step for step, _ in events(trainer)] == [first + 10] and first + 10 > 9


def test_undo_does_not_bring_back_what_failed_since(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A cut has ruined the network, the next planned one failed on it, and the person goes back: the failed one is
    overdue then, and would come at the very next step."""
    config = tiny_config(**{**TWICE, "start_step": 2, "stop_step": 5, "on_error": "continue"})
    trainer = watched(config, {6: [UNDO]})

    poisoned_at(trainer, 4)
    trainer.train()
    assert "Pruning at step 5 failed" in " ".join(capsys.readouterr().out.split())
    assert trainer.pipeline.model.prune_state.history == [] and trainer.pipeline.model.prune_state.pending == []
    assert widths(trainer.pipeline.model) == tiny_widths(16, 8)


def test_failure_after_the_cut_leaves_a_record(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is pruned but not recorded could not be undone, and its checkpoint would take up a plan that has
    been carried out already."""
    trainer = watched(tiny_config(start_step=8), {3: [("prune", HALF)], 5: [UNDO]})

    def fail(rates: Rates, event: PruneEvent) -> None:
        raise RuntimeError("scheduler")

    monkeypatch.setattr(Rates, "after_cut", fail)
    seen: list[tuple[int, bool]] = []
    before_each_step(
        trainer,
        lambda step: seen.append((len(state_of(trainer).history), trainer.pipeline.controller.snapshot is not None)),
    )
    monkeypatch.setattr(trainer.config, "max_num_iterations", 7)
    trainer.train()
    assert seen[4] == (1, True) and seen[6] == (0, False)
    assert widths(trainer.pipeline.model) == tiny_widths(16, 8)


def test_undo_of_the_last_rewind_leaves_no_snapshot(tiny_config: Config) -> None:
    """Nothing would ever clear it again, and it travels in every checkpoint."""
    trainer = steered(tiny_config(start_step=3, recovery="rewind", rewind_step=1), {5: [UNDO]})
    assert events(trainer) == [] and state_of(trainer).rewind_snapshot == {}
