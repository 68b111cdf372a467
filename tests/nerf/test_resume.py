"""Runs that are cut off and go on: same network, same moments, same plan."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from support.tiny_run import checkpoint, resume, same_bits, start, tiny_widths, train, widths

from nerfstudio_prune.core.optimizer_state import check_optimizers

Config = Callable[..., Any]


def saving(config: Any, every: int) -> Any:
    config.steps_per_save, config.save_only_latest_checkpoint = every, False
    return config


def with_scheduler(config: Any) -> Any:
    config.optimizers["fields"]["scheduler"] = ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20)
    return config


def moments(optimizers: Any) -> list[dict[str, Any]]:
    """The state of each parameter by index, as a checkpoint or a trainer has it."""
    state = optimizers["fields"]["state"]
    return [{key: torch.as_tensor(value) for key, value in state[index].items()} for index in sorted(state)]


def live_moments(trainer: Any) -> list[dict[str, Any]]:
    return moments({"fields": trainer.optimizers.optimizers["fields"].state_dict()})


def events(trainer: Any) -> list[tuple[int, dict[str, int]]]:
    return [(event.step, event.after.parts) for event in trainer.pipeline.model.prune_state.history]


ITERATIVE = {"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 8}


@pytest.mark.parametrize(
    ("options", "save_at"),
    [
        ({"start_step": 3}, 5),
        ({"start_step": 3}, 3),
        ({"start_step": 7}, 5),
        (ITERATIVE, 5),
        ({**ITERATIVE, "recovery": "rewind", "rewind_step": 1}, 5),
        ({**ITERATIVE, "recovery": "retrain"}, 5),
        ({**ITERATIVE, "strategy": "coreset", "coreset_variant": "mussay"}, 5),
        ({**ITERATIVE, "strategy": "edge", "edge_keep_fraction": 0.3}, 5),
        ({**ITERATIVE, "strategy": "edge", "edge_threshold": 0.1, "edge_scope": "global"}, 5),
        ({"strategy": "none"}, 5),
    ],
)
def test_resumed_run_is_the_uninterrupted_run(tiny_config: Config, options: dict[str, Any], save_at: int) -> None:
    """A run on a shared machine is cut off as a matter of course. With the same random numbers in every step, the run
    that was cut and resumed, without typing any option again, must end with the very bits of the one that was not:
    weights, moments, schedule, masks, snapshot and history. A scheduler is part of it; the host puts numpy numbers into
    its state, which `torch.load` refuses by default unless they are listed."""
    whole = train(saving(with_scheduler(tiny_config("whole", **options)), save_at), same_noise=True)
    config = with_scheduler(tiny_config("resumed", preset=None))
    trainer = start(resume(config, whole, save_at, 10 - save_at - 1), same_noise=True)
    saved = checkpoint(whole, save_at)
    assert trainer._start_step == save_at + 1
    assert same_bits(_tensors(trainer.pipeline.state_dict()), _tensors(saved["pipeline"]))
    assert same_bits(live_moments(trainer), moments(saved["optimizers"]))
    trainer.train()
    assert trainer.step == 9
    a, b = checkpoint(whole, 9), checkpoint(trainer, 9)
    assert same_bits(_tensors(a["pipeline"]), _tensors(b["pipeline"]))
    assert same_bits(live_moments(whole), live_moments(trainer))
    assert events(whole) == events(trainer)
    masks_a, masks_b = (t["pipeline"]["_model._extra_state"]["masks"] for t in (a, b))
    assert same_bits(masks_a, masks_b) and bool(masks_a) == (options.get("strategy") == "edge")
    assert a["pipeline"]["_model._extra_state"]["memory"] == b["pipeline"]["_model._extra_state"]["memory"] == {}
    lr_a, lr_b = (t.optimizers.optimizers["fields"].param_groups[0]["lr"] for t in (whole, trainer))
    assert lr_a == lr_b


def _tensors(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


def test_finished_event_does_not_happen_again(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Ratios of an already pruned layer would halve it once more at each restart."""
    first = train(tiny_config("first", start_step=3))
    capsys.readouterr()
    trainer = train(resume(tiny_config("second", start_step=3), first, 9, 5))
    assert events(trainer) == events(first) == [(3, tiny_widths(8, 4))]
    assert widths(trainer.pipeline.model) == tiny_widths(8, 4)
    assert trainer.pipeline.model.prune_state.phase == "recovery"
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "(taken up from the checkpoint; options that are given again replace it): preset paper, coreset by w_in_w_out"
        in text
    )
    assert "no event to come (phase recovery)" in text
    assert "Pruning at step" not in text


