"""Module-level state of the host, for processes in which several trainings run one after the other."""

import random

import numpy as np
import torch
from nerfstudio.utils import profiler, writer


def reset_host() -> None:
    """Forgets what the host's writers and profilers leave behind."""
    for event_writer in writer.EVENT_WRITERS:
        if hasattr(event_writer, "tb_writer"):
            event_writer.tb_writer.close()
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    writer.GLOBAL_BUFFER.clear()
    profiler.PROFILER.clear()


def seed_host(seed: int) -> None:
    """Seeds all generators that a training draws from, as `ns-train` does."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the host's samplers use the global state
    torch.manual_seed(seed)
