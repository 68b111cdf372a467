"""Pruning inside the host's real training loop."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.utils import writer
from support.tiny_run import (
    after_each_step,
    before_each_step,
    checkpoint,
    copied_state,
    same_bits,
    start,
    tiny_parameters,
    tiny_widths,
    train,
    widths,
)

from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.nerf.config import FieldTargetConfig
from nerfstudio_prune.neurons.pruner import NonFiniteWeightsError, Pruning

Config = Callable[..., Any]
STRATEGIES: dict[str, dict[str, Any]] = {
    "uniform": {"strategy": "uniform"},
    "importance w_in": {"strategy": "importance", "score": "w_in"},
    "importance w_out": {"strategy": "importance", "score": "w_out"},
    "importance w_in_w_out": {"strategy": "importance"},
    "coreset paper": {"strategy": "coreset"},
    "coreset mussay": {"strategy": "coreset", "coreset_variant": "mussay"},
}
TWICE = {"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 6}


def state_of(trainer: Any) -> Any:
    return trainer.pipeline.model.prune_state


def optimizer_of(trainer: Any) -> torch.optim.Optimizer:
    return trainer.optimizers.optimizers["fields"]


def check(trainer: Any) -> None:
    """The invariant of docs/design.md: optimizer, clipping list and model hold the same tensors in the same order."""
    optimizers, model = trainer.optimizers, trainer.pipeline.model
    check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())


def test_one_shot(tiny_config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The main job: cut once in mid-training. What is printed, recorded and written for tensorboard must agree with the
    closed form of the network's size, since every table is made from it."""
    scalars: list[tuple[str, float, int]] = []
    monkeypatch.setattr(writer, "put_scalar", lambda name, scalar, step: scalars.append((str(name), scalar, step)))
    losses: list[float] = []
    config = tiny_config(start_step=5)
    trainer = start(config)
    inner = trainer.train_iteration
    trainer.train_iteration = lambda step: [out := inner(step), losses.append(float(out[0]))][0]
    trainer.train()
    check(trainer)
    assert len(losses) == 10 and bool(np.isfinite(losses).all())
    assert widths(trainer.pipeline.model) == tiny_widths(8, 4)

    state = state_of(trainer)
    (event,) = state.history
    assert state.phase == "recovery" and state.pending == [] and state.initial_sizes == tiny_widths(16, 8)
    assert (event.step, event.strategy, event.recovery) == (5, "coreset", "continue")
    assert (event.options["score"], event.options["seed"], event.options["start_step"]) == ("w_in_w_out", 42, 5)
    assert (event.before.parts, event.after.parts) == (tiny_widths(16, 8), tiny_widths(8, 4))
    before, after = event.before.costs, event.after.costs
    assert (before["parameters"], after["parameters"]) == (tiny_parameters(16, 8), tiny_parameters(8, 4))
    assert after["macs_per_ray"] < before["macs_per_ray"] and event.rays_per_sec_before > 0 and event.seconds > 0
    assert 0 < event.metrics_before["psnr"] != event.metrics_after["psnr"] > 0 and event.error == ""

    written = {(name, step): value for name, value, step in scalars if name.startswith("Prune/")}
    assert {step for _, step in written} == {0, 5}
    for step, trunk, head, phase in ((0, 16, 8, 0), (5, 8, 4, 2)):
        assert written["Prune/parameters", step] == tiny_parameters(trunk, head)
        assert written["Prune/phase", step] == phase
        for name, width in tiny_widths(trunk, head).items():
            assert written[f"Prune/width/{name}", step] == width
    assert written["Prune/macs_per_ray", 0] == before["macs_per_ray"]
    assert written["Prune/macs_per_ray", 5] == after["macs_per_ray"]
    assert written["Prune/psnr_before", 5] == event.metrics_before["psnr"]
    assert written["Prune/psnr_after", 5] == event.metrics_after["psnr"]

    text = " ".join(capsys.readouterr().out.split())
    assert (
        "Pruning plan: preset paper, coreset by w_in_w_out, recovery continue, step 5: to widths 8, 4 (phase dense)"
        in text
    )
    assert "Pruning at step 5 (coreset, continue)" in text
    for name in tiny_widths(0, 0):
        assert f"│ {name} │ {'16 → 8' if 'base' in name else '8 → 4'} │" in text
    assert f"│ both fields │ │ {tiny_parameters(16, 8):,} → {tiny_parameters(8, 4):,} │" in text
    assert f"{tiny_parameters(16, 8) / tiny_parameters(8, 4):.2f}x fewer parameters, PSNR " in text
    assert "fixed batch of 64 rays from 2 evaluation views" in text


