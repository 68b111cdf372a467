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
        return {name: value for name, value in self.options.items() if name not in left_out}


_SEEING = {"strategy": "obs", "refit": "lstsq"}

PRESETS: dict[PresetName, Preset] = {
    "paper": Preset(),
    "fast": Preset({**_SEEING, "target_macs": 0.28}),
    "best": Preset({**_SEEING, "target_parameters": 0.28, "schedule": "cubic", "num_events": 5}),
    "tiny": Preset({**_SEEING, "target_parameters": 0.12, "schedule": "cubic", "num_events": 5}),
}
"""Name -> recipe. `paper` leaves every option at its default, and those are Algorithm 1 of Ding et al. 2025."""
