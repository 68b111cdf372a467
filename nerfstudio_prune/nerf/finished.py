"""How a network is cut that is trained no more: what it is judged by, and how a share of its size is asked for."""

from dataclasses import replace
from typing import Any

from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.targets import initial_widths, layer_units
from nerfstudio_prune.neurons.budget import cost_of

CALIBRATION = {"calibration_rays": 2048, "calibration_samples": 131_072}
"""Rays as the presets have them; four times as many samples as in a training, whose recovery makes up for what was not
seen."""
COARSE = {"coarse_colour_weight": 0.01, "coarse_error_weight": 0.003}
"""A training learns the coarse density by the coarse colours, and makes up for what the fine field lost. A picture
shows none of these colours, and the fine field as it is."""


def without_recovery(options: PruneConfig, pixels: int) -> PruneConfig:
    """Options with more calibration samples, where there are any: what is rarely seen counts too. Where layers of both
    fields compete for a budget, the coarse one gets less of it.

    Args:
        options: Options that are given.
        pixels: Pixels of the views that a cut is judged by.
    """
    filled = options.filled()
    if not filled.judged:
        return options
    ours = dict(CALIBRATION) if pixels >= CALIBRATION["calibration_rays"] else {}
    ours |= COARSE if filled.budgets else {}
    return replace(options, **{**ours, **options.given()})


def sized(subject: Subject[Any], options: PruneConfig, share: float) -> PruneConfig:
    """Options with a budget of parameters.

    Args:
        subject: Neurons of a network.
        options: Options without a target.
        share: Share of the present parameters that stays, in (0, 1).

    Raises:
        ValueError: If the smallest widths have more.
    """
    model: PruneModel = subject.model  # type: ignore[attr-defined]
    groups, (_, units, biases) = model.neuron_groups(), layer_units(model, "target_parameters")
    present = cost_of(groups, {group.name: group.width for group in groups}, units, biases)
    found = replace(options, target_parameters=share * present / cost_of(groups, initial_widths(model), units, biases))
    found.validate()
    subject.targets(found.filled().resolve())
    return found
