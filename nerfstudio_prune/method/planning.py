"""Resolves options into a plan: absolute steps and widths. Decides nothing about neurons."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Optional

from nerfstudio_prune.core.events import PruneState, ScheduledEvent
from nerfstudio_prune.core.schedule import event_progress, event_steps, size_at
from nerfstudio_prune.method.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.neurons.groups import NeuronGroup, match_groups

TARGET_OPTIONS = ("width", "head_width", "pruning_ratio", "group_widths", "coarse", "fine", "groups")
EDGE_OPTIONS = ("edge_threshold", "edge_keep_fraction", "edge_scope")
STEP_OPTIONS = ("start_step", "stop_step", "num_events", "schedule")
OTHER_OPTIONS = ("strategy", "round_to", "min_width")


def resolve_steps(config: PruneConfig, first_step: int, num_iterations: int) -> PruneConfig:
    """Fills in the steps that were left open.

    Args:
        config: Options.
        first_step: First training step of this run.
        num_iterations: Steps that this run takes.

    Returns:
        A copy with `start_step`, `stop_step` and `num_events` set.

    Raises:
        ValueError: If no event would ever happen.
    """
    end = first_step + num_iterations
    start = config.start_step if config.start_step is not None else num_iterations * 15 // 100
    stop = config.stop_step if config.stop_step is not None else max(start, num_iterations // 2)
    events = config.num_events or (1 if config.schedule == "one-shot" else 4)
    if start >= end:
        raise ValueError(
            f"prune.start_step {start} lies past the end of the run, whose last step is {end - 1}; pruning would "
            "never happen. Lower it, raise max_num_iterations, or choose prune.strategy none"
        )
    if events > 1 and stop < start:
        raise ValueError(f"prune.stop_step must be at least prune.start_step = {start}, got {stop}")
    return replace(config, start_step=start, stop_step=stop, num_events=events)


def resolve_targets(config: PruneConfig, groups: Sequence[NeuronGroup], initial: Mapping[str, int]) -> dict[str, int]:
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
    config: PruneConfig, target: FieldTargetConfig, prefix: str, group: NeuronGroup, initial: int, trunk: int
) -> Optional[int]:
    """Width of one group; None if the target says nothing about it."""

    def rounded(width: float) -> int:
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
    config: PruneConfig, groups: Sequence[NeuronGroup], initial: Mapping[str, int]
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
    else:
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
    """The options a plan follows from, as plain values for a checkpoint."""
    values = asdict(config)
    names = (*TARGET_OPTIONS, *EDGE_OPTIONS, *STEP_OPTIONS, *OTHER_OPTIONS)
    return {name: list(values[name]) if isinstance(values[name], tuple) else values[name] for name in names}


def update_plan(
    state: PruneState, config: PruneConfig, groups: Sequence[NeuronGroup], first_step: int, num_iterations: int
) -> list[str]:
    """Makes the plan of a run, or takes up the one of a resumed run.

    A stored plan holds unless an option that it follows from is given again, with a value that is neither the
    default nor the stored one. Targets are replaced together, the other options one by one.

    Args:
        state: Pruning state, fresh or loaded; changed only if all is well.
        config: Options of this run.
        groups: All groups of the model, with their current widths.
        first_step: First training step of this run.
        num_iterations: Steps that this run takes.

    Returns:
        Names of the options that changed a stored plan; empty for a first start.

    Raises:
        ValueError: If the options do not give a plan.
    """
    initial = state.initial_sizes or {group.name: group.width for group in groups}
    if config.strategy == "none":
        changed = ["strategy"] if state.pending else []
        state.initial_sizes, state.plan, state.options = initial, [], {}
        return changed
    given, default, changed = plan_options(config), plan_options(PruneConfig()), []
    if state.options:
        changed = [name for name in given if given[name] != default[name] and given[name] != state.options[name]]
        if not changed:
            return []
        options = dict(state.options)
        for names in (TARGET_OPTIONS, EDGE_OPTIONS):
            if "strategy" in changed or any(name in changed for name in names):
                options.update({name: given[name] for name in names})
        if "start_step" in changed:
            options["stop_step"] = None
        if "schedule" in changed:
            options["num_events"] = None
        options.update({name: given[name] for name in changed})
        config = replace(
            config,
            **{
                **options,
                "groups": tuple(options["groups"]),
                "coarse": FieldTargetConfig(**options["coarse"]),
                "fine": FieldTargetConfig(**options["fine"]),
            },
        )
        config.validate()
    config = resolve_steps(config, first_step, num_iterations)
    plan = resolve_plan(config, groups, initial)
    state.initial_sizes, state.plan, state.options = initial, plan, plan_options(config)
    return changed
