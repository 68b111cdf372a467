"""A cut on a copy of the network: what it would leave, and what it would look like."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor

from nerfstudio_prune.method.calibration import Calibration
from nerfstudio_prune.method.choosing import layer_scores, plan_event, whole_cut, widths_at
from nerfstudio_prune.method.config import FilledPruneConfig
from nerfstudio_prune.method.model import FIELDS, PruneModel
from nerfstudio_prune.method.sizes import Sizes, sizes_of
from nerfstudio_prune.neurons.pruner import check_finite
from nerfstudio_prune.neurons.samples import Samples


@dataclass(frozen=True, eq=False)
class Preview:
    """A network as it would be right after a cut."""

    step: int
    """Training step whose weights were cut."""
    model: PruneModel
    """The cut network, for rendering."""
    before: Sizes
    """Sizes of the network as it is."""
    after: Sizes
    """Sizes of the cut one."""
    score_name: Optional[str]
    """Score that `scores` are; None for a rule without one."""
    scores: Mapping[str, Tensor]
    """Name of the group -> score of each of its neurons before the cut, on the CPU."""
    seconds: float
    """What it took."""


def preview_cut(
    config: FilledPruneConfig,
    model: PruneModel,
    calibrate: Callable[[Calibration, int], Mapping[str, Samples]],
    lock: AbstractContextManager[object],
    step: int,
    seed: int,
) -> Preview:
    """Cuts a copy of the fields exactly as an event at that step would cut them.

    The model is looked at only while the lock is held, to copy its weights and to collect samples. The choice itself
    takes longer and is made on the copy, so that the training goes on meanwhile.

    Args:
        config: Options of the cut, validated.
        model: The model as it is trained.
        calibrate: Collects calibration samples for a seed.
        lock: The trainer's lock.
        step: Training step.
        seed: Seed of the event.

    Raises:
        ValueError: If the cut is impossible.
    """
    start = time.perf_counter()
    if model.device.type == "cpu":
        # The flag belongs to the thread, and this is not the trainer's.
        torch.set_flush_denormal(True)
    with lock:
        fields = {name: deepcopy(getattr(model, name)).requires_grad_(False) for name in FIELDS}
        samples = calibrate(config.make_calibration(), seed) if config.needs_samples else None
        copy = model.with_fields(fields)
        copy.prune_state = replace(model.prune_state)
    check_finite(copy.neuron_groups())
    before = sizes_of(copy, {})
    score_name, scores = layer_scores(config, copy, samples)
    aim = whole_cut(config, copy, step)
    plan_event(config, copy, None, aim, widths_at(config, copy, aim, samples), samples, seed).apply()
    copy.sync_widths()
    return Preview(step, copy, before, sizes_of(copy, {}), score_name, scores, time.perf_counter() - start)
