"""Chooses the neurons that stay, and what the others' work turns into. Changes nothing."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Optional

import torch

from nerfstudio_prune.neurons.groups import NeuronGroup, networks
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.refit import Refit, fold_constants, lstsq, merge
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.scores import Score
from nerfstudio_prune.neurons.statistics import GroupStatistics
from nerfstudio_prune.neurons.strategies import Selection, Strategy, select


def select_neurons(
    groups: Sequence[NeuronGroup],
    targets: Mapping[str, int],
    strategy: Strategy,
    score: Optional[Score],
    seed: int,
    refit: Refit = Refit(),
    samples: Optional[Mapping[str, Samples]] = None,
) -> dict[str, Selection]:
    """Chooses the neurons that stay, network by network and front to back.

    With samples, each group is judged on the activations of the network that is already pruned before it, neurons
    whose activation never changes go first, and what constant ones contributed goes into the next bias.

    Args:
        groups: All groups of all networks, each network in forward order.
        targets: Name of the group -> width afterwards. Groups that are not named, or narrower already, stay whole.
        strategy: Rule that chooses.
        score: Score for the rule; None for rules without one.
        seed: Seed of the event. Each group draws from its own generator, so that its draw does not depend on which
            other groups are pruned.
        refit: What becomes of the weights of the layers behind. From the first cut on, `lstsq` refits all that follow.
        samples: Name of the network -> calibration samples. None where nothing asks for them.

    Returns:
        Name of the group -> selection, for groups that lose neurons or whose consumers are refitted.

    Raises:
        ValueError: Names the group whose scores, activations or selection cannot be used.
    """
    if samples is None and refit.mode == "lstsq":
        raise ValueError("refit lstsq needs calibration samples, and none were collected")
    if samples is None and strategy.needs_samples:
        raise ValueError(f"{type(strategy).__name__} needs calibration samples, and none were collected")
    selections: dict[str, Selection] = {}
    for network, members in networks(groups):
        if all(targets.get(group.name, group.width) >= group.width for group in members):
            continue
        walk = None if samples is None else Propagation(members, samples[network], refit.ridge)
        for bare in members:
            group = bare if walk is None else replace(bare, statistics=walk.statistics(bare))
            n_keep = min(targets.get(group.name, group.width), group.width)
            try:
                selection = _select(group, n_keep, strategy, score, seed)
                if n_keep < group.width or any(g.name in selections for g in members):
                    selection = _refitted(group, selection, refit)
            except ValueError as error:
                raise ValueError(f"{group.name}: {error}") from error
            if n_keep < group.width or selection.refit:
                selections[group.name] = selection
            if walk is not None:
                walk.commit(group, selection)
    return selections


def _select(group: NeuronGroup, n_keep: int, strategy: Strategy, score: Optional[Score], seed: int) -> Selection:
    if n_keep == group.width:
        return Selection(torch.arange(group.width))
    scores = strategy.own_scores(group, n_keep)
    if scores is None:
        scores = torch.zeros(group.width) if score is None else score(group)
    # The CPU generator reads the low 32 bits of a seed only: mix, do not shift.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {group.name}".encode()))
    idle = torch.zeros(group.width, dtype=torch.bool) if group.statistics is None else group.statistics.constant
    live = (~idle).nonzero()[:, 0]
    if len(live) == group.width:
        return select(strategy, scores, n_keep, generator)
    if n_keep <= len(live):
        among = select(strategy, scores[live.to(scores.device)], n_keep, generator)
        return replace(among, keep=live[among.keep])
    spare = idle.nonzero()[: n_keep - len(live), 0]
    return Selection(torch.cat([live, spare]).sort().values)


def _refitted(group: NeuronGroup, selection: Selection, refit: Refit) -> Selection:
    """The selection with new values for the consumers; a refit replaces the strategy's own re-weighting."""
    statistics: Optional[GroupStatistics] = group.statistics
    if refit.mode == "lstsq":
        assert statistics is not None
        return Selection(selection.keep, refit=lstsq(group, statistics, selection.keep))
    folded = {} if statistics is None else fold_constants(group, statistics, selection.keep)
    if refit.mode == "merge" and len(selection.keep) < group.width:
        merged = merge(group, selection.keep, None if statistics is None else statistics.constant)
        biases = {name: (merged[name][0], bias) for name, (_, bias) in folded.items()}
        return Selection(selection.keep, refit={**merged, **biases})
    return selection if statistics is None else replace(selection, refit=folded)
