"""One number per neuron; higher means keep. `SCORES` is the registry."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.neurons.groups import NeuronGroup

Score = Callable[[NeuronGroup], Tensor]


def w_in(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Mean of |incoming weights| over the whole fan-in, bias not included.

    Equation 3 of Ding et al. 2025 (arXiv 2504.00950).
    """
    return group.incoming.abs().mean(dim=1)


def w_out(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Mean of |outgoing weights| over the rows of all consumers.

    Equation 4 of Ding et al. 2025 (arXiv 2504.00950).
    """
    return group.outgoing.abs().mean(dim=0)


def w_in_w_out(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Product of `w_in` and `w_out` (Table 3 of Ding et al. 2025, arXiv 2504.00950)."""
    return w_in(group) * w_out(group)


def sensitivity(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Largest |outgoing weight| times the L2 norm of the incoming weights with the bias appended.

    Bound on a neuron's share of any output (Mussay et al. 2020, arXiv 1907.04018, Algorithm 1, without the
    normalisation). Its factor beta inside the ReLU scales all neurons alike and cancels.
    """
    incoming = group.incoming
    if group.producer.bias is not None:
        incoming = torch.cat([incoming, group.producer.bias.detach()[:, None]], dim=1)
    return group.outgoing.abs().amax(dim=0) * incoming.norm(dim=1)


SCORES: dict[str, Score] = {"w_in": w_in, "w_out": w_out, "w_in_w_out": w_in_w_out, "sensitivity": sensitivity}
"""Name -> score. Add an entry to make a score available to the option `score`."""


def score_by_name(name: str) -> Score:
    """Looks a score up in `SCORES`.

    Raises:
        ValueError: If there is none of that name; lists the names.
    """
    if name not in SCORES:
        raise ValueError(f"score must be one of {', '.join(sorted(SCORES))}, got {name!r}")
    return SCORES[name]
