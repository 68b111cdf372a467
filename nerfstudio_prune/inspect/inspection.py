"""What `ns-prune inspect` finds; its JSON has these fields. A number that is not finite is null there."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn, Optional

import torch
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.saved_run import SavedRun
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.neurons.groups import expected_shapes, linears
from nerfstudio_prune.neurons.scores import score_by_name

THRESHOLDS = (0.01, 0.05, 0.1)
"""Absolute values below which weights are counted."""


@dataclass
class Costs:
    """What a layer, or a network, costs."""

    width: Optional[int]
    """Neurons; None for the output layers, whose size is fixed, and for sums."""
    parameters: int
    """Weights and biases that are stored; masks remove none."""
    macs_per_ray: int
    """Multiply-accumulates for one ray."""


@dataclass
class LayerCosts:
    """Costs now and before the first event."""

    now: Costs
    initial: Costs
    network: str = ""
    """Network of the layer, by its name in the model; empty for sums."""
    role: str = ""
    """What a layer of neurons is in its network: trunk or head; empty for all others."""


@dataclass
class LayerWeights:
    """Small weights of a layer or of a field; biases are not counted."""

    weights: int
    """How many there are."""
    below: dict[str, int]
    """Threshold -> weights of a smaller absolute value, those that are exactly zero included."""
    zeros: int
    """Weights that are exactly zero."""
    living: int
    """Weights that no mask holds at zero."""
    dead_rows: int
    """Outputs of the layer whose weights are all zero: they do not depend on the input."""
    dead_columns: int
    """Inputs of the layer that no output reads."""
    not_finite: int
    """Weights that are infinite or no number."""


@dataclass
class ScoreSummary:
    """Spread of the scores of one layer's neurons."""

    minimum: float
    median: float
    maximum: float
    top_half_share: Optional[float]
    """Share of the sum of all scores that the better half of the neurons holds: 0.5 if all are equal, 1 if the other
    half has none. None if all scores are zero."""


@dataclass
class Inspection:
    """A run at one of its checkpoints."""

    method: str
    config: str
    checkpoint: str
    step: int
    """Training step at whose end the checkpoint was saved."""
    phase: str
    """dense, pruning or recovery."""
    strategy: Optional[str]
    """Strategy of the plan; None if the checkpoint carries no plan."""
    total: LayerCosts
    """All layers that are trained."""
    masked: int
    """Weights that masks hold at zero."""
    fields_mb: float
    """All parameters in fp32, in 10^6 bytes."""
    checkpoint_mb: float
    """The file, with moments and state, in 10^6 bytes."""
    costs: dict[str, LayerCosts]
    """By layer, or by parameter where one belongs to none."""
    weights: dict[str, LayerWeights]
    """By layer of the fields."""
    field_weights: dict[str, LayerWeights]
    """By field."""
    scores: dict[str, dict[str, ScoreSummary]]
    """Score -> layer -> spread over its neurons."""
    history: list[PruneEvent]
    """Events that happened or failed, oldest first."""
    pending: list[ScheduledEvent]
    """Events to come."""
    aims: list[str]
    """How far each of these goes, in words."""
    units: dict[str, str]
    """Strategy of an event in the history -> what the sizes of its parts count: `width` (neurons) or `edges` (weights
    that live)."""


