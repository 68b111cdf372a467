"""How a network is cut that is trained no more: what it is judged by, and how a share of its size is asked for."""

from dataclasses import replace
from typing import Any

from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.targets import initial_widths, layer_units
from nerfstudio_prune.neurons.budget import cost_of

CALIBRATION = {"calibration_rays": 2048, "calibration_samples": 131_072}
"""Four times as much as in a training, whose recovery makes up for what was not seen."""


def without_recovery(options: PruneConfig, pixels: int) -> PruneConfig:
    """Options with more calibration samples, where there are any: what is rarely seen counts too.

    Args:
        options: Options that are given.
        pixels: Pixels of the views that a cut is judged by.
    """
    if not options.filled().judged or pixels < CALIBRATION["calibration_rays"]:
        return options
    given = options.given()
    return replace(options, **{name: given.get(name, value) for name, value in CALIBRATION.items()})


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
