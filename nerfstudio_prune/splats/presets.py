"""Recipes: values for the options of pruning Gaussians that are not given. docs/splats.md has the measurements."""

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["best", "paper", "tiny"]

TARGETS = ("pruning_ratio", "target_gaussians", "target_mb", "max_psnr_drop")
"""Options that say how far to prune; one that is given takes the place of a preset's."""

_OURS = {"score": "removal", "rounds": 6, "recovery": "retrain", "recovery_lr_rewind": 1.0}

PRESETS: dict[PresetName, Mapping[str, Any]] = {
    "best": {**_OURS, "pruning_ratio": 0.66, "sh_degree": 2},
    "paper": {"score": "significance", "rounds": 1, "pruning_ratio": 0.66, "sh_degree": 2, "distil.target": "teacher"},
    "tiny": {**_OURS, "pruning_ratio": 0.85, "sh_degree": 1},
}
"""Name -> option -> value. `paper` is LightGaussian's rule and order (arXiv 2311.17245, sections 3.2 and 3.3)."""


def preset_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a preset that do not contradict what is given; those of a group within by dotted names.

    Args:
        name: Name of the preset.
        given: Option -> value, of all that are given.

    Raises:
        ValueError: If there is no preset of that name; lists the names.
    """
    if name not in PRESETS:
        raise ValueError(f"prune.preset must be one of {', '.join(PRESETS)}, got {name!r}")
    if given.get("strategy") == "none":
        return {}
    left_out = set(given)
    if left_out & set(TARGETS):
        left_out |= set(TARGETS)
    if given.get("strategy", "rank") != "rank":
        left_out |= {"score", "rounds"}
    return {option: value for option, value in PRESETS[name].items() if option not in left_out}
