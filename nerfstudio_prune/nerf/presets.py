"""Recipes: values for the options of pruning that are not given. docs/presets.md has the measurements behind them."""

from collections.abc import Mapping
from typing import Any, Literal

from nerfstudio_prune.neurons.strategies import EDGE

PresetName = Literal["paper", "fast", "best", "tiny"]

BUDGETS = ("target_parameters", "target_macs", "target_mb")
"""Options that give a budget instead of widths."""
TARGETS = ("width", "head_width", "pruning_ratio", "group_widths", *BUDGETS)
"""Options that say how far to prune; one that is given takes the place of a preset's."""

HALF = 0.5
"""Share that leaves every layer where nothing says how far, the preset neither."""

_OURS = {"strategy": "obs", "refit": "lstsq", "calibration_rays": 2048}

PRESETS: dict[PresetName, Mapping[str, Any]] = {
    "paper": {},
    "fast": {**_OURS, "target_macs": 0.15},
    "best": {**_OURS, "target_parameters": 0.28, "start_fraction": 0.6},
    "tiny": {**_OURS, "target_parameters": 0.1, "schedule": "cubic", "num_events": 5},
}
"""Name -> option -> value. `paper` leaves all options at their defaults: those are Algorithm 1 of Ding et al. 2025."""


def preset_options(name: PresetName, given: Mapping[str, Any], target_given: bool) -> dict[str, Any]:
    """The options of a preset that do not contradict what is given.

    Args:
        name: Name of the preset.
        given: Option -> value, of all that are given.
        target_given: Whether they say what to prune, or how far.

    Raises:
        ValueError: If there is no preset of that name; lists the names.
    """
    if name not in PRESETS:
        raise ValueError(f"prune.preset must be one of {', '.join(PRESETS)}, got {name!r}")
    if given.get("strategy") == "none":
        return {}
    preset = PRESETS[name]
    if given.get("strategy") == EDGE:
        # Which neurons, and how many, means nothing there; when does.
        preset = {option: value for option, value in preset.items() if option == "start_fraction"}
    left_out = set(given)
    if target_given:
        left_out.update(TARGETS)
    if given.get("recovery") in ("rewind", "scratch") or given.get("coreset_variant") == "mussay":
        # Both have new weights of their own.
        left_out.add("refit")
    if given.get("schedule", preset.get("schedule")) != preset.get("schedule"):
        left_out.add("num_events")
    return {option: value for option, value in preset.items() if option not in left_out}
