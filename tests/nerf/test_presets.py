"""Recipes for the options that are not given."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import tyro
from support.tiny_plan import updated
from support.tiny_run import make_config, tiny_model, tiny_parameters, tiny_widths, train

from nerfstudio_prune.core.events import PruneEvent, PruneState
from nerfstudio_prune.engine.planning import resolve_steps
from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.nerf.presets import PRESETS, PresetName

NAMES: tuple[PresetName, ...] = get_args(PresetName)


def filled(**options: Any) -> PruneConfig:
    config = PruneConfig(**options)
    config.validate()
    return config.filled()


@pytest.mark.parametrize("name", NAMES)
def test_preset_is_a_valid_run_by_itself(name: PresetName) -> None:
    """A preset is what people type first and alone; it must name options that exist, and none that contradict."""
    options = set(PRESETS[name])
    assert options <= {f.name for f in fields(PruneConfig)} - {"preset"}
    config = filled(preset=name)
    assert {option: getattr(config, option) for option in options} == dict(PRESETS[name])
    resolve_steps(config, 0, 1000)


def test_paper_is_algorithm_1() -> None:
    """`paper` is what others are compared with: Ding et al. 2025 sample a coreset once, keep half of the neurons and
    go on with their weights as they are. The other presets differ from it."""
    paper = filled(preset="paper")
    assert (paper.strategy, paper.coreset_variant, paper.resolve().score) == ("coreset", "paper", "w_in_w_out")
    assert (paper.schedule, paper.refit, paper.recovery) == ("one-shot", "none", "continue")
    assert not paper.budgets and not paper.widths and not paper.own
    assert len({repr(replace(filled(preset=name), preset="paper")) for name in NAMES}) == len(NAMES)


def test_best_is_the_default() -> None:
    """Who gives no option gets the compromise that the measurements speak for, with and without its name."""
    assert filled() == filled(preset="best") != filled(preset="paper")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "paper"])
@pytest.mark.parametrize(
    "target",
    [
        {"width": 64},
        {"head_width": 32},
        {"pruning_ratio": 0.5},
        {"group_widths": {"*": 8}},
        {"target_macs": 0.5},
        {"target_parameters": 0.9},
        {"target_mb": 0.1},
        {"coarse": FieldTargetConfig(width=16)},
        {"fine": FieldTargetConfig(pruning_ratio=0.25)},
        {"groups": ("field_fine.*",)},
    ],
)
def test_target_that_is_given_takes_the_place_of_the_presets(name: PresetName, target: dict[str, Any]) -> None:
    """Two targets contradict each other; who types one does not know which the preset has, and means the own one. All
    else still comes from the preset."""
    config, whole = filled(preset=name, **target), filled(preset=name)
    assert {key: getattr(config, key) for key in target} == target
    assert sum(getattr(config, key) is not None for key in ("target_parameters", "target_macs", "target_mb")) == (
        1 if next(iter(target)).startswith("target_") else 0
    )
    for option in ("strategy", "refit", "schedule", "num_events"):
        assert getattr(config, option) == getattr(whole, option)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", ["none", "edge"])
def test_presets_say_nothing_about_edges_and_the_dense_control(name: PresetName, strategy: str) -> None:
    """A budget of neurons contradicts masks on single weights, and a dense control is the same whatever the preset.
    When the masks are put on is the preset's to say still: it holds a plan that is taken up with another strategy."""
    paper = filled(preset="paper", strategy=strategy)
    when = PRESETS[name].get("start_fraction", paper.start_fraction) if strategy == "edge" else paper.start_fraction
    assert filled(preset=name, strategy=strategy) == replace(paper, preset=name, start_fraction=when)


def test_options_that_the_presets_strategy_does_not_take_choose_another() -> None:
    """`--score w_out` alone means the neurons with the highest score; refused because of a strategy that nobody typed,
    or ignored, it would be a riddle."""
    assert (filled(score="w_out").strategy, filled(score="w_out").resolve().score) == ("importance", "w_out")
    assert filled(coreset_variant="mussay").strategy == "coreset"
    assert filled(preset="paper", score="w_out").strategy == "coreset"
    with pytest.raises(ValueError, match=r"prune\.strategy obs ranks the neurons itself and takes no prune\.score"):
        filled(strategy="obs", score="w_out")


