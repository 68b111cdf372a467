"""Options without effect: told in one line at the start, and the table that says which is held against real runs."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from support.short_run import ShortRuns

from nerfstudio_prune.engine.options import Group
from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.nerf.teacher.config import TeacherConfig

ALWAYS = {
    *("strategy", "groups", "group_widths", "target_parameters", "target_macs", "target_mb"),
    *("start_step", "start_fraction", "auto_start", "num_events", "schedule", "recovery", "recovery_lr"),
    *("recovery_lr_rewind", "recovery_lr_factor"),
    *("recovery_warm_up", "edge_threshold", "edge_keep_fraction", "on_error", "num_eval_rays", "panel"),
    *(f"{field}.{name}" for field in ("coarse", "fine") for name in ("width", "head_width", "pruning_ratio")),
    "teacher.steps",
}
"""Options that have an effect wherever something is pruned, or contradict what makes them idle and are refused."""
OTHERS: Mapping[str, Any] = {
    **{"preset": "fast", "seed": 5, "score": "sensitivity", "refit": "lstsq", "refit_ridge": 0.1},
    **{"refit_moments": "reset", "coreset_variant": "mussay", "calibration_rays": 24, "calibration_samples": 50},
    **{"calibration_weights": "contribution", "calibration_floor": 0.9, "density_weight": 50.0, "width": 5},
    **{"coarse_colour_weight": 0.001},
    **{"head_width": 6, "pruning_ratio": 0.2, "min_width": 4, "round_to": 3, "coarse_error_weight": 20.0},
    **{"shrink_steps": 2, "shrink_weight": 5.0, "stop_step": 3, "rewind_step": 0, "recovery_decay": 2},
    "edge_scope": "global",
    **{"teacher.point_share": 0.5, "teacher.point_weight": 3.0, "teacher.colour_weight": 0.9},
    **{"teacher.pseudo_rays": 0.9, "teacher.jitter": 1.0, "teacher.jitter_degrees": 30.0},
    **{"teacher.hard_rays": 0.5, "teacher.hard_pool": 3, "teacher.coarse_weight": 0.5},
}
"""Option -> another value than the default."""
STEPS = 5
TWO: Mapping[str, Any] = {"schedule": "iterative", "num_events": 2, "stop_step": 2}


def given(values: Mapping[str, Any]) -> PruneConfig:
    """Options of a tiny run; the dotted names go into their groups."""
    config = PruneConfig(preset="paper", start_step=1, min_width=2, num_eval_rays=16, calibration_rays=16)
    for name, value in values.items():
        group, _, option = name.rpartition(".")
        setattr(getattr(config, group) if group else config, option, value)
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> ShortRuns:
    """Trainings on one scene."""
    return ShortRuns(tmp_path_factory.mktemp("runs"), scene_cache, STEPS)


@pytest.fixture(scope="module")
def traces() -> dict[str, Any]:
    """Recipe -> what came of it."""
    return {}


def trace_of(runs: ShortRuns, traces: dict[str, Any], recipe: Mapping[str, Any]) -> Any:
    """What came of a recipe; each runs once."""
    if str(recipe) not in traces:
        traces[str(recipe)] = runs.run(given(recipe)).trace()
    return traces[str(recipe)]


def is_idle(recipe: Mapping[str, Any], name: str) -> bool:
    """Whether another value of an option is taken beside a recipe, and told to have no effect."""
    options = given({**recipe, name: OTHERS[name]})
    try:
        options.validate()
    except ValueError:
        return False
    return name in options.without_effect([name])


def dotted_names(cls: type[Group] = PruneConfig, prefix: str = "") -> set[str]:
    """Every option, of groups within too."""
    found = set()
    for f in fields(cls):
        if isinstance(f.default_factory, type) and issubclass(f.default_factory, Group):
            found |= dotted_names(f.default_factory, f"{prefix}{f.name}.")
        else:
            found.add(prefix + f.name)
    return found


def test_every_option_is_in_the_table_or_always_has_an_effect() -> None:
    """A new option is put into one of the two, or it would be accepted where nothing reads it."""
    known = dotted_names()
    table = {name for names, _, _ in PruneConfig.all_effects() for name in names}
    assert table <= known and table.isdisjoint(ALWAYS) and known <= table | ALWAYS
    assert set(OTHERS) == table


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"preset": "best"},
        {"strategy": "edge"},
        {"strategy": "edge", "edge_threshold": 0.05},
        {"strategy": "importance", "refit": "merge"},
        {"strategy": "uniform", "refit": "lstsq"},
        {"strategy": "importance", "score": "apoz"},
        {"strategy": "pivoted-qr"},
        {"width": 4, "head_width": 4},
        {"recovery": "scratch", "strategy": "importance", "score": "activation"},
        {"coarse.width": 4, "fine.width": 4},
        {"teacher.steps": 2, "teacher.point_share": 1.0},
        {"teacher.steps": 2, "teacher.point_share": 0.0, "teacher.pseudo_rays": 0.0},
    ],
    ids=str,
)
def test_options_that_are_told_to_have_no_effect_have_none(
    runs: ShortRuns, traces: dict[str, Any], recipe: Mapping[str, Any]
) -> None:
    """Whoever is told so leaves them away. All of them are changed at once, and not a bit of the run may differ: not in
    events, weights, losses or rates."""
    idle = [name for name in OTHERS if name not in recipe and is_idle(recipe, name)]
    if "width" in idle:
        idle.remove("pruning_ratio")  # the two contradict each other
    changed = given({**recipe, **{name: OTHERS[name] for name in idle}})
    assert set(idle) <= set(changed.without_effect(idle)) and len(idle) >= 5
    assert runs.run(changed).trace() == trace_of(runs, traces, recipe)


PAPER: Mapping[str, Any] = {}
EDGE: Mapping[str, Any] = {"strategy": "edge"}
POINTS: Mapping[str, Any] = {"teacher.steps": 2}
LSTSQ: Mapping[str, Any] = {"strategy": "uniform", "refit": "lstsq"}
BEST: Mapping[str, Any] = {"preset": "best"}
RENDERED: Mapping[str, Any] = {"teacher.steps": 2, "teacher.point_share": 0.0}
READ_BY: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("seed", "score", "coreset_variant", "round_to", "shrink_steps"), PAPER),
    **dict.fromkeys(("width", "head_width", "pruning_ratio"), PAPER),
    "preset": {"min_width": 1},
    "refit": {"strategy": "uniform"},
    "min_width": {"pruning_ratio": 0.7},
    **dict.fromkeys(("refit_ridge", "calibration_weights", "calibration_floor", "refit_moments"), LSTSQ),
    **dict.fromkeys(("calibration_rays", "calibration_samples"), LSTSQ),
    **dict.fromkeys(("density_weight", "coarse_colour_weight", "coarse_error_weight"), BEST),
    "shrink_weight": {"shrink_steps": 1},
    "stop_step": TWO,
    "rewind_step": {"recovery": "rewind", "start_step": 3, "rewind_step": 2},
    "recovery_decay": {"recovery_lr": 0.01},
    "edge_scope": EDGE,
    **dict.fromkeys(("teacher.point_share", "teacher.point_weight", "teacher.coarse_weight"), POINTS),
    **dict.fromkeys(("teacher.colour_weight", "teacher.pseudo_rays", "teacher.hard_rays"), RENDERED),
    **dict.fromkeys(("teacher.jitter", "teacher.jitter_degrees"), RENDERED),
    "teacher.hard_pool": {**RENDERED, "teacher.hard_rays": 0.5},
}
"""Option -> a recipe that reads it."""


@pytest.mark.parametrize("name", OTHERS)
def test_options_change_what_reads_them(runs: ShortRuns, traces: dict[str, Any], name: str) -> None:
    """The other half: an option that nothing reads at all, or that is told to be idle where it is read, would pass the
    test above."""
    recipe = READ_BY[name]
    changed = given({**recipe, name: OTHERS[name]})
    assert name not in changed.without_effect([name])
    assert runs.run(changed).trace() != trace_of(runs, traces, recipe)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"refit": "none", "preset": "paper"}, {}),
        ({"refit_ridge": 0.1, "strategy": "uniform", "preset": "paper"}, {"refit_ridge"}),
        ({"recovery_decay": 10}, {"recovery_decay"}),
        ({"coreset_variant": "paper", "strategy": "obs"}, {"coreset_variant"}),
        ({"strategy": "edge", "edge_threshold": 0.1, "edge_scope": "global"}, {"edge_scope"}),
        ({"strategy": "edge", "seed": 1, "shrink_steps": 9, "round_to": 4}, {"seed", "shrink_steps", "round_to"}),
        ({"strategy": "uniform", "score": "w_in"}, {"score"}),
        ({"strategy": "none", "refit": "lstsq", "on_error": "stop"}, {"refit"}),
        ({"strategy": "none", "num_eval_rays": 5, "on_error": "continue"}, {"num_eval_rays", "on_error"}),
        ({"coarse": FieldTargetConfig(width=9), "fine": FieldTargetConfig(width=9), "width": 8}, {"width"}),
        ({"teacher": TeacherConfig(hard_pool=9, jitter=0.2)}, {"teacher.hard_pool", "teacher.jitter"}),
        ({"teacher": TeacherConfig(steps=9, hard_pool=9)}, {"teacher.hard_pool"}),
        ({"strategy": "none", "teacher": TeacherConfig(steps=9)}, {"teacher.steps"}),
    ],
)
def test_pairs_by_hand(values: dict[str, Any], expected: set[str]) -> None:
    """What stands in a message: the option that is idle, not the one that makes it so, and none that a person did not
    give."""
    config = PruneConfig(**values)
    config.validate()
    assert set(config.without_effect(config.names_given())) == set(expected)


def test_what_a_method_brings_is_not_given() -> None:
    """`nerf-prune-demo` comes with a start step; a dense control of it must not be told that this has no effect."""
    registered = PruneConfig(start_step=1000, schedule="one-shot", teacher=TeacherConfig(steps=5))
    config = PruneConfig(
        start_step=1000, schedule="one-shot", strategy="none", refit="none", teacher=TeacherConfig(steps=5, jitter=0.5)
    )
    assert set(config.names_given(registered)) == {"refit", "strategy", "teacher.jitter"}
    assert set(config.without_effect(config.names_given(registered))) == {"refit", "teacher.jitter"}


def test_one_line_at_the_start(runs: ShortRuns, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for all of them, with what each would need; none where all are read."""
    runs.start(given({"refit_ridge": 0.1, "edge_scope": "global"}))
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("have no effect") == 1
    assert "These options have no effect on what is planned: prune." in text
    assert "prune.edge_scope (goes with strategy edge and edge_keep_fraction)" in text
    assert "prune.refit_ridge (goes with refit lstsq, a budget, or a strategy or score that looks at refits)" in text
    runs.start(given({"strategy": "uniform", "min_width": 1, "calibration_rays": None}))
    assert "have no effect" not in " ".join(capsys.readouterr().out.split())