def test_iterative_twice_keeps_learning(tiny_config: Config) -> None:
    """The classic defect of pruning in training: the optimizer goes on stepping the old tensors, the loss stays finite,
    and nothing learns any more. After each event every tensor must still change."""
    config = tiny_config(**TWICE)
    trainer = start(config)
    before: dict[str, torch.Tensor] = {}
    moved: dict[int, int] = {}
    seen: dict[int, tuple[dict[str, int], str]] = {}

    def remember(step: int) -> None:
        before.update({name: p.detach().clone() for name, p in trainer.pipeline.model.named_parameters()})
        seen[step] = (widths(trainer.pipeline.model), state_of(trainer).phase)
        check(trainer)

    def compare(step: int) -> None:
        parameters = dict(trainer.pipeline.model.named_parameters())
        del parameters["device_indicator_param"]
        # RAdam takes plain momentum steps at first; they move every weight with a gradient from the first step on.
        moved[step] = sum(not torch.equal(p, before[name]) for name, p in parameters.items())

    before_each_step(trainer, remember)
    after_each_step(trainer, compare)
    trainer.train()
    assert moved == dict.fromkeys(range(10), 36)
    assert [seen[step] for step in (3, 4, 6, 7)] == [
        (tiny_widths(16, 8), "dense"),
        (tiny_widths(12, 6), "pruning"),
        (tiny_widths(12, 6), "pruning"),
        (tiny_widths(8, 4), "recovery"),
    ]
    assert [(event.step, event.after.parts) for event in state_of(trainer).history] == [
        (3, tiny_widths(12, 6)),
        (6, tiny_widths(8, 4)),
    ]