@torch.no_grad()
def inspect_model(run: SavedRun, scores: tuple[str, ...]) -> Inspection:
    """Measures a loaded network.

    Args:
        run: The run at one of its checkpoints.
        scores: Scores to summarise.
    """
    model = run.model
    groups, state = model.neuron_groups(), model.prune_state
    roles = {group.name: group.role for group in groups}
    owners = {
        name: network
        for network, part in model.named_children()
        for name, _ in (*part.named_modules(prefix=network), *part.named_parameters(prefix=network))
    }
    layers = linears(groups)
    widths = {group.name: group.width for group in groups}
    before = {**widths, **state.initial_sizes}
    shapes = expected_shapes(groups, before)
    now = model.layer_costs()
    costs = {}
    for name, present in now.items():
        initial = Costs(before.get(name), *present)
        if name in layers:
            rows, columns = shapes[f"{name}.weight"]
            samples = model.samples_per_ray(owners[name])
            biases = shapes.get(f"{name}.bias", (0,))[0]
            initial = Costs(before.get(name), rows * columns + biases, rows * columns * samples)
        costs[name] = LayerCosts(Costs(widths.get(name), *present), initial, owners[name], roles.get(name, ""))
    weights = {name: layer.weight for name, layer in layers.items()}
    masks = {name: state.masks.get(f"{name}.weight") for name in layers}
    total_now, total_before = (
        Costs(None, sum(cost.parameters for cost in column), sum(cost.macs_per_ray for cost in column))
        for column in zip(*((cost.now, cost.initial) for cost in costs.values()), strict=True)
    )
    return Inspection(
        method=str(run.config.method_name),
        config=str(run.config_file),
        checkpoint=str(run.checkpoint),
        step=run.step,
        phase=state.phase,
        strategy=state.options.get("strategy"),
        total=LayerCosts(total_now, total_before),
        masked=sum(int((~mask).sum()) for mask in masks.values() if mask is not None),
        fields_mb=total_now.parameters * 4 / 1e6,
        checkpoint_mb=run.checkpoint.stat().st_size / 1e6,
        costs=costs,
        weights={name: layer_weights(weight, masks[name]) for name, weight in weights.items()},
        field_weights={
            field: _sum([layer_weights(weights[name], masks[name]) for name in layers if owners[name] == field])
            for field in model.fields()
        },
        scores={name: {group.name: summarize(score_by_name(name)(group)) for group in groups} for name in scores},
        history=state.history,
        pending=state.pending,
        aims=_aims(run),
        units={event.strategy: _subject(event.strategy, model).unit for event in state.history},
    )


def _subject(strategy: Optional[str], model: PruneModel) -> Subject[Any]:
    """What is pruned under a strategy, where there is no training data."""

    def calibrate(calibration: Any, seed: int) -> NoReturn:
        raise AssertionError("nothing is pruned here")

    return subject_of(strategy, model, calibrate)


def _aims(run: SavedRun) -> list[str]:
    state = run.model.prune_state
    if not state.pending:
        return []
    options = PruneConfig().with_stored(state.options)
    options.validate()
    recipe = options.resolve()
    subject = _subject(recipe.strategy, run.model)
    return [subject.aim(recipe, event) for event in state.pending]


def layer_weights(weight: Tensor, mask: Optional[Tensor] = None) -> LayerWeights:
    """Counts the small weights of a matrix.

    Args:
        weight: The weights, [out, in].
        mask: True where a weight lives; None if none was masked.
    """
    used = weight != 0
    return LayerWeights(
        weights=weight.numel(),
        below={f"{threshold:g}": int((weight.abs() < threshold).sum()) for threshold in THRESHOLDS},
        zeros=weight.numel() - int(used.sum()),
        living=weight.numel() if mask is None else int(mask.sum()),
        dead_rows=int((~used.any(dim=1)).sum()),
        dead_columns=int((~used.any(dim=0)).sum()),
        not_finite=int((~torch.isfinite(weight)).sum()),
    )


def _sum(parts: Sequence[LayerWeights]) -> LayerWeights:
    return LayerWeights(
        below={key: sum(part.below[key] for part in parts) for key in parts[0].below},
        **{f.name: sum(getattr(part, f.name) for part in parts) for f in fields(LayerWeights) if f.name != "below"},
    )


def summarize(scores: Tensor) -> ScoreSummary:
    """Spread of the scores of a layer's neurons."""
    ordered = scores.double().sort(descending=True).values
    half, total = len(ordered) // 2, float(ordered.sum())
    # Of an odd number the one in the middle counts half, so that equal scores always give a half.
    top = float(ordered[:half].sum()) + (float(ordered[half]) / 2 if len(ordered) % 2 else 0.0)
    return ScoreSummary(
        minimum=float(ordered.min()),
        median=float(ordered.quantile(0.5)),
        maximum=float(ordered.max()),
        top_half_share=top / total if total else None,
    )