def test_pending_event_happens_once_after_a_resume(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan is in the checkpoint with absolute steps; it must not be laid out anew from the resumed run's length."""
    first = train(saving(tiny_config("first", **ITERATIVE), 5))
    capsys.readouterr()
    trainer = train(resume(tiny_config("second", schedule="iterative", num_events=2), first, 5, 14))
    assert events(trainer) == [(3, tiny_widths(12, 6)), (8, tiny_widths(8, 4))]
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "Pruning plan (taken up from the checkpoint; options that are given again replace it): preset paper, coreset"
        in text
    )
    assert "step 8: to widths 8, 4 (phase pruning)" in text


def test_overdue_event_happens_at_the_first_step(tiny_config: Config) -> None:
    """When an option moves the target below the present widths after the event's step has passed, the cut is overdue
    and happens at once, not never."""
    first = train(tiny_config("first", start_step=3))
    trainer = train(resume(tiny_config("second", width=4), first, 9, 5))
    assert events(trainer) == [(3, tiny_widths(8, 4)), (10, tiny_widths(4, 2))]
    check_optimizers(
        trainer.optimizers.optimizers, trainer.optimizers.parameters, trainer.pipeline.model.get_param_groups()
    )


def test_another_budget_is_cut_to_although_the_steps_of_the_plan_are_past(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run that is given a smaller budget has to reach it, as one that is given smaller widths; the same
    budget again, or a larger one, takes nothing away."""
    options = {"strategy": "obs", "refit": "lstsq", "start_step": 3}
    first = train(tiny_config("first", target_parameters=0.5, **options))
    (event,) = first.pipeline.model.prune_state.history
    initial, before = event.before.costs["parameters"], event.after.costs["parameters"]
    assert events(train(resume(tiny_config("same", target_parameters=0.5), first, 9, 4))) == events(first)
    last = train(resume(tiny_config("smaller", target_parameters=0.3), first, 9, 4)).pipeline.model.prune_state.history
    assert [event.step for event in last] == [3, 10]
    assert last[-1].before.costs["parameters"] == before > 0.3 * initial >= last[-1].after.costs["parameters"]
    capsys.readouterr()
    assert events(train(resume(tiny_config("larger", target_parameters=0.8), first, 9, 4))) == events(first)
    assert "skipped: nothing is left to remove" in " ".join(capsys.readouterr().out.split())


def test_several_overdue_events_become_one(tiny_config: Config) -> None:
    """A dense run that is given a schedule whose steps are already past must not prune at four successive steps."""
    first = train(tiny_config("first", strategy="none"))
    options = {"strategy": "coreset", "schedule": "iterative", "num_events": 4, "start_step": 1, "stop_step": 7}
    trainer = train(resume(tiny_config("second", **options), first, 9, 4))
    assert events(trainer) == [(10, tiny_widths(8, 4))]


def test_option_given_again_is_said(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever types another target on resume gets it, and one line that says so, since the log of the first start says
    otherwise."""
    first = train(saving(tiny_config("first", **ITERATIVE), 5))
    capsys.readouterr()
    trainer = train(resume(tiny_config("second", width=10, stop_step=7), first, 5, 4))
    assert events(trainer)[-1] == (7, tiny_widths(10, 5))
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "Pruning plan (that of the checkpoint is replaced; given again: width, stop_step): preset paper, coreset"
        in text
    )


def test_stored_strategy_carries_the_plan_out(tiny_config: Config) -> None:
    """An importance run that is resumed with the bare method name must not go on as a coreset run."""
    options = {"strategy": "importance", "score": "w_out", "recovery": "scratch", "recovery_lr": 3e-5}
    first = train(saving(tiny_config("first", **ITERATIVE, **options), 5))
    trainer = train(resume(tiny_config("second"), first, 5, 4))
    event = trainer.pipeline.model.prune_state.history[-1]
    assert (event.step, event.strategy, event.options["score"], event.recovery) == (8, "importance", "w_out", "scratch")
    # The schedule goes on from there: one of the ten steps in which it falls to a tenth.
    assert trainer.optimizers.optimizers["fields"].param_groups[0]["lr"] == pytest.approx(3e-5 * 0.1**0.1)