def test_clipping_follows_the_new_tensors(tiny_config: Config) -> None:
    """The host clips over its own list of parameters, not over the optimizer's; if that list kept the old tensors, the
    gradients would grow unclipped from the first event on without a word."""
    config = tiny_config(start_step=3)
    config.optimizers["fields"]["optimizer"].max_norm = 1e-4
    trainer = start(config)
    norms: list[float] = []

    def measure(step: int) -> None:
        gradients = [p.grad for p in trainer.pipeline.model.get_param_groups()["fields"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    after_each_step(trainer, measure)
    trainer.train()
    check(trainer)
    assert norms == pytest.approx([1e-4] * 10, rel=0.02)
    assert all(a is b for a, b in zip(trainer.optimizers.parameters["fields"], _parameters(trainer), strict=True))


def _parameters(trainer: Any) -> list[torch.nn.Parameter]:
    return trainer.pipeline.model.get_param_groups()["fields"]


@pytest.mark.parametrize("recovery", ["continue", "retrain", "rewind", "scratch"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_with_every_recovery(tiny_config: Config, strategy: str, recovery: str) -> None:
    """All combinations that are offered run through the host's loop twice over and end with the same widths; what is
    refused is refused before training."""
    options = {**STRATEGIES[strategy], **TWICE, "recovery": recovery, "rewind_step": 1}
    config = tiny_config(**options)
    if recovery == "rewind" and strategy == "coreset mussay":
        with pytest.raises(ValueError, match="a strategy that re-weights"):
            start(config)
        return
    trainer = train(config)
    check(trainer)
    state = state_of(trainer)
    assert widths(trainer.pipeline.model) == tiny_widths(8, 4)
    assert [(event.step, event.error) for event in state.history] == [(3, ""), (6, "")]
    assert all(bool(torch.isfinite(p).all()) for p in _parameters(trainer))
    assert state.rewind_snapshot == {}  # let go with the last event
    # Moments survive `continue`; the other modes start to count anew after the last event.
    steps = {float(entry["step"]) for entry in optimizer_of(trainer).state.values()}
    assert steps == ({10.0} if recovery == "continue" else {3.0})


def test_continue_slices_the_moments(tiny_config: Config, prunings: list[Pruning]) -> None:
    """Moments that are kept for the wrong neurons push the survivors in directions that belong to others. Each must be
    the rows and columns of the old one that the weight itself kept."""
    trainer = start(tiny_config(start_step=5))
    old: dict[str, dict[str, torch.Tensor]] = {}

    def remember(step: int) -> None:
        if step == 5:
            for name, p in trainer.pipeline.model.named_parameters():
                if p in optimizer_of(trainer).state:
                    entry = optimizer_of(trainer).state[p]
                    old[name] = {key: entry[key].clone() for key in ("exp_avg", "exp_avg_sq", "step")}

    after_each_step(trainer, remember)
    inner = trainer.pipeline.controller._carry_out
    checked: list[str] = []

    def carry_out(*args: Any) -> None:
        inner(*args)
        for edit in prunings[0].edits:
            entry = optimizer_of(trainer).state[edit.new]
            for key in ("exp_avg", "exp_avg_sq"):
                value = old[edit.name][key]
                for dim, index in edit.keep.items():
                    value = value.index_select(dim, index)
                assert torch.equal(entry[key], value) and float(value.abs().sum()) > 0
            assert float(entry["step"]) == 6.0
            checked.append(edit.name)

    trainer.pipeline.controller._carry_out = carry_out
    trainer.train()
    # All but the biases of density (1) and colour (3) of both fields lose a dimension.
    assert len(checked) == 36 - 4


@pytest.mark.parametrize("recovery", ["rewind", "scratch"])
def test_new_values_after_an_event(tiny_config: Config, prunings: list[Pruning], recovery: str) -> None:
    """The lottery-ticket control needs exactly the weights of the rewind step for the neurons that stay; training from
    scratch needs new ones, and none of the trained. Both for every layer, cut or not."""
    trainer = start(tiny_config(start_step=5, recovery=recovery, rewind_step=2, groups=("*.layers.[1-3]",)))
    earlier: dict[str, torch.Tensor] = {}
    trained: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}

    def copy(step: int) -> None:
        target = {2: earlier, 5: trained}.get(step)
        if target is not None:
            target.update({name: p.detach().clone() for name, p in trainer.pipeline.model.named_parameters()})

    after_each_step(trainer, copy)
    before_each_step(
        trainer,
        lambda step: step == 6 and after.update({n: p.detach().clone() for n, p in _named(trainer).items()}),
    )
    trainer.train()
    keep = {edit.name: edit.keep for edit in prunings[0].edits}
    for name, value in after.items():
        for saved in (earlier, trained):
            for dim, index in keep.get(name, {}).items():
                saved[name] = saved[name].index_select(dim, index)
        assert torch.equal(value, earlier[name]) == (recovery == "rewind"), name
        assert not torch.equal(value, trained[name]), name
    if recovery == "scratch":  # nn.Linear draws from +-1 / sqrt(fan-in) of the new width
        weight = after["field_fine.mlp_base.layers.2.weight"]
        assert weight.shape == (8, 63 + 8) and 0.8 / 71**0.5 < float(weight.abs().max()) <= 1 / 71**0.5


def _named(trainer: Any) -> dict[str, torch.nn.Parameter]:
    found = dict(trainer.pipeline.model.named_parameters())
    del found["device_indicator_param"]
    return found


def test_no_snapshot_without_an_event_to_come(tiny_config: Config) -> None:
    """A snapshot is a second network in every checkpoint; the dense control that shares the options of a rewinding run
    has no use for one."""
    trainer = train(tiny_config(strategy="none", recovery="rewind", rewind_step=2))
    assert state_of(trainer).rewind_snapshot == {} and state_of(trainer).phase == "dense"


def test_rewind_step_has_to_come_before_the_event(tiny_config: Config) -> None:
    """There is nothing to rewind to otherwise; without the check the run fails at its first event."""
    with pytest.raises(ValueError) as caught:
        start(tiny_config(start_step=5, recovery="rewind", rewind_step=5))
    assert "prune.rewind_step must lie between the first step of the run, 0, and the first event at step 5" in str(
        caught.value
    )
    assert "got 5" in str(caught.value)


def test_gradient_accumulation_across_an_event(tiny_config: Config, prunings: list[Pruning]) -> None:
    """Between two optimizer steps the gradients of earlier batches live on; an event there must keep the surviving
    neurons' part of them, or the step after it forgets batches or fails on shapes."""
    config = tiny_config(start_step=4)  # steps 3, 4 and 5 accumulate
    config.gradient_accumulation_steps = {"fields": 3}
    trainer = start(config)
    checked: list[float] = []
    inner = trainer.pipeline.controller._carry_out

    def carry_out(*args: Any) -> None:
        inner(*args)
        for edit in prunings[0].edits:
            assert edit.old.grad is not None and edit.new.grad is not None
            expected = edit.old.grad
            for dim, index in edit.keep.items():
                expected = expected.index_select(dim, index)
            assert torch.equal(edit.new.grad, expected)
            checked.append(float(expected.abs().sum()))

    trainer.pipeline.controller._carry_out = carry_out
    trainer.train()
    check(trainer)
    assert len(checked) == 32 and min(checked) > 0
    assert {float(entry["step"]) for entry in optimizer_of(trainer).state.values()} == {3.0}
    assert all(bool(torch.isfinite(p).all()) for p in _parameters(trainer))


def test_mixed_precision_across_an_event(tiny_config: Config) -> None:
    """Under autocast the network computes in half precision while parameters and moments stay in single: a cut must
    neither change their type nor break the next step. The host offers it on GPUs only, so it is switched on here."""
    trainer = start(tiny_config(start_step=4))
    trainer.mixed_precision = True
    dtypes = set()
    layer = trainer.pipeline.model.field_fine.mlp_base.layers[1]
    layer.register_forward_hook(lambda module, args, output: dtypes.add((module.training, output.dtype)))
    trainer.train()
    check(trainer)
    assert (True, torch.bfloat16) in dtypes
    assert {p.dtype for p in _parameters(trainer)} == {torch.float32}
    assert {v.dtype for state in optimizer_of(trainer).state.values() for v in state.values()} == {torch.float32}
    assert all(bool(torch.isfinite(p).all()) for p in _parameters(trainer))


@pytest.mark.parametrize(
    ("options", "lr"),
    [
        ({}, 1e-3 * 0.01 ** (10 / 20)),
        ({"recovery": "retrain"}, 1e-3 * 0.01 ** (6 / 20)),
        ({"recovery_lr": 5e-4}, 5e-4 * 0.01 ** (6 / 20)),
        ({"recovery": "retrain", "recovery_lr": 2e-3}, 2e-3 * 0.01 ** (6 / 20)),
    ],
)
def test_learning_rate_after_an_event(tiny_config: Config, options: dict[str, Any], lr: float) -> None:
    """A scheduler holds the optimizer it was built for: it has to go on with the edited one, begin anew for retraining,
    and decay from a rate given for the recovery. Ten steps on a curve from 1e-3 to 1e-5 over twenty, six of them after
    the event, worked out in closed form."""
    config = tiny_config(start_step=3, **options)
    config.optimizers["fields"]["optimizer"].lr = 1e-3
    config.optimizers["fields"]["scheduler"] = ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20)
    trainer = train(config)
    assert [group["lr"] for group in optimizer_of(trainer).param_groups] == pytest.approx([lr], rel=1e-6)


def test_recovery_lr_without_a_scheduler(tiny_config: Config) -> None:
    """Older configurations have none; the option must work there as well, from the event on and not earlier."""
    config = tiny_config(start_step=3, recovery_lr=7e-5)
    config.optimizers["fields"]["scheduler"] = None
    trainer = start(config)
    rates: list[float] = []
    before_each_step(trainer, lambda step: rates.append(optimizer_of(trainer).param_groups[0]["lr"]))
    trainer.train()
    assert rates == [5e-4] * 4 + [7e-5] * 6


def test_rate_grows_with_the_share_of_the_cut(tiny_config: Config) -> None:
    """A narrower network bears a larger rate: half of the cut takes the square root of the factor, all of it the whole
    one; what is saved is the rate that the factor is on."""
    events = {"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 6}
    config = tiny_config(**events, recovery_lr_factor=4.0)
    config.optimizers["fields"]["scheduler"] = None
    trainer = start(config)
    rates: list[float] = []

    def note_rate(step: int) -> None:
        rates.append(optimizer_of(trainer).param_groups[0]["lr"])

    # Behind the controller's own, which sets the rates.
    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], note_rate))
    trainer.train()
    assert rates == pytest.approx([5e-4] * 4 + [1e-3] * 3 + [2e-3] * 3)
    assert optimizer_of(trainer).param_groups[0]["lr"] == 5e-4


