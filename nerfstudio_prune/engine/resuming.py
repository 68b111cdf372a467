"""Makes the plan of a run, or takes up the one of a resumed run."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, fields, replace
from typing import Any, Optional

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.engine.planning import resolve_plan, resolve_steps
from nerfstudio_prune.nerf.config import FieldTargetConfig, FilledPruneConfig, PruneConfig
from nerfstudio_prune.nerf.presets import PRESETS, TARGETS
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.neurons.groups import NeuronGroup

RUN_OPTIONS = ("on_error", "num_eval_rays")
"""Options of the run at hand, which a stored plan says nothing about."""
STEPS = ("start_step", "stop_step", "num_events")
"""Options that are resolved against the length of the run in which the plan is made."""
_TARGETS = {*TARGETS, "coarse", "fine"}
_EDGES = {"edge_threshold", "edge_keep_fraction"}
_CHOICE = {"score", "coreset_variant"}
FOLLOWING: Mapping[str, Set[str]] = {
    **dict.fromkeys(_TARGETS, _TARGETS),
    "group_widths": {*_TARGETS, "groups"},
    "groups": {"group_widths"},
    **dict.fromkeys(_EDGES, _EDGES),
    "strategy": {*_CHOICE, *_EDGES, "edge_scope"},
    "coreset_variant": {"strategy", "score"},
    "start_step": {"stop_step"},
    "schedule": {"num_events"},
    "preset": {*_TARGETS, *_CHOICE, *(option for values in PRESETS.values() for option in values)},
}
"""Option -> options that were given earlier and do not hold any more when it is given again."""


def plan_options(config: PruneConfig) -> dict[str, Any]:
    """The options that a plan follows from or is carried out with, as plain values for a checkpoint."""
    values = asdict(config)
    names = (f.name for f in fields(PruneConfig) if f.name not in RUN_OPTIONS)
    return {name: list(values[name]) if isinstance(values[name], tuple) else values[name] for name in names}


def with_plan_options(config: PruneConfig, options: Mapping[str, Any]) -> FilledPruneConfig:
    """A filled copy with options that `plan_options` gave, of this or an earlier version."""
    known = {f.name for f in fields(PruneConfig)}
    own = {name: value for name, value in options.items() if name in known}
    for name, kind in (("coarse", FieldTargetConfig), ("fine", FieldTargetConfig), ("teacher", TeacherConfig)):
        parts = {f.name for f in fields(kind)}
        own[name] = kind(**{key: value for key, value in options.get(name, {}).items() if key in parts})
    if own.get("groups") is not None:
        own["groups"] = tuple(own["groups"])
    return replace(PruneConfig(), **own, **{name: getattr(config, name) for name in RUN_OPTIONS}).filled()


def update_plan(
    state: PruneState,
    config: PruneConfig,
    groups: Sequence[NeuronGroup],
    first_step: int,
    num_iterations: int,
    defaults: Optional[PruneConfig] = None,
) -> tuple[FilledPruneConfig, list[str]]:
    """Makes the plan of a run, or takes up the one of a resumed run.

    A stored plan holds, with all the options it follows from and is carried out with, unless one of them is given
    again with another value. Then the options that were given earlier and do not contradict it still hold, and
    the preset fills the rest anew.

    Args:
        state: Pruning state, fresh or loaded; changed only if all is well.
        config: Options of this run.
        groups: All groups of the model, with their current widths.
        first_step: First training step of this run.
        num_iterations: Steps that this run takes.
        defaults: Options of the method as registered, which count as not given. None: nothing does.

    Returns:
        The options in force, and the names of those that changed a stored plan; none for a first start.

    Raises:
        ValueError: If the options do not give a plan.
    """
    initial = state.initial_sizes or {group.name: group.width for group in groups}
    absent, own = plan_options(PruneConfig()), plan_options(config)
    given = {name: value for name, value in own.items() if value != absent[name]}
    stored: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    changed: list[str] = []
    if state.options:
        # Before there were presets all plans followed from the defaults.
        stored = {**plan_options(FilledPruneConfig()), "preset": "paper", **state.options}
        earlier = {"preset": "paper", **state.options} if state.given is None else state.given
        again = _given_again(own, plan_options(defaults or PruneConfig()), stored)
        changed = [name for name, value in again.items() if value != stored[name]]
        if "preset" in again and stored["strategy"] == "none" and "strategy" not in again:
            # Nothing has been planned by that preset so far.
            changed = list(dict.fromkeys(["preset", *changed]))
        if not changed:
            in_force = with_plan_options(config, stored)
            in_force.validate()
            return in_force, []
        given, steps = _merged(earlier, given, again, changed, stored)
    in_force = with_plan_options(config, given)
    if steps and in_force.schedule != stored["schedule"]:
        steps.pop("num_events", None)
    in_force = replace(in_force, **steps)
    in_force.validate()
    plan = []
    if in_force.strategy != "none":
        in_force = resolve_steps(in_force, first_step, num_iterations)
        plan = resolve_plan(in_force, groups, initial)
    state.initial_sizes, state.plan, state.options, state.given = initial, plan, plan_options(in_force), given
    return in_force, changed


def _merged(
    earlier: Mapping[str, Any],
    given: Mapping[str, Any],
    again: Mapping[str, Any],
    changed: Sequence[str],
    stored: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given now of a resumed run, and the resolved steps of the stored plan that still hold.

    Args:
        earlier: Options that were given earlier.
        given: Options of this run, the method's own included.
        again: Those of them that are given again.
        changed: Those of these that are not as stored.
        stored: Options in force so far.
    """
    dropped = {follower for name in changed for follower in FOLLOWING.get(name, ())}
    if again.get("strategy") == "edge":
        dropped |= _TARGETS
    still = {name: value for name, value in earlier.items() if name not in dropped}
    own = {name: value for name, value in given.items() if name in dropped}
    merged = {**still, **own, **again}
    if "preset" in changed or stored["strategy"] == "none":
        return merged, {}
    return merged, {name: stored[name] for name in STEPS if name not in dropped and merged.get(name) is None}


def _given_again(own: Mapping[str, Any], registered: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a resumed run that are neither absent nor the method's own."""
    absent = plan_options(PruneConfig())
    again = {name: value for name, value in own.items() if value not in (absent[name], registered[name])}
    # Of the teacher's options those that are not given again hold on their own, for none contradicts another.
    teacher = {k: v for k, v in own["teacher"].items() if v is not None and v != registered["teacher"][k]}
    if teacher:
        again["teacher"] = {**stored["teacher"], **teacher}
    else:
        again.pop("teacher", None)
    return again
