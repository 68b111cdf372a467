"""The scene of a run, as another one is to see it."""

from copy import deepcopy
from pathlib import Path
from typing import Any


def same_scene(source: Any, target: Any) -> None:
    """Lets a run see the scene of another one: its parser with all options, the scale of its pictures, and which of
    their pixels count. How many rays are drawn is its own.

    Args:
        source: Options of a data manager of the host.
        target: Those that are changed.
    """
    target.dataparser = deepcopy(source.dataparser)
    # The host takes the first, an alias, where both are given.
    target.dataparser.data = Path(source.data or source.dataparser.data)
    target.data = None
    target.camera_res_scale_factor = source.camera_res_scale_factor
    # All else in these options is found in the cameras, and is no plain value any more when a data manager was there.
    target.pixel_sampler.ignore_mask = source.pixel_sampler.ignore_mask
