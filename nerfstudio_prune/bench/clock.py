"""What work of a device is timed by."""

import time
from collections.abc import Callable
from functools import partial

import torch

from nerfstudio_prune.engine.machine import seconds_now
from nerfstudio_prune.records.schema import Clock


def clock_of(device: torch.device) -> tuple[Clock, Callable[[], float]]:
    """The steadiest clock for a device, in seconds.

    With one thread on a CPU it is the processor time of this process, which does not see what else the machine does.
    With several threads that would count their idling, and on a GPU it says nothing: there it is the wall clock.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return "processor", time.process_time
    return "wall", wall_clock(device)


def wall_clock(device: torch.device) -> Callable[[], float]:
    """Wall-clock time in seconds, read when all work on the device is done."""
    return partial(seconds_now, device)