@pytest.mark.parametrize("recovery", ["rewind", "scratch"])
def test_recovery_that_replaces_the_weights_leaves_refit_out(recovery: str) -> None:
    """The two contradict each other; the one that was typed holds. So it is with a coreset that brings new weights."""
    assert filled(coreset_variant="mussay").refit == "none"
    assert (filled(recovery=recovery).refit, filled(recovery="retrain").refit) == ("none", "lstsq")
    with pytest.raises(ValueError, match=r"replaces the weights that prune\.refit lstsq gives"):
        filled(recovery=recovery, refit="lstsq")


def test_schedule_that_is_given_brings_its_own_number_of_events() -> None:
    """One cut in five events is refused; `--schedule one-shot` alone has to work under every preset."""
    for name in NAMES:
        config = resolve_steps(filled(preset=name, schedule="one-shot"), 0, 1000)
        assert (config.schedule, config.num_events) == ("one-shot", 1)
    assert filled(preset="tiny", schedule="cubic") == filled(preset="tiny")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [{}, {"width": 64}, {"recovery": "scratch"}, {"score": "w_in"}, {"strategy": "none"}, {"schedule": "one-shot"}],
)
def test_filling_twice_changes_nothing(name: PresetName, options: dict[str, Any]) -> None:
    """The options in force are stored filled and are filled again when the run is resumed; an option that came back
    then would change the plan of every resumed run."""
    once = filled(preset=name, **options)
    assert once.filled() == once


def test_unknown_preset(capsys: pytest.CaptureFixture[str]) -> None:
    """Refused on the command line and in Python, with the names that there are."""
    with pytest.raises(SystemExit):
        tyro.cli(PruneConfig, args=["--preset", "small"])
    assert "tiny" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"prune\.preset must be one of paper, fast, best, tiny, got 'small'"):
        PruneConfig(preset="small").validate()  # type: ignore[arg-type]


def resumed(state: PruneState) -> PruneState:
    return PruneState.from_dict(state.to_dict())


def test_stored_preset_holds_on_resume() -> None:
    """Resumed without options, a run goes on by its stored plan, whatever the default preset is."""
    model, state = tiny_model(), PruneState()
    started, _ = updated(state, PruneConfig(preset="tiny", min_width=2), model, 0, 100)
    later = resumed(state)
    in_force, changed = updated(later, PruneConfig(), model, 10, 100)
    assert (changed, in_force, later.plan) == ([], started, state.plan)
    in_force, changed = updated(later, PruneConfig(target_parameters=0.5), model, 10, 100)
    assert changed == ["target_parameters"]
    assert in_force == replace(started, target_parameters=0.5)


def test_preset_given_again_replaces_what_the_old_one_said() -> None:
    """Half of the old recipe and half of the new one would be neither; options that are given with it hold."""
    model, state = tiny_model(), PruneState()
    updated(state, PruneConfig(preset="paper", pruning_ratio=0.25), model, 0, 100)
    in_force, changed = updated(state, PruneConfig(preset="tiny", min_width=2, start_step=20), model, 10, 100)
    assert changed == ["preset", "min_width", "start_step"]
    fresh = resolve_steps(filled(preset="tiny", min_width=2, start_step=20), 10, 100)
    assert in_force == fresh and in_force.pruning_ratio is None


def test_checkpoint_from_before_the_presets_keeps_its_plan() -> None:
    """Then every plan followed from the bare defaults; read under `best` it would change in mid-training."""
    model, state = tiny_model(), PruneState()
    updated(state, PruneConfig(preset="paper", min_width=2, start_step=20), model, 0, 100)
    old = resumed(state)
    del old.options["preset"]
    in_force, changed = updated(old, PruneConfig(), model, 10, 100)
    assert (changed, in_force.preset, in_force.strategy) == ([], "paper", "coreset")
    assert [event.targets for event in old.plan] == [tiny_widths(8, 4)]


