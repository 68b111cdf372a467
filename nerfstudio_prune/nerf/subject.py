"""Neurons and single weights of radiance fields as what the engine prunes."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Optional

import torch
from rich.table import Table
from torch import Tensor, nn

from nerfstudio_prune.core.events import ScheduledEvent, Sizes
from nerfstudio_prune.core.form import Form
from nerfstudio_prune.core.subject import Optimizers, RecipeT, Subject
from nerfstudio_prune.nerf.form import NeuronForm
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.recipes import Calibration, EdgeRecipe, NeuronRecipe
from nerfstudio_prune.nerf.targets import (
    BYTES,
    allocate,
    allocation_table,
    budget_of,
    initial_widths,
    macs_per_weight,
    resolve_targets,
)
from nerfstudio_prune.neurons.budget import cost_of
from nerfstudio_prune.neurons.edges import apply_masks, edge_masks, same_masks
from nerfstudio_prune.neurons.groups import NeuronGroup, linears, match_groups, networks
from nerfstudio_prune.neurons.pruner import Pruning, check_finite, named_parameters, prepare_pruning
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.scores import needs_of, score_by_name
from nerfstudio_prune.neurons.selecting import select_neurons
from nerfstudio_prune.neurons.strategies import EDGE, Selection
from nerfstudio_prune.neurons.survey import scores_on_samples

Calibrate = Callable[[Calibration, int], Mapping[str, Samples]]
"""Collects calibration samples of all fields for a seed."""
Evidence = Optional[Mapping[str, Samples]]
"""Name of the field -> calibration samples; None where none are needed."""


@dataclass
class FieldChange:
    """A cut of a radiance field, ready to be applied."""

    model: PruneModel
    pruning: Pruning
    removes: bool
    report: Sequence[Any] = ()

    def apply(self) -> None:
        """Carries the cut out."""
        self.pruning.apply()
        self.model.sync_widths()
        state = self.model.prune_state
        state.masks, state.rewind_snapshot = self.pruning.masks, self.pruning.snapshot


class FieldSubject(Subject[RecipeT]):
    """What neurons and single weights have in common: the layers of a model's fields.

    Args:
        model: The model; its `prune_state` survives in checkpoints.
        calibrate: Collects calibration samples.
    """

    labels: Mapping[str, str] = MappingProxyType({"parameters": "parameters", "macs_per_ray": "MACs per ray"})

    def __init__(self, model: PruneModel, calibrate: Calibrate) -> None:
        self.model = model
        self.calibrate = calibrate

    @property
    def groups(self) -> list[NeuronGroup]:
        """Hidden layers of all fields."""
        return self.model.neuron_groups()

    @property
    def total(self) -> str:  # type: ignore[override]
        """What all layers together are called; with other trained networks, the temporal distortion say, those too."""
        only_fields = list(self.param_groups()) == ["fields"] and tuple(self.model.fields()) == FIELDS
        return "both fields" if only_fields else "whole model"

    def initial_parts(self) -> dict[str, int]:
        """Name of the group -> width before the first event."""
        return initial_widths(self.model)

    def part_costs(self) -> dict[str, dict[str, int]]:
        """Name of the layer -> parameters and multiply-accumulates per ray, read off the tensors."""
        costs = self.model.layer_costs()
        return {name: {"parameters": count, "macs_per_ray": macs} for name, (count, macs) in costs.items()}

    def place(self, part: str) -> tuple[str, str]:
        """Layer and field of a group."""
        (group,) = (group for group in self.groups if group.name == part)
        return group.layer.replace(".layers.", " "), group.network.removeprefix("field_")

    def summary(self, sizes: Sizes) -> list[tuple[str, str]]:
        """Parameters, operations and size in memory."""
        return [
            (self.counted, f"{sizes.costs['parameters']:,}"),
            ("MACs per ray", f"{sizes.costs['macs_per_ray'] / 1e6:,.2f} M"),
            ("MB in fp32", f"{BYTES * sizes.costs['parameters'] / 1e6:.2f}"),
        ]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Weights and biases of every layer that neurons touch."""
        return named_parameters(self.groups)

    def buffers(self) -> dict[str, Tensor]:
        """Masks of weights that are held at zero."""
        return dict(self.state.masks)

    def set_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Puts masks in place."""
        self.state.masks = dict(buffers)

    def check(self) -> None:
        """Checks that no weight is NaN or infinite.

        Raises:
            NonFiniteWeightsError: Names the first layer that has one.
        """
        check_finite(self.groups)

    def weights(self) -> dict[str, Tensor]:
        """Field -> all weights of its layers, without biases, on the CPU."""
        found: dict[str, Tensor] = {}
        for network, members in networks(self.groups):
            layers = linears(members).values()
            found[network.removeprefix("field_")] = torch.cat([w.weight.detach().cpu().flatten() for w in layers])
        return found

    def after_step(self) -> None:
        """Holds masked weights at zero."""
        if self.state.masks:
            apply_masks(self.parameters(), self.state.masks)

    def synced(self) -> None:
        """Brings the fields' own notes of their widths in line with the tensors."""
        self.model.sync_widths()

    def detached(self, device: Optional[torch.device] = None) -> "FieldSubject[RecipeT]":
        """A copy that no optimizer knows: fields of its own, samplers and renderers shared."""
        fields = {name: deepcopy(own).requires_grad_(False) for name, own in self.model.fields().items()}
        if device is not None:
            fields = {name: own.to(device) for name, own in fields.items()}
        model = self.model.with_fields(fields)
        model.prune_state = replace(self.state)
        return type(self)(model, self.calibrate)

    def _costs(self) -> dict[str, int]:
        counts, macs = zip(*self.model.layer_costs().values(), strict=True)
        return {"parameters": sum(counts), "macs_per_ray": sum(macs)}