def test_defaults_of_the_demo_method_do_not_move_the_plan(tiny_config: Config) -> None:
    """`nerf-prune-demo` has a start step of its own; on a resume nobody typed it, so the stored plan stands."""
    first = train(tiny_config("first", method="nerf-prune-demo", start_step=3))
    trainer = train(resume(tiny_config("second", method="nerf-prune-demo"), first, 9, 5))
    assert events(trainer) == [(3, tiny_widths(8, 4))]


def test_dense_control_stays_dense(tiny_config: Config) -> None:
    """A resumed control that fell back to the default strategy would be pruned, and nobody would have asked for it."""
    first = train(tiny_config("first", strategy="none"))
    trainer = train(resume(tiny_config("second", preset=None), first, 9, 10))
    assert events(trainer) == [] and widths(trainer.pipeline.model) == tiny_widths(16, 8)


def test_cut_edges_stay_cut_under_a_milder_target(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Masked weights are zero, so that a milder target given on a resume cannot bring them back; claiming more living
    edges than there are would be wrong in every table."""
    first = train(tiny_config("first", strategy="edge", edge_keep_fraction=0.25, start_step=3))
    masks = first.pipeline.model.prune_state.masks
    config = tiny_config("second", strategy="edge", edge_keep_fraction=0.5, start_step=12)
    trainer = train(resume(config, first, 9, 6))
    assert same_bits(trainer.pipeline.model.prune_state.masks, masks)
    assert [step for step, _ in events(trainer)] == [3]
    assert "Pruning at step 12 skipped: nothing is left to remove" in " ".join(capsys.readouterr().out.split())


def test_branches_of_a_dense_checkpoint(tiny_config: Config) -> None:
    """The fair comparison of strategies starts all of them from one dense checkpoint; before their event they must all
    be that network with its moments."""
    dense = train(saving(tiny_config("dense", strategy="none"), 5))
    for strategy in ("uniform", "importance"):
        trainer = start(resume(tiny_config(strategy, strategy=strategy, start_step=8), dense, 5, 4))
        saved = checkpoint(dense, 5)
        assert same_bits(_tensors(trainer.pipeline.state_dict()), _tensors(saved["pipeline"]))
        trainer.train()
        (event,) = trainer.pipeline.model.prune_state.history
        assert (event.step, event.strategy, event.after.parts) == (8, strategy, tiny_widths(8, 4))


def test_bad_option_on_resume_is_refused_before_training(tiny_config: Config) -> None:
    """A width that the pruned network no longer has is above its current one; the run must not start."""
    first = train(tiny_config("first", start_step=3))
    with pytest.raises(ValueError, match="width 12 is above the current width 8 of field_coarse"):
        start(resume(tiny_config("second", width=12), first, 9, 5))


def test_checkpoint_is_readable_without_pickled_code(tiny_config: Config) -> None:
    """Since torch 2.6 checkpoints are loaded with `weights_only`; a dataclass in the extra state would lock people out
    of their own runs. Every kind of state is in this one: plan, history, snapshot."""
    trainer = train(saving(tiny_config(**ITERATIVE, recovery="rewind"), 5))
    path = trainer.checkpoint_dir / "step-000000005.ckpt"
    state = torch.load(path, weights_only=True)["pipeline"]["_model._extra_state"]
    assert [event["step"] for event in state["plan"]] == [3, 8] and state["phase"] == "pruning"
    assert [event["step"] for event in state["history"]] == [3]
    snapshot = state["rewind_snapshot"]
    assert {key: tuple(value.shape) for key, value in snapshot.items()} == {
        key: tuple(value.shape)
        for key, value in _named_parameters(torch.load(path)["pipeline"]).items()
        if key in snapshot
    }
    assert len(snapshot) == 36


def _named_parameters(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("_model."): value for key, value in _tensors(state).items()}


def test_saved_config_resumes_the_run(tiny_config: Config) -> None:
    """`ns-train --load-config` starts from the saved config.yml; what is in it has to come back as it was."""
    first = train(saving(tiny_config("first", **ITERATIVE, groups=("field_fine.*",)), 5))
    config = yaml.load((first.base_dir / "config.yml").read_text(), Loader=yaml.Loader)
    assert config.pipeline.prune == first.config.pipeline.prune
    config.timestamp = "second"
    trainer = train(resume(config, first, 5, 4))
    assert events(trainer) == events(first)
    assert widths(trainer.pipeline.model) == {**tiny_widths(16, 8), **tiny_widths(8, 4, ("fine",))}