@pytest.mark.parametrize("stored", [None, *NAMES])
@pytest.mark.parametrize("name", NAMES)
def test_dense_control_branches_into_any_preset(name: PresetName, stored: PresetName | None) -> None:
    """Comparisons branch several presets from one `strategy none` run; what its checkpoint holds is not somebody's
    choice, also if it is the preset of that name, and must not keep the recipe out."""
    model, state = tiny_model(), PruneState()
    updated(state, PruneConfig(preset=stored, strategy="none", min_width=2), model, 0, 100)
    branch = resumed(state)
    in_force, _ = updated(branch, PruneConfig(preset=name), model, 50, 100)
    assert in_force == resolve_steps(filled(preset=name, min_width=2), 50, 100) and branch.plan
    branch = resumed(state)
    in_force, _ = updated(branch, PruneConfig(strategy="obs"), model, 50, 100)
    assert in_force == resolve_steps(filled(preset=stored, strategy="obs", min_width=2), 50, 100)
    for options in (PruneConfig(), PruneConfig(preset=name, strategy="none")):
        control = resumed(state)
        assert updated(control, options, model, 50, 100)[0].strategy == "none" and control.plan == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [
        {"score": "w_out"},
        {"recovery": "scratch"},
        {"recovery": "rewind"},
        {"recovery_lr": 1e-3},
        {"coreset_variant": "mussay"},
        {"strategy": "edge"},
        {"strategy": "uniform"},
        {"width": 8},
        {"groups": ("field_fine.*",)},
        {"schedule": "iterative"},
    ],
)
def test_option_given_on_resume_means_what_it_means_at_the_start(name: PresetName, options: dict[str, Any]) -> None:
    """What the preset filled in is not somebody's choice: on resume it gives way to an option as it does in a fresh
    run, instead of contradicting it with a message about something that nobody typed."""
    model, state = tiny_model(), PruneState()
    updated(state, PruneConfig(preset=name, min_width=2), model, 0, 100)
    later = resumed(state)
    in_force, changed = updated(later, PruneConfig(**options), model, 10, 100)
    fresh = resolve_steps(filled(preset=name, min_width=2, **options), 0, 100)
    assert in_force == fresh and later.plan
    assert changed == [key for key in options if getattr(fresh, key) != state.options[key]]
    again = resumed(later)
    assert updated(again, PruneConfig(**options), model, 12, 100) == (in_force, []) and again.plan == later.plan


def test_what_was_given_at_first_outlives_other_options() -> None:
    """An own budget, seed or choice of layers is not the preset's to replace because something else is given again: a
    cut that goes further than asked for cannot be taken back."""
    model, state = tiny_model(), PruneState()
    first: dict[str, Any] = {"target_parameters": 0.5, "seed": 7, "min_width": 2}
    updated(state, PruneConfig(**first), model, 0, 100)
    others: list[dict[str, Any]] = [
        {"strategy": "pivoted-qr"},
        {"groups": ("*.mlp_base.*",)},
        {"calibration_rays": 9},
    ]
    for options in others:
        in_force, _ = updated(resumed(state), PruneConfig(**options), model, 10, 100)
        assert in_force == resolve_steps(filled(**first, **options), 0, 100)
    in_force, _ = updated(resumed(state), PruneConfig(preset="tiny"), model, 10, 100)
    assert (in_force.target_parameters, in_force.seed, in_force.min_width) == (0.1, 7, 2)


def test_methods_own_defaults_come_back_where_a_stored_value_does_not_hold() -> None:
    """`nerf-prune-demo` says when its cut is; a preset chosen on resume must not move it to where another method has
    it."""
    model, state = tiny_model(), PruneState()
    defaults = PruneConfig(start_step=60, schedule="one-shot")
    updated(state, replace(defaults, strategy="none"), model, 0, 100, defaults)
    in_force, _ = updated(resumed(state), replace(defaults, preset="tiny", min_width=2), model, 10, 100, defaults)
    assert (in_force.start_step, in_force.schedule, in_force.num_events) == (60, "one-shot", 1)


def test_done_events_stay_done_under_a_new_preset() -> None:
    """The network cannot grow back; what comes is planned from the widths at the start."""
    model, state = tiny_model(), PruneState()
    updated(state, PruneConfig(min_width=2), model, 0, 100)
    event = state.plan[0]
    state.history = [PruneEvent(event.step, event, "obs", "continue")]
    updated(state, PruneConfig(preset="paper", width=4, min_width=2, start_step=60), model, 30, 100)
    assert [(event.step, event.targets["field_fine.mlp_base.layers.1"]) for event in state.pending] == [(60, 4)]
    assert len(state.history) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "paper"])
def test_preset_in_training(name: PresetName, tmp_path: Path, scene_cache: Path) -> None:
    """The whole recipe in the host's loop: every event happens, and the budget holds at the end."""
    trainer = train(make_config(tmp_path, scene_cache, preset=name, calibration_rays=32))
    state = trainer.pipeline.model.prune_state
    recipe = trainer.pipeline.controller.run.recipe
    assert state.phase == "recovery" and not any(event.error for event in state.history)
    assert state.history[-1].scheduled.share == 1
    dense, (option, share) = tiny_parameters(16, 8), recipe.budget
    first, last = state.history[0].before.costs, state.history[-1].after.costs
    if option == "target_parameters":
        assert share * dense * 0.9 < last["parameters"] <= share * dense
    else:
        assert share * 0.9 < last["macs_per_ray"] / first["macs_per_ray"] <= share