class NeuronSubject(FieldSubject[NeuronRecipe]):
    """Neurons: whole rows and columns leave, and the network becomes faster."""

    unit = "width"

    @property
    def form(self) -> Form:
        """What a person may choose."""
        return NeuronForm(self.model)

    def sizes(self) -> Sizes:
        """Widths, and costs of the whole model."""
        return Sizes({group.name: group.width for group in self.groups}, self._costs())

    def initial_sizes(self) -> Sizes:
        """Widths and costs before the first event."""
        groups, widths = self.groups, self.initial_parts()
        now = self._costs()
        layers = linears(groups)
        present = {group.name: group.width for group in groups}

        def first(name: str, units: Mapping[str, int], count_bias: bool) -> int:
            """What is no part of a field costs what it costs."""
            less = cost_of(groups, widths, units, count_bias) - cost_of(groups, present, units, count_bias)
            return now[name] + round(less)

        costs = {
            "parameters": first("parameters", dict.fromkeys(layers, 1), True),
            "macs_per_ray": first("macs_per_ray", macs_per_weight(self.model), False),
        }
        return Sizes(widths, costs)

    def targets(self, recipe: NeuronRecipe) -> dict[str, int]:
        """Name of the group -> width after the last event; empty under a budget.

        Raises:
            ValueError: If a target or a budget does not fit the network. Names the option.
        """
        if recipe.budget is not None:
            budget_of(recipe, self.model)
            return {}
        return resolve_targets(recipe, self.groups, self.initial_parts())

    def aim(self, recipe: NeuronRecipe, event: ScheduledEvent) -> str:
        """How far an event goes, in a few words."""
        if recipe.budget is not None:
            name, value = recipe.budget
            return f"{event.progress:.0%} of the way to {name} {value:g}"
        return f"to widths {', '.join(map(str, sorted(set(event.targets.values()), reverse=True)))}"

    def gather(self, recipe: NeuronRecipe, seed: int) -> Evidence:
        """Fresh calibration samples where they are needed."""
        return None if recipe.calibration is None else self.calibrate(recipe.calibration, seed)

    def widths(self, recipe: NeuronRecipe, event: ScheduledEvent, evidence: Evidence) -> Mapping[str, int]:
        """Widths after an event: those that it names, or under a budget those that its samples speak for.

        Args:
            recipe: How to cut.
            event: How far to go.
            evidence: What `gather` gave.
        """
        if recipe.budget is None:
            return event.targets
        assert evidence is not None
        return allocate(recipe, self.model, evidence, event.progress)

    def report(self, recipe: NeuronRecipe, event: ScheduledEvent, widths: Mapping[str, int]) -> list[Table]:
        """How a budget was shared out, if there is one; see `widths`."""
        if recipe.budget is None:
            return []
        return [allocation_table(budget_of(recipe, self.model), event.progress, self.groups, widths)]

    def select(
        self, recipe: NeuronRecipe, widths: Mapping[str, int], evidence: Evidence, seed: int
    ) -> dict[str, Selection]:
        """The neurons that stay.

        Args:
            recipe: How to cut.
            widths: Name of the group -> width afterwards.
            evidence: What `gather` gave.
            seed: Seed of the event.

        Raises:
            ValueError: Names the group whose scores, activations or selection cannot be used.
        """
        return select_neurons(self.groups, widths, recipe.chooses, recipe.score_function, seed, recipe.refit, evidence)

    def prepare(
        self, recipe: NeuronRecipe, event: ScheduledEvent, evidence: Evidence, optimizers: Optimizers, seed: int
    ) -> FieldChange:
        """Chooses the neurons that leave and prepares their removal.

        Raises:
            ValueError: If the cut is impossible.
        """
        groups = self.groups
        widths = self.widths(recipe, event, evidence)
        selections = self.select(recipe, widths, evidence, seed)
        touched = {group.network for group in groups if group.name in selections}
        pruning = prepare_pruning(
            [group for group in groups if group.network in touched],
            selections,
            recipe.recovery,
            optimizers.optimizers,
            optimizers.parameters,
            seed,
            self.state.masks,
            self.state.rewind_snapshot,
            recipe.moments,
        )
        return FieldChange(self.model, pruning, bool(pruning.edits), self.report(recipe, event, widths))

    def scores(self, recipe: NeuronRecipe, evidence: Evidence) -> tuple[Optional[str], dict[str, Tensor]]:
        """Scores of all neurons of the network as it is.

        A rule that ranks neurons itself on samples is shown by score `obs`, the error left when one neuron leaves; for
        a rule without scores there are none.
        """
        name = "obs" if recipe.chooses.needs_samples else recipe.score
        if name is None:
            return None, {}
        score = score_by_name(name)
        if needs_of(score) == "weights":
            return name, {group.name: score(group).detach().cpu() for group in self.groups}
        assert evidence is not None
        return name, scores_on_samples(self.groups, evidence, recipe.refit.ridge, score)


