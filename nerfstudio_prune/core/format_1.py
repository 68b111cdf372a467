"""Format 1 of the pruning state, which told planned events by equality, shares as floats, and named neurons' own
costs."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any


def from_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """A pruning state as format 2 has it.

    Args:
        values: The state in format 1.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, OverflowError: If it is no state of format 1.
    """
    plan = list(values["plan"])
    rest = {name: value for name, value in values.items() if name != "edge_masks"}
    return {
        **rest,
        "plan": [_scheduled_from_format_1(event, index) for index, event in enumerate(plan)],
        "history": [event_from_format_1(event, plan) for event in values["history"]],
        "masks": values["edge_masks"],
    }


def event_from_format_1(event: Mapping[str, Any], plan: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An event of a history as format 2 has it.

    Args:
        event: The event in format 1.
        plan: Planned events in format 1, for the index of the one that the event carried out.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, OverflowError: If it is no event of format 1.
    """
    event = dict(event)
    for when in ("before", "after"):
        costs = {name: event.pop(f"{name}_{when}") for name in ("parameters", "macs_per_ray")}
        sizes = {"parts": event.pop(f"sizes_{when}"), "costs": costs}
        event[when] = {} if event["error"] else sizes
    old = event["scheduled"]
    if old is not None:
        event["scheduled"] = _scheduled_from_format_1(old, plan.index(old) if old in plan else -1)
    return event


def _scheduled_from_format_1(event: Mapping[str, Any], index: int) -> dict[str, Any]:
    # The shares of a cubic schedule have the cube of the number of events below the line.
    share = Fraction(event["progress"]).limit_denominator(5 * 10**7)
    return {
        "index": index,
        "step": event["step"],
        "share": [share.numerator, share.denominator],
        "targets": event["targets"],
    }
