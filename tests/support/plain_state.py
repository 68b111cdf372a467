"""What is known of a run's pruning, as plain values that no change of the package's own classes changes."""

from collections.abc import Mapping
from typing import Any, Optional


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


def plain_state(state: Any) -> dict[str, Any]:
    """Everything about pruning that is plain: what happened, what is planned, and what it follows from."""
    return {
        "history": [plain_event(event) for event in state.history],
        "plan": [plain_scheduled(event) for event in state.plan],
        "pending": [event.step for event in state.pending],
        "phase": state.phase,
        "initial_sizes": plain(state.initial_sizes),
        "options": plain(state.options),
    }
