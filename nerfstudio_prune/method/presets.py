"""Recipes: values for the options of pruning that are not given. The README has the measurements behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PresetName = Literal["paper", "fast", "best", "tiny"]

BUDGETS = ("target_parameters", "target_macs", "target_mb")
"""Options that give a budget instead of widths."""
TARGETS = ("width", "head_width", "pruning_ratio", "group_widths", *BUDGETS)
"""Options that say how far to prune; one that is given takes the place of a preset's."""


@dataclass(frozen=True)
class Preset:
    """What an option that is not given becomes."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Option -> value; the others have their defaults."""
    start_percent: int = 15
    """`start_step`, in percent of the run."""
    stop_percent: int = 50
    """`stop_step`, in percent of the run."""

    def fill(self, given: Mapping[str, Any], target_given: bool) -> dict[str, Any]:
        """The preset's options that do not contradict what is given.

        Args:
            given: Option -> value, of all that are given.
            target_given: Whether they say how far to prune.
        """
        if given.get("strategy") in ("edge", "none"):
            return {}
        left_out = set(given)
        if target_given:
            left_out |= set(TARGETS)
        if given.get("recovery") in ("rewind", "scratch"):
            left_out.add("refit")
        if "schedule" in given:
            left_out.add("num_events")
        if "recovery_lr" in given:
            left_out.add("recovery_lr_factor")
        return {name: value for name, value in self.options.items() if name not in left_out}


_OURS = {"strategy": "obs", "refit": "lstsq", "recovery_lr_factor": 2.0}
_GRADUAL = {"schedule": "cubic", "num_events": 5}

PRESETS: dict[PresetName, Preset] = {
    "paper": Preset(),
    "fast": Preset({**_OURS, "target_macs": 0.28}),
    "best": Preset({**_OURS, **_GRADUAL, "target_parameters": 0.28}),
    "tiny": Preset({**_OURS, **_GRADUAL, "target_parameters": 0.12}),
}
"""Name -> recipe. `paper` leaves every option at its default, and those are Algorithm 1 of Ding et al. 2025."""