def test_fields_can_have_their_own_targets(tiny_config: Config) -> None:
    """The coarse field can be cut harder than the fine one, down to leaving one of them whole."""
    coarse, fine = FieldTargetConfig(width=4, head_width=3), FieldTargetConfig(pruning_ratio=0.0)
    trainer = train(tiny_config(start_step=3, coarse=coarse, fine=fine))
    check(trainer)
    assert widths(trainer.pipeline.model) == {**tiny_widths(4, 3, ("coarse",)), **tiny_widths(16, 8, ("fine",))}


def test_last_step_can_prune(tiny_config: Config) -> None:
    """An event is part of its step, so that the checkpoint of this very step holds the smaller network."""
    trainer = train(tiny_config(start_step=9))
    saved = checkpoint(trainer, 9)["pipeline"]
    assert saved["_model.field_fine.mlp_base.layers.3.weight"].shape == (8, 8)
    assert [event["step"] for event in saved["_model._extra_state"]["history"]] == [9]


def test_events_that_remove_nothing_are_skipped(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """With coarse rounding a schedule has events without effect; a recorded event would pretend a cut, silence would
    look like a cut that failed."""
    trainer = train(tiny_config(**{**TWICE, "num_events": 4, "width": 14, "round_to": 8}))
    assert [(event.step, event.after.parts) for event in state_of(trainer).history] == [(6, tiny_widths(14, 8))]
    text = capsys.readouterr().out
    assert text.count("(coreset, continue)") == 1
    assert [step for step in range(10) if f"Pruning at step {step} skipped" in text] == [3, 4, 5]


@pytest.mark.parametrize(
    ("options", "living"),
    [
        # 16 of the 32 groups' weight matrices are producers; half of 16 x 63, 16 x 16 and so on
        ({}, {"mlp_base.layers.0": 504, "mlp_base.layers.2": 632, "mlp_head.layers.1": 32}),
        ({"edge_keep_fraction": 0.25}, {"mlp_base.layers.0": 252, "mlp_base.layers.2": 316, "mlp_head.layers.1": 16}),
        ({**TWICE, "edge_keep_fraction": 0.25}, {"mlp_base.layers.0": 252, "mlp_head.layers.1": 16}),
        ({"edge_keep_fraction": 0.25, "edge_scope": "global"}, {}),
        ({"edge_threshold": 0.1}, {}),
    ],
)
def test_edges_stay_cut(tiny_config: Config, options: dict[str, Any], living: dict[str, int]) -> None:
    """Unstructured pruning is a mask that momentum would undo at the next step: masked weights must be exactly zero
    after every later step and in the checkpoint, while the others go on learning and no tensor changes its size."""
    trainer = start(tiny_config(strategy="edge", **{"start_step": 3, **options}))
    last = options.get("stop_step", 3)
    masks: dict[str, torch.Tensor] = {}
    alive: list[int] = []

    def look(step: int) -> None:
        if step == last + 1:
            masks.update({name: mask.clone() for name, mask in state_of(trainer).masks.items()})
            alive.append(state_of(trainer).history[-1].after.costs["parameters"])
        for name, mask in masks.items():
            assert bool((_named(trainer)[name][~mask] == 0).all()), (step, name)

    before_each_step(trainer, look)
    trainer.train()
    check(trainer)
    saved = checkpoint(trainer, 9)["pipeline"]
    assert set(masks) == {f"{name}.weight" for name in tiny_widths(0, 0)}
    for name, mask in masks.items():
        weight = saved[f"_model.{name}"]
        assert torch.equal(weight != 0, mask) and 0 < int(mask.sum()) < mask.numel()
        assert torch.equal(saved["_model._extra_state"]["masks"][name], mask)
    for name, count in living.items():
        assert {int(masks[f"field_{f}.{name}.weight"].sum()) for f in ("coarse", "fine")} == {count}
    cut = sum(int((~mask).sum()) for mask in masks.values())
    assert alive == [tiny_parameters(16, 8) - cut]
    if options.get("edge_scope") == "global":
        total = sum(mask.numel() for mask in masks.values())
        assert total - cut == round(0.25 * total)
    assert widths(trainer.pipeline.model) == tiny_widths(16, 8)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "uniform"},
        {"strategy": "importance"},
        {"strategy": "coreset"},
        {"strategy": "coreset", "coreset_variant": "mussay"},
        {"strategy": "coreset", "recovery": "scratch"},
        {"strategy": "coreset", "recovery": "rewind", "rewind_step": 1},
        {"strategy": "edge"},
        {"strategy": "coreset", "num_eval_rays": 0},
    ],
)
def test_pruning_leaves_random_state_and_data_order_alone(
    tiny_config: Config, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pruned and a dense run of one seed can be compared step by step only if they see the same batches. Whatever an
    event draws or measures, the batches must be those of the dense control, and the random states those from before the
    event. (Python's is watched by its functions: the runtime type checks of the tests draw from it themselves.)"""
    batches: dict[str, list[torch.Tensor]] = {"dense": [], "pruned": []}
    ends: dict[str, torch.Tensor] = {}
    events: list[int] = []
    for name, prune in (("dense", {"strategy": "none"}), ("pruned", {**TWICE, **options})):
        trainer = start(tiny_config(name, **prune))
        datamanager, pruner = trainer.pipeline.datamanager, trainer.pipeline.controller
        next_train, handle = datamanager.next_train, pruner._handle

        def spy(step: int, name: str = name, next_train: Any = next_train) -> Any:
            bundle, batch = next_train(step)
            batches[name].append(batch["indices"].clone())
            return bundle, batch

        def compare(scheduled: Any, step: int, handle: Any = handle) -> None:
            before = _random_states()
            with monkeypatch.context() as watch:
                for function in ("random", "randint", "randrange", "sample", "choice", "shuffle", "uniform", "seed"):
                    watch.setattr(random, function, _refuse)
                handle(scheduled, step)
            assert same_bits(_random_states(), before)
            events.append(step)

        datamanager.next_train, pruner._handle = spy, compare
        trainer.train()
        ends[name] = torch.get_rng_state()
    assert events == [3, 6]
    assert len(batches["dense"]) == 10 and len({str(indices.tolist()) for indices in batches["dense"]}) == 10
    assert same_bits(batches["dense"], batches["pruned"])
    assert torch.equal(ends["dense"], ends["pruned"])


def _random_states() -> list[Any]:
    numpy_state: Any = np.random.get_state()  # noqa: NPY002  the global state, as the host uses it
    return [torch.get_rng_state(), torch.from_numpy(numpy_state[1].astype(np.int64)), numpy_state[2]]


def _refuse(*args: Any, **kwargs: Any) -> None:
    pytest.fail("Python's global random state was used")


def test_events_depend_on_the_seed_alone(tiny_config: Config) -> None:
    """Records carry the seed so that a run can be repeated: the same seed keeps the same neurons, another others."""
    ends = []
    for name, seed in (("a", None), ("b", None), ("c", 7)):
        trainer = train(tiny_config(name, strategy="uniform", start_step=0, seed=seed))
        ends.append(trainer.pipeline.model.field_fine.mlp_base.layers[1].weight.detach().clone())
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


LAYER = "field_fine.mlp_base.layers.3"


def poison(trainer: Any) -> None:
    with torch.no_grad():
        trainer.pipeline.model.field_fine.mlp_base.layers[3].weight[2, 5] = torch.nan


def test_non_finite_weights_stop_the_run(tiny_config: Config) -> None:
    """A diverged network has no meaningful scores. The message must name the layer and what to do, and neither network
    nor moments may have been touched, so that a checkpoint of it can still be looked at."""
    trainer = start(tiny_config(start_step=5))
    for step in range(5):
        trainer.train_iteration(step)
    poison(trainer)
    before = copied_state(trainer.pipeline), copied_optimizer(trainer)
    with pytest.raises(NonFiniteWeightsError) as caught:
        trainer.pipeline.controller.on_step(5)
    assert f"{LAYER}.weight: 1 of 256 values are not finite; nothing was pruned" in str(caught.value)
    assert "learning rate" in str(caught.value)
    assert same_bits((copied_state(trainer.pipeline), copied_optimizer(trainer)), before)
    check(trainer)


def copied_optimizer(trainer: Any) -> list[Any]:
    state = optimizer_of(trainer).state
    return [{key: value.clone() for key, value in state[p].items()} for p in _parameters(trainer)]


def test_non_finite_weights_stop_the_host_loop(tiny_config: Config) -> None:
    """The host must not swallow the error: with the default `on_error` the process ends there."""
    trainer = start(tiny_config(start_step=5))
    after_each_step(trainer, lambda step: poison(trainer) if step == 5 else None)
    with pytest.raises(NonFiniteWeightsError, match=r"field_fine\.mlp_base\.layers\.3\.weight"):
        trainer.train()
    assert trainer.step == 5


def test_training_goes_on_after_a_failed_event(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Someone who asked to continue keeps the dense network, finds the failure in the history and one red line on the
    console; the failed event is not tried again at every step, and the next one still reaches the target."""
    trainer = start(tiny_config(**TWICE, on_error="continue"))
    healthy: list[torch.Tensor] = []
    weight = trainer.pipeline.model.field_fine.mlp_base.layers[3].weight

    def hurt(step: int) -> None:
        if step == 3:
            healthy.append(weight.detach().clone())
            poison(trainer)

    def heal(step: int) -> None:
        if step == 4:
            assert widths(trainer.pipeline.model) == tiny_widths(16, 8) and state_of(trainer).phase == "dense"
            with torch.no_grad():
                weight.copy_(healthy[0])

    after_each_step(trainer, hurt)
    before_each_step(trainer, heal)
    trainer.train()
    check(trainer)
    failed, done = state_of(trainer).history
    assert (failed.step, done.step) == (3, 6) and done.error == ""
    assert f"{LAYER}.weight: 1 of 256 values are not finite" in failed.error
    assert widths(trainer.pipeline.model) == tiny_widths(8, 4) and state_of(trainer).phase == "recovery"
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("Pruning at step 3 failed, training goes on with the network as it was") == 1
    saved = checkpoint(trainer, 9)["pipeline"]["_model._extra_state"]["history"]
    assert [bool(event["error"]) for event in saved] == [True, False]


def test_failure_after_selection_leaves_everything_as_it_was(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All or nothing also when the failure comes late, here in the rebinding of the optimizer, after the neurons have
    been chosen: a half-pruned network would train on with moments of another shape."""

    def fail(*args: Any) -> None:
        raise ValueError("parameter is in none of the optimizers")

    trainer = start(tiny_config(start_step=5, on_error="continue"))
    for step in range(5):
        trainer.train_iteration(step)
    monkeypatch.setattr("nerfstudio_prune.neurons.pruner.prepare_rebind", fail)
    weights, moments = copied_state(trainer.pipeline.model), copied_optimizer(trainer)
    trainer.pipeline.controller.on_step(5)
    assert state_of(trainer).history[0].error == "parameter is in none of the optimizers"
    del weights["_extra_state"]
    assert same_bits({key: trainer.pipeline.model.state_dict()[key] for key in weights}, weights)
    assert same_bits(copied_optimizer(trainer), moments)


def test_evaluation_does_not_need_the_strategy(tiny_config: Config) -> None:
    """A run that was pruned with somebody's own strategy is evaluated, rendered and exported on machines that do not
    have it; only a training needs it."""
    config = tiny_config(strategy="their-own")
    config.pipeline.setup(device="cpu", test_mode="test")
    with pytest.raises(
        ValueError, match="strategy must be one of coreset, importance, obs, pivoted-qr, uniform, edge, none, got"
    ):
        start(config)


def test_more_than_one_process_is_refused(tiny_config: Config) -> None:
    """DistributedDataParallel builds its buckets for the widths before pruning; without the check the run would train
    for hours and fail, or diverge between processes, at its first event."""
    with pytest.raises(ValueError) as caught:
        tiny_config().pipeline.setup(device="cpu", world_size=2)
    assert "machine.num_devices x machine.num_machines must be 1, got 2" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 17}, "prune.width 17 is above the current width 16 of field_coarse.mlp_base.layers.0"),
        ({"start_step": 10}, "prune.start_step 10 lies past the end of the run, whose last step is 9"),
        ({"groups": ("typo",)}, "pattern 'typo' matches no group"),
        ({"pruning_ratio": 1.0}, "prune.pruning_ratio must be in [0, 1), got 1.0"),
        ({"strategy": "typo"}, "prune.strategy must be one of"),
    ],
)
def test_bad_options_end_the_setup(tiny_config: Config, options: dict[str, Any], message: str) -> None:
    """Errors have to come before the first step, not at the first event after a night of training."""
    with pytest.raises(ValueError) as caught:
        start(tiny_config(**options))
    assert message in str(caught.value)


