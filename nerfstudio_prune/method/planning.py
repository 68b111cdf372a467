"""Resolves options into a plan: absolute steps and widths. Decides nothing about neurons."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, Optional

from nerfstudio_prune.core.events import PruneState, ScheduledEvent
from nerfstudio_prune.core.schedule import event_progress, event_steps, size_at
from nerfstudio_prune.method.config import FieldTargetConfig, FilledPruneConfig, PruneConfig
from nerfstudio_prune.method.presets import PRESETS, TARGETS
from nerfstudio_prune.method.teacher_config import TeacherConfig
from nerfstudio_prune.neurons.groups import NeuronGroup, match_groups

RUN_OPTIONS = ("on_error", "num_eval_rays")
"""Options of the run at hand, which a stored plan says nothing about."""
REPLACED_TOGETHER = (
    (*TARGETS, "coarse", "fine", "groups"),
    ("edge_threshold", "edge_keep_fraction"),
)
"""Options of which one that is given again replaces all."""
FOLLOWING = {
    "strategy": (*REPLACED_TOGETHER[0], *REPLACED_TOGETHER[1], "score", "coreset_variant", "edge_scope"),
    "start_step": ("stop_step",),
    "schedule": ("num_events",),
    "preset": tuple(f.name for f in fields(PruneConfig) if f.name not in (*RUN_OPTIONS, "preset", "teacher")),
}
"""Option -> options whose stored values make no sense any more when it is given again."""


def resolve_steps(config: FilledPruneConfig, first_step: int, num_iterations: int) -> FilledPruneConfig:
    """Fills in the steps that were left open.

    Args:
        config: Options.
        first_step: First training step of this run.
        num_iterations: Steps that this run takes.

    Returns:
        A copy with `start_step`, `stop_step` and `num_events` set.

    Raises:
        ValueError: If an event would never happen.
    """
    end = first_step + num_iterations
    preset = PRESETS[config.preset]
    start = config.start_step if config.start_step is not None else num_iterations * preset.start_percent // 100
    events = config.num_events or (1 if config.schedule == "one-shot" else 4)
    stop = config.stop_step
    if stop is None:
        stop = num_iterations * preset.stop_percent // 100
        if stop < start + events - 1:
            stop = max((start + end) // 2, min(start + events, end) - 1)
    advice = "Lower it, raise max_num_iterations, or choose prune.strategy none"
    if start >= end:
        raise ValueError(
            f"prune.start_step {start} lies past the end of the run, whose last step is {end - 1}; pruning would "
            f"never happen. {advice}"
        )
    if events > 1 and stop >= end:
        raise ValueError(
            f"prune.stop_step {stop} lies past the end of the run, whose last step is {end - 1}; the last event would "
            f"never happen. {advice}"
        )
    return replace(config, start_step=start, stop_step=stop, num_events=events)


def resolve_targets(
    config: FilledPruneConfig, groups: Sequence[NeuronGroup], initial: Mapping[str, int]
) -> dict[str, int]:
    """Widths after the last event.

    Args:
        config: Options.
        groups: All groups of the model, with their current widths.
        initial: Name of the group -> initial width, what ratios and proportions refer to.

    Returns:
        Name of the group -> width, for the groups that are to be pruned.

    Raises:
        ValueError: If a pattern matches nothing, or an explicit width lies above a group's current one.
    """
    chosen = match_groups(groups, config.groups, "prune.groups")
    targets: dict[str, int] = {}
    if config.group_widths is not None:
        for pattern, width in config.group_widths.items():
            for group in match_groups(groups, [pattern], "prune.group_widths"):
                if targets.setdefault(group.name, width) != width:
                    raise ValueError(
                        f"prune.group_widths gives {group.name} two widths, {targets[group.name]} and {width}"
                    )
                _check_not_above(f"group_widths[{pattern!r}]", width, group)
        return targets
    common = FieldTargetConfig(config.width, config.head_width, config.pruning_ratio)
    if not common.given:
        common = FieldTargetConfig(pruning_ratio=0.5)
    for group in chosen:
        field = group.name.split(".")[0].removeprefix("field_")
        own = {"coarse": config.coarse, "fine": config.fine}[field]
        target, prefix = (own, f"{field}.") if own.given else (common, "")
        trunk = max(initial[g.name] for g in groups if g.name.startswith(f"field_{field}.mlp_base."))
        width = _target_width(config, target, prefix, group, initial[group.name], trunk)
        if width is not None:
            targets[group.name] = width
    return targets


def _target_width(
    config: FilledPruneConfig, target: FieldTargetConfig, prefix: str, group: NeuronGroup, initial: int, trunk: int
) -> Optional[int]:
    """Width of one group; None if the target says nothing about it."""

    def rounded(width: float) -> int:
        if width >= initial:
            return initial
        multiple = max(1, int(width / config.round_to + 0.5)) * config.round_to
        return min(initial, max(config.min_width, multiple))

    if target.pruning_ratio is not None:
        return rounded(initial * (1 - target.pruning_ratio))
    is_head = ".mlp_head." in group.name
    name, width = ("head_width", target.head_width) if is_head else ("width", target.width)
    if width is not None:
        _check_not_above(prefix + name, width, group)
        return width
    if is_head and target.width is not None:
        return rounded(initial * target.width / trunk)
    return None


def _check_not_above(option: str, width: int, group: NeuronGroup) -> None:
    if width > group.width:
        raise ValueError(f"prune.{option} {width} is above the current width {group.width} of {group.name}")


def resolve_plan(
    config: FilledPruneConfig, groups: Sequence[NeuronGroup], initial: Mapping[str, int]
) -> list[ScheduledEvent]:
    """Lays out all events; the steps of `config` must be resolved.

    Raises:
        ValueError: If steps, schedule or targets contradict each other.
    """
    assert config.start_step is not None and config.stop_step is not None and config.num_events is not None
    progress = event_progress(config.schedule, config.num_events)
    steps = event_steps(config.start_step, config.stop_step, config.num_events)
    targets = {}
    if config.strategy == "edge":
        match_groups(groups, config.groups, "prune.groups")
    elif not config.has_budget:
        targets = resolve_targets(config, groups, initial)
    return [
        ScheduledEvent(
            step,
            float(done),
            {name: size_at(initial[name], target, done, config.round_to) for name, target in targets.items()},
        )
        for step, done in zip(steps, progress, strict=True)
    ]


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
    again with another value.

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
    options, changed = plan_options(config.filled()), []
    if state.options:
        own, registered = plan_options(config), plan_options(defaults or PruneConfig())
        absent = plan_options(PruneConfig())
        bare = plan_options(FilledPruneConfig())
        # Before there were presets all plans followed from the defaults.
        stored = {**bare, "preset": "paper", **state.options}
        # Of the teacher's options those that are not given again hold on their own, for none contradicts another.
        again = {k: v for k, v in own["teacher"].items() if v is not None and v != registered["teacher"][k]}
        own["teacher"] = {**stored["teacher"], **again}
        given = {name: value for name, value in own.items() if value not in (absent[name], registered[name])}
        changed = [name for name, value in given.items() if value != stored[name]]
        options = {**stored}
        dropped = {follower for name in changed for follower in FOLLOWING.get(name, ())}
        dropped |= {name for names in REPLACED_TOGETHER if set(names) & set(changed) for name in names}
        if "strategy" in changed and stored["strategy"] == "none":
            # Nothing had been planned that these defaults would have to hold for.
            dropped |= {name for name, value in stored.items() if value == bare[name]}
        options.update({name: absent[name] for name in dropped})
        options.update({name: value for name, value in given.items() if name in dropped or name in changed})
    in_force = with_plan_options(config, options)
    in_force.validate()
    if state.options and not changed:
        return in_force, []
    plan = []
    if in_force.strategy != "none":
        in_force = resolve_steps(in_force, first_step, num_iterations)
        plan = resolve_plan(in_force, groups, initial)
    state.initial_sizes, state.plan, state.options = initial, plan, plan_options(in_force)
    return in_force, changed
