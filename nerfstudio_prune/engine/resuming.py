"""Makes the plan of a run, or takes up the one of a resumed run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from nerfstudio.engine.optimizers import Optimizers

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.checks import check_recovery_rate
from nerfstudio_prune.engine.options import PREFIX, PruneOptions
from nerfstudio_prune.engine.planning import resolve_plan, resolve_steps
from nerfstudio_prune.engine.run import PruneRun

SubjectOf = Callable[[Any], Subject[Any]]
"""Gives what is pruned under some options."""


def take_up(
    state: PruneState,
    options: PruneOptions,
    subject_of: SubjectOf,
    optimizers: Optimizers,
    seed: int,
    first_step: int,
    num_iterations: int,
    defaults: Optional[PruneOptions] = None,
) -> PruneRun:
    """Makes a run of a state, fresh or loaded, and options, given or registered.

    Args:
        state: Pruning state of the model; changed only if the options give a plan.
        options: Options of this run.
        subject_of: Gives what is pruned under some options.
        optimizers: The host's optimizers over the model's parameters.
        seed: Seed of the run, unless an option gives another one.
        first_step: First training step of this run.
        num_iterations: Steps that this run takes.
        defaults: Options of the method as registered, which count as not given. None: nothing does.

    Raises:
        ValueError: If the options do not give a plan, there are no weights to rewind to, or the state is of a later
            step than the run.
    """
    _check_history(state, type(options), first_step)
    resumed = bool(state.options)
    in_force, changed = update_plan(state, options, subject_of, first_step, num_iterations, defaults)
    recipe, subject = in_force.resolve(), subject_of(in_force)
    check_recovery_rate("recovery_lr_factor", recipe.recovery_lr_factor, optimizers)
    check_recovery_rate("recovery_lr_rewind", recipe.recovery_lr_rewind or 1.0, optimizers)
    _check_start(state, subject)
    subject.set_buffers({name: tensor.to(subject.device) for name, tensor in subject.buffers().items()})
    if recipe.recovery == "rewind" and state.pending and not state.rewind_snapshot:
        first_event = state.pending[0].step
        if not first_step <= recipe.rewind_step < first_event:
            raise ValueError(
                f"prune.rewind_step must lie between the first step of the run, {first_step}, and the first "
                f"event at step {first_event}, and no earlier snapshot is in the checkpoint; got {recipe.rewind_step}"
            )
    origin = ""
    if changed:
        origin = f" (that of the checkpoint is replaced; given again: {', '.join(changed)})"
    elif resumed:
        origin = " (taken up from the checkpoint; options that are given again replace it)"
    seed = seed if recipe.seed is None else recipe.seed
    idle = in_force.without_effect(options.typed().names_given(defaults))
    return PruneRun(subject, optimizers, in_force, recipe, seed, first_step, num_iterations, origin, idle)


def _check_start(state: PruneState, subject: Subject[Any]) -> None:
    """Checks that no event comes before the model can be cut.

    Raises:
        ValueError: Names the step and the first one that is possible.
    """
    pending, (earliest, reason) = state.pending, subject.earliest()
    if pending and pending[0].step < earliest:
        raise ValueError(
            f"prune.start_step {pending[0].step} comes too early: {reason}; the first step at whose end an event may "
            f"happen is {earliest}"
        )


def _check_history(state: PruneState, kind: type[PruneOptions], first_step: int) -> None:
    """Checks that rates and schedules can go on from the events that happened.

    Raises:
        ValueError: Names the event.
    """
    for event in state.history:
        if event.step >= first_step:
            raise ValueError(
                f"the checkpoint's history has an event at step {event.step}, and the run goes on at step "
                f"{first_step}; step and pruning state are not of one checkpoint"
            )
        try:
            kind.from_plain(event.options).check_rules(PREFIX)
        except ValueError as error:
            raise ValueError(f"the checkpoint's event at step {event.step}: {error}") from error


def update_plan(
    state: PruneState,
    options: PruneOptions,
    subject_of: SubjectOf,
    first_step: int,
    num_iterations: int,
    defaults: Optional[PruneOptions] = None,
) -> tuple[PruneOptions, list[str]]:
    """Makes the plan of a run, or takes up the one of a resumed run.

    A stored plan holds, with all the options it follows from and is carried out with, unless one of them is given
    again with another value. Then the options that were given earlier and do not contradict it still hold, and
    the preset fills the rest anew.

    Args:
        state: Pruning state, fresh or loaded; changed only if all is well.
        options: Options of this run.
        subject_of: Gives what is pruned under some options.
        first_step: First training step of this run.
        num_iterations: Steps that this run takes.
        defaults: Options of the method as registered, which count as not given. None: nothing does.

    Returns:
        The options in force, and the names of those that changed a stored plan; none for a first start.

    Raises:
        ValueError: If the options do not give a plan.
    """
    kind, options = type(options), options.typed()
    absent, own = kind().stored(), options.stored()
    given = {name: value for name, value in own.items() if value != absent[name]}
    stored: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    changed: list[str] = []
    if state.options:
        known = kind.checked(state.options)
        stored = kind.completed(known)
        earlier = kind.completed_given(known) if state.given is None else kind.checked(state.given)
        again = _given_again(kind, own, (defaults or kind()).stored(), stored)
        changed = [name for name, value in again.items() if value != stored[name]]
        if "preset" in again and stored["strategy"] == "none" and "strategy" not in again:
            # Nothing has been planned by that preset so far.
            changed = list(dict.fromkeys(["preset", *changed]))
        if not changed:
            in_force = options.with_stored(stored)
            in_force.validate()
            return in_force, []
        given, steps = _merged(kind, earlier, given, again, changed, stored)
    in_force = options.with_stored(given)
    if steps and in_force.schedule != stored["schedule"]:
        steps.pop("num_events", None)
    in_force = replace(in_force, **steps)
    in_force.validate()
    plan = []
    initial = state.initial_sizes or subject_of(in_force).initial_parts()
    if in_force.resolve().prunes:
        in_force = resolve_steps(in_force, first_step, num_iterations, subject_of(in_force).earliest()[0])
        values = in_force.stored()
        aim = {name: values[name] for name in kind.aims}
        plan = state.numbered(resolve_plan(in_force.resolve(), subject_of(in_force), initial), aim)
    state.initial_sizes, state.plan, state.options, state.given = initial, plan, in_force.stored(), given
    state.memory = {}  # it was about another plan
    return in_force, changed


def _merged(
    kind: type[PruneOptions],
    earlier: Mapping[str, Any],
    given: Mapping[str, Any],
    again: Mapping[str, Any],
    changed: Sequence[str],
    stored: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given now of a resumed run, and the resolved steps of the stored plan that still hold.

    Args:
        kind: Class of the options.
        earlier: Options that were given earlier.
        given: Options of this run, the method's own included.
        again: Those of them that are given again.
        changed: Those of these that are not as stored.
        stored: Options in force so far.
    """
    dropped = {follower for name in changed for follower in kind.replaced(name, again.get(name))}
    still = {name: value for name, value in earlier.items() if name not in dropped}
    own = {name: value for name, value in given.items() if name in dropped}
    merged = {**still, **own, **again}
    if "preset" in changed or stored["strategy"] == "none":
        return merged, {}
    return merged, {name: stored[name] for name in kind.steps if name not in dropped and merged.get(name) is None}


def _given_again(
    kind: type[PruneOptions], own: Mapping[str, Any], registered: Mapping[str, Any], stored: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of a resumed run that are neither absent nor the method's own."""
    absent = kind().stored()
    registered = {**absent, **registered}  # a method may be registered with options of a base class
    again = {name: value for name, value in own.items() if value not in (absent[name], registered[name])}
    for group in kind.merged:
        parts = {k: v for k, v in own[group].items() if v is not None and v != registered[group][k]}
        again.pop(group, None)
        if parts:
            again[group] = {**stored[group], **parts}
    return again
