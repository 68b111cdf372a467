"""From options to a checked event: widths, selection, plan. Changes nothing and prints nothing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Optional

import torch
from jaxtyping import Float
from nerfstudio.engine.optimizers import Optimizers
from torch import Tensor

from nerfstudio_prune.core.events import ScheduledEvent
from nerfstudio_prune.engine.planning import resolve_targets
from nerfstudio_prune.nerf.allocation import allocate
from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.edges import edge_masks
from nerfstudio_prune.neurons.groups import match_groups
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.pruner import Pruning, plan_pruning
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.scores import needs_of, score_by_name
from nerfstudio_prune.neurons.selecting import networks, select_neurons
from nerfstudio_prune.neurons.strategies import Selection


def event_seed(seed: int, step: int) -> int:
    """Seed of the random choices of an event.

    Args:
        seed: Seed of the run.
        step: Training step of the event.
    """
    return seed * 1_000_003 + step


def whole_cut(config: FilledPruneConfig, model: PruneModel, step: int) -> ScheduledEvent:
    """An event that goes all the way to the target at once.

    Args:
        config: Options, validated.
        model: The model as it is.
        step: Training step of the event.

    Raises:
        ValueError: If a target does not fit the network.
    """
    if config.has_budget or config.strategy == "edge":
        return ScheduledEvent(step, 1.0)
    groups = model.neuron_groups()
    initial = model.prune_state.initial_sizes or {group.name: group.width for group in groups}
    return ScheduledEvent(step, 1.0, resolve_targets(config, groups, initial))


def widths_at(
    config: FilledPruneConfig, model: PruneModel, aim: ScheduledEvent, samples: Optional[Mapping[str, Samples]]
) -> Mapping[str, int]:
    """Widths after an event: those that it names, or under a budget those that its samples speak for.

    Args:
        config: Options, validated.
        model: The model as it is.
        aim: The event.
        samples: Calibration samples of both fields, where `config.needs_samples`.
    """
    if not config.has_budget:
        return aim.targets
    assert samples is not None
    return allocate(config, model, samples, aim.progress)


def choose(
    config: FilledPruneConfig,
    model: PruneModel,
    widths: Mapping[str, int],
    samples: Optional[Mapping[str, Samples]],
    seed: int,
) -> dict[str, Selection]:
    """The neurons that stay.

    Args:
        config: Options, validated.
        model: The model as it is.
        widths: Name of the group -> width afterwards.
        samples: Calibration samples of both fields, where `config.needs_samples`.
        seed: Seed of the event.

    Raises:
        ValueError: Names the group whose scores, activations or selection cannot be used.
    """
    groups, strategy = model.neuron_groups(), config.make_strategy()
    return select_neurons(groups, widths, strategy, config.make_score(), seed, config.make_refit(), samples)


def plan_event(
    config: FilledPruneConfig,
    model: PruneModel,
    optimizers: Optional[Optimizers],
    aim: ScheduledEvent,
    widths: Mapping[str, int],
    samples: Optional[Mapping[str, Samples]],
    seed: int,
) -> Pruning:
    """Chooses, and prepares what is chosen.

    Args:
        config: Options, validated.
        model: The model as it is.
        optimizers: The host's optimizers over its parameters; None for a model that is not trained.
        aim: The event.
        widths: Name of the group -> width afterwards, from `widths_at`.
        samples: Calibration samples of both fields, where `config.needs_samples`.
        seed: Seed of the event.

    Raises:
        ValueError: If the event is impossible.
    """
    state = model.prune_state
    masks: dict[str, Tensor] = state.edge_masks
    selections: dict[str, Selection] = {}
    if config.strategy == "edge":
        # An edge that was cut stays cut, whatever the new target.
        new = _new_masks(config, model, aim.progress)
        masks = {**masks, **{name: mask & masks[name] if name in masks else mask for name, mask in new.items()}}
        touched = {name.split(".")[0] for name in new}
    else:
        selections = choose(config, model, widths, samples, seed)
        touched = {name.split(".")[0] for name in selections}
    return plan_pruning(
        [group for group in model.neuron_groups() if group.name.split(".")[0] in touched],
        selections,
        config.recovery,
        {} if optimizers is None else optimizers.optimizers,
        {} if optimizers is None else optimizers.parameters,
        seed,
        masks,
        state.rewind_snapshot,
        config.refit_moments,
    )


def _new_masks(config: FilledPruneConfig, model: PruneModel, progress: float) -> dict[str, Tensor]:
    chosen = match_groups(model.neuron_groups(), config.groups, "prune.groups")
    layers = {group.name: group.producer for group in chosen}
    if config.edge_threshold is not None:
        return edge_masks(layers, threshold=config.edge_threshold * progress)
    keep_fraction = 0.5 if config.edge_keep_fraction is None else config.edge_keep_fraction
    return edge_masks(layers, keep_fraction=1 - (1 - keep_fraction) * progress, scope=config.edge_scope)


def layer_scores(
    config: FilledPruneConfig, model: PruneModel, samples: Optional[Mapping[str, Samples]]
) -> tuple[Optional[str], dict[str, Float[Tensor, " neurons"]]]:
    """Scores of all neurons of the network as it is, for a person to look at.

    Args:
        config: Options, validated.
        model: The model as it is.
        samples: Calibration samples of both fields, where `config.needs_samples`.

    Returns:
        Name of the score, and name of the group -> scores on the CPU. A rule that ranks neurons itself on samples is
        shown by score `obs`, the error left when one neuron leaves; for a rule without scores there are none.
    """
    name = "obs" if config.make_strategy().needs_samples else config.score_name
    if name is None:
        return None, {}
    score, scores = score_by_name(name), {}
    for network, members in networks(model.neuron_groups()):
        walk = None
        if needs_of(score) != "weights":
            assert samples is not None
            walk = Propagation(members, samples[network], config.refit_ridge)
        for group in members:
            seen = group if walk is None else replace(group, statistics=walk.statistics(group))
            scores[group.name] = score(seen).detach().cpu()
            if walk is not None:
                walk.commit(group, Selection(torch.arange(group.width)))
    return name, scores
