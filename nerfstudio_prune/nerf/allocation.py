"""From a budget for both fields to the widths of their layers."""

from collections.abc import Mapping
from dataclasses import dataclass

from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.budget import allocate_widths, allowed_widths, cost_of
from nerfstudio_prune.neurons.curves import error_curves
from nerfstudio_prune.neurons.groups import linears, match_groups
from nerfstudio_prune.neurons.samples import Samples

BYTES = 4
"""Of a weight in the fields as they are trained."""


@dataclass(frozen=True)
class Budget:
    """What the fields may cost."""

    option: str
    """The option that says so, with its value."""
    unit: str
    """What is counted."""
    initial: float
    """Cost before the first event."""
    target: float
    """Largest cost after the last event."""
    units: Mapping[str, int]
    """Module path of each layer -> cost of one weight."""
    count_bias: bool
    """Whether biases cost anything."""

    def at(self, progress: float) -> float:
        """Largest cost when a share of the whole cut is done."""
        return self.initial - (self.initial - self.target) * progress


def budget_of(config: FilledPruneConfig, model: PruneModel) -> Budget:
    """Reads the budget off the options.

    Raises:
        ValueError: If even the smallest widths cost more.
    """
    groups = model.neuron_groups()
    layers = list(linears(groups))
    name, value = config.budget_option
    unit, count_bias, units = "parameters", True, dict.fromkeys(layers, 1)
    if name == "target_macs":
        unit, count_bias = "MACs per ray", False
        units = {layer: model.samples_per_ray(layer.split(".")[0]) for layer in layers}
    elif name == "target_mb":
        unit, units = "bytes", dict.fromkeys(layers, BYTES)
    initial = cost_of(groups, model.prune_state.initial_sizes, units, count_bias)
    target = value * 1e6 if name == "target_mb" else value * initial
    budget = Budget(f"prune.{name} {value:g}", unit, initial, target, units, count_bias)
    least = cost_of(groups, {n: widths[0] for n, widths in _choices(config, model).items()}, units, count_bias)
    if least > target:
        raise ValueError(
            f"{budget.option}: allows {target:,.0f} {unit}, and the smallest widths already take {least:,.0f}; raise "
            "it, lower min_width or round_to, or let more groups be pruned"
        )
    return budget


def allocate(
    config: FilledPruneConfig, model: PruneModel, samples: Mapping[str, Samples], progress: float
) -> dict[str, int]:
    """Shares the budget out over the layers of both fields, by what their errors would be.

    Args:
        config: Options with a budget.
        model: The model as it is.
        samples: Calibration samples of both fields.
        progress: Share of the whole cut that is to be done, in (0, 1].

    Returns:
        Name of the group -> width, for the groups that may be pruned.
    """
    groups = model.neuron_groups()
    budget = budget_of(config, model)
    errors = {}
    for name, curve in error_curves(groups, samples, config.refit_ridge).items():
        factor = config.coarse_error_weight if name.startswith("field_coarse.") else 1.0
        errors[name] = (curve * factor).tolist()
    choices = _choices(config, model)
    return allocate_widths(groups, errors, choices, budget.units, budget.at(progress), budget.count_bias, budget.option)


def _choices(config: FilledPruneConfig, model: PruneModel) -> dict[str, list[int]]:
    chosen = match_groups(model.neuron_groups(), config.groups, "prune.groups")
    return {group.name: allowed_widths(group.width, config.min_width, config.round_to) for group in chosen}