def test_denormal_numbers_are_flushed_on_cpus(tiny_config: Config) -> None:
    """A trained field's gradients become denormal, which makes a step on a CPU three to four times slower."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormal numbers")
    tiny = torch.full((4,), 1e-39)
    assert bool((tiny * 0.5 > 0).all())
    tiny_config().pipeline.setup(device="cpu")
    assert bool((tiny * 0.5 == 0).all())


def test_only_checkpoints_lie_in_the_checkpoint_folder(tiny_config: Config) -> None:
    """The host parses the name of every file in that folder as a step; another file there breaks `--load-dir` and
    `ns-eval`."""
    config = tiny_config(**TWICE, recovery="rewind")
    config.steps_per_save, config.save_only_latest_checkpoint = 4, False
    trainer = train(config)
    names = sorted(path.name for path in trainer.checkpoint_dir.iterdir())
    assert names == ["step-000000004.ckpt", "step-000000008.ckpt", "step-000000009.ckpt"]


def test_controller_needs_no_evaluation_views(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quality is measured where it can be; a measure that gives nothing must not stop an event."""
    monkeypatch.setattr(PruneController, "rays_per_sec", property(lambda self: 0.0))
    trainer = train(tiny_config(start_step=3, num_eval_rays=0))
    (event,) = state_of(trainer).history
    assert event.metrics_before == event.metrics_after == {} and event.rays_per_sec_before == 0.0
