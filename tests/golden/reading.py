"""The one place of these tests that knows how the package stores and does things.

Runs and tests here speak of a run in plain values only: what is read goes through `history_of` and its neighbours, and
what is asked of a run goes through the functions below them. When the package stores something in another form, this
file is what follows; recorded hashes and saved runs stay as they are.
"""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Optional

from nerfstudio_prune.core.curve import TrainingCurve
from nerfstudio_prune.nerf.config import FieldTargetConfig
from nerfstudio_prune.nerf.teacher.config import TeacherConfig


def plain(value: Any) -> Any:
    """A value of options or records in a form in which equal things are equal: sorted keys, lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def plain_scheduled(event: Any) -> Optional[dict[str, Any]]:
    """An event that was planned: when, how far, and to which sizes; None for one by hand."""
    if event is None:
        return None
    return {"step": event.step, "progress": float(event.progress), "targets": plain(event.targets)}


def plain_event(event: Any) -> dict[str, Any]:
    """An event that happened, without what a clock says. One that failed has empty sizes, 0 parameters and MACs."""
    return {
        "step": event.step,
        "scheduled": plain_scheduled(event.scheduled),
        "strategy": event.strategy,
        "recovery": event.recovery,
        "options": plain(event.options),
        "sizes": [plain(sizes.parts) for sizes in (event.before, event.after)],
        "parameters": [sizes.costs.get("parameters", 0) for sizes in (event.before, event.after)],
        "macs_per_ray": [sizes.costs.get("macs_per_ray", 0) for sizes in (event.before, event.after)],
        "metrics": [plain(event.metrics_before), plain(event.metrics_after)],
        "error": event.error,
    }


def history_of(model: Any) -> list[dict[str, Any]]:
    """Events that happened or failed, oldest first."""
    return [plain_event(event) for event in model.prune_state.history]


def plan_of(model: Any) -> list[dict[str, Any]]:
    """Events of the plan, those that happened included."""
    return [plain(plain_scheduled(event)) for event in model.prune_state.plan]


def events_of(model: Any) -> dict[str, Any]:
    """Everything about pruning that is plain: what happened, what is planned, and what it follows from."""
    state = model.prune_state
    return {
        "history": history_of(model),
        "plan": plan_of(model),
        "pending": [event.step for event in state.pending],
        "phase": state.phase,
        "initial_sizes": plain(state.initial_sizes),
        "options": plain(state.options),
    }


def widths_of(model: Any) -> dict[str, int]:
    """Name of each layer whose neurons can be pruned -> how many it has."""
    return {group.name: group.width for group in model.neuron_groups()}


def living_edges_of(model: Any) -> dict[str, int]:
    """Name of each masked parameter -> weights that live."""
    return {name: int(mask.sum()) for name, mask in sorted(model.prune_state.masks.items())}


def given_of(config: Any) -> dict[str, Any]:
    """Options of pruning that a configuration of a run gives: name -> value; groups of options as mappings.

    Raises:
        ValueError: If they contradict each other.
        TypeError: If one of them is none that this version knows.
    """
    prune = config.pipeline.prune
    type(prune)(**vars(prune)).validate()
    values = {name: _given(value) for name, value in vars(prune).items()}
    return plain({name: value for name, value in values.items() if value not in (None, {})})


def _given(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return {name: part for name, part in vars(value).items() if part is not None}


def field_target(**options: Any) -> Any:
    """Value of the options `coarse` and `fine`."""
    return FieldTargetConfig(**options)


def teacher(**options: Any) -> Any:
    """Value of the option `teacher`."""
    return TeacherConfig(**options)


def watch(trainer: Any) -> None:
    """Has a person look on, as an open viewer does: only then is the network before an event kept for an undo."""
    controller = trainer.pipeline.controller
    controller._watched, controller.curve = True, TrainingCurve()


def ask(trainer: Any, name: str, **cut: Any) -> None:
    """Queues a request by hand, as the viewer's panel does.

    Args:
        trainer: Trainer of the run.
        name: `prune`, `undo` or `retarget`.
        cut: For `prune` and `retarget`: strategy, score, refit, target (the option's name), value and, if it is not 1,
            recovery_lr_factor.
    """
    values = {"lr_factor": cut.pop("recovery_lr_factor", 1.0), **cut} if cut else None
    trainer.pipeline.steering.request(name, values)


def refused(trainer: Any) -> str:
    """Why the last request by hand was refused; empty if it was not."""
    message = trainer.pipeline.steering.message
    return message.text if message.error else ""


def pause(trainer: Any, paused: bool) -> None:
    """Lets planned events wait, or not any more."""
    trainer.pipeline.controller.run.paused = paused
