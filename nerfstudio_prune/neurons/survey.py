"""Walks networks as they are, front to back, on calibration samples: scores for a person, error curves for a budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.neurons.groups import NeuronGroup, networks
from nerfstudio_prune.neurons.obs import eliminate
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.scores import Score
from nerfstudio_prune.neurons.strategies import Selection


def with_statistics(
    groups: Sequence[NeuronGroup], samples: Mapping[str, Samples], ridge: float
) -> Iterator[NeuronGroup]:
    """Every group with its statistics in the network that nothing was cut from.

    Args:
        groups: All groups of all networks, each network in forward order.
        samples: Name of the network -> calibration samples.
        ridge: Ridge of the refit, see `GroupStatistics`.
    """
    for network, members in networks(groups):
        walk = Propagation(members, samples[network], ridge)
        for group in members:
            yield replace(group, statistics=walk.statistics(group))
            walk.commit(group, Selection(torch.arange(group.width)))


def scores_on_samples(
    groups: Sequence[NeuronGroup], samples: Mapping[str, Samples], ridge: float, score: Score
) -> dict[str, Float[Tensor, " neurons"]]:
    """Scores of all neurons by a score that reads samples.

    Args:
        groups: All groups of all networks, each network in forward order.
        samples: Name of the network -> calibration samples.
        ridge: Ridge of the refit, see `GroupStatistics`.
        score: The score.

    Returns:
        Name of the group -> scores on the CPU.
    """
    return {group.name: score(group).detach().cpu() for group in with_statistics(groups, samples, ridge)}


def error_curves(
    groups: Sequence[NeuronGroup], samples: Mapping[str, Samples], ridge: float
) -> dict[str, Float[Tensor, " widths"]]:
    """Error that the best refit leaves when a group alone is cut, for all its widths at once; the basis of a budget.

    Args:
        groups: All groups of all networks, each network in forward order.
        samples: Name of the network -> calibration samples.
        ridge: Ridge of the refit, see `GroupStatistics`.

    Returns:
        Name of the group -> error with 0, 1, ..., width neurons kept, float64; see `eliminate`.
    """
    curves = {}
    for group in with_statistics(groups, samples, ridge):
        assert group.statistics is not None
        curves[group.name] = eliminate(group.statistics, 0).errors.flip(0)
    return curves
