"""Resolves options into a plan: absolute steps and widths. Decides nothing about neurons."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Optional

from nerfstudio_prune.core.events import ScheduledEvent
from nerfstudio_prune.core.schedule import event_progress, event_steps, size_at
from nerfstudio_prune.nerf.config import FieldTargetConfig, FilledPruneConfig
from nerfstudio_prune.neurons.groups import NeuronGroup, match_groups

START_PERCENT, STOP_PERCENT = 15, 50
"""Of the run: where `start_step` and `stop_step` lie if they are not given."""
LEAST_PERCENT = 10
"""Of the run: what lies between the two at least if `stop_step` is not given."""


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
    start = config.start_step
    if start is None:
        start = max(first_step, num_iterations * START_PERCENT // 100)
    events = config.num_events or (1 if config.schedule == "one-shot" else 4)
    stop = config.stop_step
    if stop is None:
        stop = num_iterations * STOP_PERCENT // 100
        if stop - start < max(events - 1, num_iterations * LEAST_PERCENT // 100):
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
