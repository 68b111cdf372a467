"""Records of schema 1, which named neurons' own sizes and costs, and those of a layer by position."""

from collections.abc import Mapping
from typing import Any

from nerfstudio_prune.core.format_1 import event_from_format_1
from nerfstudio_prune.records.schema import PART_COSTS


def from_schema_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a record of schema 1 as schema 2 has it.

    Args:
        values: Content of the file, of either kind.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: If it is no record of schema 1.
    """
    values = {**values, "schema_version": 2}
    if values["kind"] == "speed":
        for name in ("dense", "pruned"):
            values[name] = {**values[name], "sizes": _size(values[name]["sizes"])}
        return values
    values["stages"] = [{**stage, "sizes": _size(stage["sizes"])} for stage in values["stages"]]
    # The plan is not recorded; what was carried out of it stands in the order that it was planned in.
    plan: list[Any] = []
    for event in values["history"]:
        if event["scheduled"] is not None and event["scheduled"] not in plan:
            plan.append(event["scheduled"])
    values["history"] = [event_from_format_1(event, plan) for event in values["history"]]
    return values


def _size(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "parts": sizes["widths"],
        "costs": {name: sizes[name] for name in ("parameters", "nonzero", "macs_per_ray")},
        "part_costs": {name: dict(zip(PART_COSTS, costs, strict=True)) for name, costs in sizes["layers"].items()},
        "fields_mb": sizes["fields_mb"],
        "checkpoint_mb": sizes["checkpoint_mb"],
    }
