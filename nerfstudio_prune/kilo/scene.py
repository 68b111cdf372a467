"""The scene of a run, as another one is to see it."""

from copy import deepcopy
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.cameras.cameras import Cameras

SAME = 1e-4
"""Largest difference of two poses that count as one, in each of their numbers."""


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


def views_in_common(source: Any, cameras: Cameras) -> Optional[int]:
    """How many training views a run shares with another one, by their poses: none, and its space is another one.

    Args:
        source: Options of the data manager of the other run.
        cameras: Training cameras of the run.

    Returns:
        The number; None where the data of the other run cannot be read, for they may be gone.
    """
    parser = deepcopy(source.dataparser)
    parser.data = Path(source.data or parser.data)
    try:
        others = parser.setup().get_dataparser_outputs("train").cameras.camera_to_worlds
    except Exception:  # the host's parsers raise anything
        return None
    own = cameras.camera_to_worlds.flatten(1).cpu()
    return int((torch.cdist(own, others.flatten(1).cpu(), p=torch.inf) < SAME).any(dim=1).sum())
