"""One event on a run that is not trained, by the controller of a training."""

from dataclasses import replace
from typing import Any, Optional

from nerfstudio_prune.apply.opened import Opened
from nerfstudio_prune.apply.quality import Drop, Noted
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.resuming import update_plan
from nerfstudio_prune.engine.run import PruneRun


def seed_of(opened: Opened, options: Any) -> int:
    """Seed of a run with other options.

    Args:
        opened: The run.
        options: Options of the cut.
    """
    return opened.config.machine.seed if options.seed is None else options.seed


def cut(opened: Opened, options: Any) -> Optional[Drop]:
    """Cuts a run, as a training does at the end of a step: the step of the checkpoint, whose weights these are.

    A plan that the run had is replaced by this one event; its history stays.

    Args:
        opened: The run; model, optimizers and pruning state become others.
        options: Options of the cut; what is not given is the preset's.

    Returns:
        What it cost; None where that is not known.

    Raises:
        ValueError: If the cut is impossible or would remove nothing. Nothing is to be done with the run then.
    """
    step, state = opened.checkpoint.step, opened.model.prune_state
    once = opened.subject_of(options.filled()).at_once(options)
    once = replace(once, schedule="one-shot", num_events=1, start_step=step)
    # What is asked for is all there is; options of the former plan would else be taken up.
    state.options, state.given = {}, None
    in_force, _ = update_plan(state, once, opened.subject_of, step, 1)
    recipe = in_force.resolve()
    if not recipe.prunes:
        raise ValueError("prune.strategy none removes nothing; choose another one")
    if recipe.recovery == "rewind" and not state.rewind_snapshot:
        raise ValueError(
            "prune.recovery rewind takes weights of an earlier step, and the checkpoint has none; use continue or "
            "retrain"
        )
    subject = opened.subject_of(in_force)
    earliest, reason = subject.earliest()
    if step < earliest:
        raise ValueError(
            f"the checkpoint of step {step:,} is not to be cut yet: {reason}. Train it to step {earliest:,}"
        )
    absent = type(options)().stored()
    state.given = {name: value for name, value in options.stored().items() if value != absent[name]}
    run = PruneRun(
        subject,
        opened.optimizers,
        in_force,
        recipe,
        seed_of(opened, options),
        step,
        1,
        without_effect=in_force.without_effect(options.names_given()),
    )
    known = len(state.history)
    measure = Noted(opened.held_out)
    controller = PruneController(run, measure, lambda: 0, opened.listeners(run))
    controller.on_step(step)
    if len(state.history) == known:
        raise ValueError("nothing is left to remove for this target: it is reached already")
    return measure.drop
