"""Error of every group at every width, the basis of a budget."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.obs import eliminate
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.selecting import networks
from nerfstudio_prune.neurons.strategies import Selection


def error_curves(
    groups: Sequence[NeuronGroup], samples: Mapping[str, Samples], ridge: float
) -> dict[str, Float[Tensor, " widths"]]:
    """Error that the best refit leaves when a group alone is cut, for all its widths at once.

    Args:
        groups: All groups of all networks, each network in forward order.
        samples: Name of the network -> calibration samples.
        ridge: Ridge of the refit, see `GroupStatistics`.

    Returns:
        Name of the group -> error with 0, 1, ..., width neurons kept, float64; see `eliminate`.
    """
    curves = {}
    for network, members in networks(groups):
        walk = Propagation(members, samples[network], ridge)
        for group in members:
            curves[group.name] = eliminate(walk.statistics(group), 0).errors.flip(0)
            walk.commit(group, Selection(torch.arange(group.width)))
    return curves
