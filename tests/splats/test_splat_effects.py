"""Options of Gaussians without effect: the table that says which is held against real runs."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
from support import tiny_splats
from support.tiny_run import same_bits
from support.tiny_splats import copies, moments, train

from nerfstudio_prune.engine.options import Group
from nerfstudio_prune.splats.config import SplatPruneConfig

ALWAYS = {
    *("preset", "strategy", "seed", "pruning_ratio", "target_gaussians", "target_mb", "max_psnr_drop", "sh_degree"),
    *(
        "start_step",
        "start_fraction",
        "auto_start",
        "num_events",
        "schedule",
        "recovery",
        "recovery_lr",
        "recovery_lr_factor",
    ),
    *("recovery_lr_rewind", "recovery_warm_up", "on_error", "num_eval_views", "panel", "distil.steps"),
}
"""Options that have an effect wherever something is pruned, or contradict what makes them idle and are refused."""
OTHERS: Mapping[str, Any] = {
    **{"score": "hits", "removal_norm": "l2", "volume_power": 2.0, "volume_reference": "released", "rounds": 3},
    **{"stop_step": 12, "round_to": 64, "rewind_step": 3, "recovery_decay": 3, "sh_step": 12},
    **{"distil.steps": 2, "distil.target": "teacher", "distil.loss": "l2", "distil.sigma": 3.0, "distil.share": 1.0},
    "distil.geometry": False,
}
"""Option -> another value than that of the runs below."""
PLAIN: Mapping[str, Any] = {"start_step": 9, "sh_degree": 1, "sh_step": 11, "rounds": 1, "distil.steps": 3}


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options as `tiny_config` takes them."""
    return {name.replace(".", "__"): value for name, value in {**PLAIN, **values}.items()}


@pytest.fixture
def trace(tmp_path: Any, scene_cache: Any) -> Any:
    """Trains a tiny run with options; gives what came of it, and which of some options it was told to be idle."""

    def run(values: Mapping[str, Any]) -> Any:
        config = tiny_splats.tiny_config(tmp_path, scene_cache, "run", **given(values))
        config.max_num_iterations = 16
        trainer = train(config)
        state = trainer.pipeline.model.prune_state
        events = [(e.step, e.before, e.after, e.metrics_before, e.metrics_after) for e in state.history]
        return copies(trainer.pipeline.model.gauss_params), moments(trainer), events

    return run


def idle_of(values: Mapping[str, Any]) -> list[str]:
    """Options that are told to be idle beside others."""
    config = SplatPruneConfig()
    for name, value in {**PLAIN, **values}.items():
        group, _, option = name.rpartition(".")
        setattr(getattr(config, group) if group else config, option, value)
    config.validate()
    return sorted(set(config.without_effect(sorted(OTHERS))))


def dotted_names(cls: type[Group] = SplatPruneConfig, prefix: str = "") -> set[str]:
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
    table = {name for names, _, _ in SplatPruneConfig.all_effects() for name in names}
    table |= {name for name in dotted_names() if name.partition(".")[0] in table} - {"distil"}
    table.discard("distil")
    assert table <= dotted_names() <= table | ALWAYS
    assert set(OTHERS) == table


@pytest.mark.parametrize(
    ("recipe", "idle"),
    [
        (
            {"score": "removal", "sh_degree": 3, "distil.steps": None},
            {"volume_power", "volume_reference", "stop_step", "rewind_step"},
        ),
        ({"strategy": "random", "distil.target": "photo"}, {"score", "rounds", "removal_norm", "distil.loss"}),
        ({"score": "opacity", "target_gaussians": 150, "distil.steps": 0}, {"rounds", "round_to", "distil.geometry"}),
        ({"strategy": "merge", "distil.share": 0.0}, {"score", "rounds", "distil.sigma"}),
        ({"strategy": "none"}, set(OTHERS)),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),
)
def test_options_that_are_told_to_have_no_effect_have_none(trace: Any, recipe: dict[str, Any], idle: set[str]) -> None:
    """Whoever is told so leaves them away. All of them are changed at once, and not a bit of the run may differ."""
    found = [name for name in idle_of(recipe) if name not in recipe]
    assert idle - set(recipe) <= set(found)
    changed = {**recipe, **{name: OTHERS[name] for name in found}}
    assert set(idle_of(changed)) >= set(found)
    a, b = trace(recipe), trace(changed)
    assert same_bits(a[:2], b[:2]) and a[2] == b[2]


READ_BY: Mapping[str, Mapping[str, Any]] = {
    **{key: {"score": "removal"} for key in ("score", "removal_norm", "rounds")},
    "volume_power": {"score": "significance"},
    "stop_step": {"schedule": "iterative", "num_events": 2, "stop_step": 10, "sh_step": 13, "distil.steps": None},
    "round_to": {"schedule": "iterative", "num_events": 2, "stop_step": 10},
    **{key: {} for key in ("sh_step", "distil.steps", "distil.geometry", "recovery_decay")},
    "distil.target": {"distil.target": "photo"},
    **{key: {"distil.target": "teacher"} for key in ("distil.loss", "distil.share", "distil.sigma")},
}
"""Option -> a recipe that reads it; rewinding of weights is refused for Gaussians, so that nothing reads its step."""


@pytest.mark.parametrize("name", READ_BY)
def test_options_change_what_reads_them(trace: Any, name: str) -> None:
    """The other half: an option that nothing reads at all, or that is told to be idle where it is read, would pass the
    test above."""
    recipe = READ_BY[name]
    changed = {**recipe, name: OTHERS[name]}
    assert name not in idle_of(changed)
    a, b = trace(recipe), trace(changed)
    assert not (same_bits(a[:2], b[:2]) and a[2] == b[2])