class EdgeSubject(FieldSubject[EdgeRecipe]):
    """Single weights: masked, so that the tensors keep their size and nothing becomes faster."""

    unit = "edges"

    @property
    def total(self) -> str:
        """What all layers together are called."""
        return f"{super().total} (edges that live)"

    @property
    def counted(self) -> str:
        """What the parameters are that are counted."""
        return "living edges"

    @property
    def form(self) -> Form:
        """What a person may choose: nothing, the panel removes neurons."""
        return NeuronForm(self.model, closed="strategy edge masks single weights; the panel removes neurons")

    def sizes(self) -> Sizes:
        """Weights that live, and costs of the whole model; masks save no operations."""
        return self._sizes(self.state.masks)

    def initial_sizes(self) -> Sizes:
        """All weights."""
        return self._sizes({})

    def _sizes(self, masks: Mapping[str, Tensor]) -> Sizes:
        weights = {name: layer.weight.numel() for name, layer in linears(self.groups).items()}
        living = {name: int(masks[f"{name}.weight"].sum()) for name in weights if f"{name}.weight" in masks}
        costs = self._costs()
        costs["parameters"] -= sum(weights[name] - count for name, count in living.items())
        return Sizes({group.name: living.get(group.name, weights[group.name]) for group in self.groups}, costs)

    def targets(self, recipe: EdgeRecipe) -> dict[str, int]:
        """None: the weights decide at each event.

        Raises:
            ValueError: If a pattern matches no layer.
        """
        match_groups(self.groups, recipe.groups, "prune.groups")
        return {}

    def aim(self, recipe: EdgeRecipe, event: ScheduledEvent) -> str:
        """How far an event goes, in a few words."""
        return f"{event.progress:.0%} of the edges to prune"

    def prepare(
        self, recipe: EdgeRecipe, event: ScheduledEvent, evidence: None, optimizers: Optimizers, seed: int
    ) -> FieldChange:
        """Chooses the weights that are masked. An edge that was cut stays cut, whatever the new target.

        Raises:
            ValueError: If a weight is not finite.
        """
        groups, old = self.groups, self.state.masks
        layers = {group.name: group.producer for group in match_groups(groups, recipe.groups, "prune.groups")}
        if recipe.threshold is not None:
            new = edge_masks(layers, threshold=recipe.threshold * event.progress)
        else:
            new = edge_masks(layers, keep_fraction=1 - (1 - recipe.keep_fraction) * event.progress, scope=recipe.scope)
        masks = {**old, **{name: mask & old[name] if name in old else mask for name, mask in new.items()}}
        touched = {group.network for group in groups if f"{group.name}.weight" in new}
        pruning = prepare_pruning(
            [group for group in groups if group.network in touched],
            {},
            recipe.recovery,
            optimizers.optimizers,
            optimizers.parameters,
            seed,
            masks,
            self.state.rewind_snapshot,
            recipe.moments,
        )
        return FieldChange(self.model, pruning, not same_masks(pruning.masks, old))


def subject_of(strategy: Optional[str], model: PruneModel, calibrate: Calibrate) -> Subject[Any]:
    """What is pruned under a strategy.

    Args:
        strategy: Name of the strategy in force.
        model: The model.
        calibrate: Collects calibration samples.
    """
    return EdgeSubject(model, calibrate) if strategy == EDGE else NeuronSubject(model, calibrate)
