"""A cut on a copy of the network: what it would leave, and what it would look like."""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Optional

import torch
from torch import Tensor

from nerfstudio_prune.nerf.calibration import Calibration
from nerfstudio_prune.nerf.choosing import layer_scores, plan_event, whole_cut, widths_at
from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.sizes import Sizes, sizes_of
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


@dataclass(frozen=True, eq=False)
class Draft:
    """A copy of the network, and what a cut of it needs."""

    config: FilledPruneConfig
    """Options of the cut."""
    model: PruneModel
    """Copy of the network; its pruning state is its own."""
    samples: Optional[Mapping[str, Samples]]
    """Calibration samples, where they are needed."""
    step: int
    """Training step whose weights these are."""
    seed: int
    """Seed of an event at that step."""
    seconds: float
    """What it took."""


def take_draft(
    config: FilledPruneConfig,
    model: PruneModel,
    calibrate: Callable[[Calibration, int], Mapping[str, Samples]],
    step: int,
    seed: int,
) -> Draft:
    """Copies the weights and collects samples. To be called with the trainer's lock held, and with nothing but it.

    Args:
        config: Options of the cut, validated.
        model: The model as it is trained.
        calibrate: Collects calibration samples for a seed.
        step: Training step that has just ended.
        seed: Seed of an event at that step.
    """
    start = time.perf_counter()
    if model.device.type == "cpu":
        # The flag belongs to the thread, and this is not the trainer's.
        torch.set_flush_denormal(True)
    copy = model.with_fields({name: deepcopy(getattr(model, name)).requires_grad_(False) for name in FIELDS})
    copy.prune_state = replace(model.prune_state)
    samples = calibrate(config.make_calibration(), seed) if config.needs_samples else None
    return Draft(config, copy, samples, step, seed, time.perf_counter() - start)


def cut_draft(draft: Draft) -> Preview:
    """Cuts the copy exactly as an event would. That takes longer than to make it; the training goes on meanwhile.

    Args:
        draft: The copy; it is used up.

    Raises:
        ValueError: If the cut is impossible.
    """
    start = time.perf_counter()
    config, copy, samples = draft.config, draft.model, draft.samples
    check_finite(copy.neuron_groups())
    before = sizes_of(copy, {})
    score_name, scores = layer_scores(config, copy, samples)
    aim = whole_cut(config, copy, draft.step)
    plan_event(config, copy, None, aim, widths_at(config, copy, aim, samples), samples, draft.seed).apply()
    copy.sync_widths()
    seconds = draft.seconds + time.perf_counter() - start
    return Preview(draft.step, copy, before, sizes_of(copy, {}), score_name, scores, seconds)
