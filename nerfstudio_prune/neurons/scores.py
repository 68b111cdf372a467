"""One number per neuron; higher means keep. `SCORES` is the registry."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.obs import removal_costs
from nerfstudio_prune.neurons.statistics import GroupStatistics

Score = Callable[[NeuronGroup], Tensor]
Needs = Literal["weights", "samples", "gradients"]
"""What a score is computed from: weights alone, calibration samples, or these with gradients of the loss."""


def needs(what: Needs) -> Callable[[Score], Score]:
    """Decorator that says what a score needs; without it, weights alone."""

    def mark(score: Score) -> Score:
        score.needs = what  # type: ignore[attr-defined]
        return score

    return mark


def needs_of(score: Score) -> Needs:
    """What a score needs."""
    return getattr(score, "needs", "weights")


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


@needs("samples")
def activation(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Root mean square of the activation times the L2 norm of the outgoing weights.

    sqrt(sum over consumers of E[s a_j²] * sum over rows of r_i w_ij²) with the weights s of samples and r of rows: how
    much pre-activations change when the neuron is dropped and nothing makes up for it. Wanda (arXiv 2306.11695) for
    whole neurons. Costs one pass over the samples.
    """
    total = torch.zeros(group.width, dtype=torch.float64)
    for layer in _statistics(group).layers:
        outgoing = (layer.rows[:, None] * layer.weight[:, layer.fixed :].square()).sum(dim=0)
        total += layer.gram.diagonal()[layer.fixed :] * outgoing
    return total.sqrt()


@needs("samples")
def apoz(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Share of the samples at which the neuron is active: 1 - APoZ (Hu et al. 2016, arXiv 1607.03250, equation 1).

    Costs one pass over the samples.
    """
    return _statistics(group).active


@needs("samples")
def obs(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Error that removing this neuron alone leaves when the consumers are refitted: sum of r_i W_ij² / [H⁻¹]_jj.

    Optimal brain surgeon for columns (ZipLM, arXiv 2302.04089). Costs one pass over the samples and one inverse of
    second moments per consumer. For removing many neurons strategy `obs` updates the costs after each.
    """
    return removal_costs(_statistics(group))


@needs("gradients")
def taylor(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Mean over batches of rays of (sum over the batch of activation * gradient of the loss)².

    First-order change of the training loss when the neuron is gated off (the gate form of Molchanov
    et al. 2019, arXiv 1906.10771). Costs a backward pass of the rendering loss.
    """
    return _gradients(_statistics(group).taylor)


@needs("gradients")
def fisher(group: NeuronGroup) -> Float[Tensor, " neurons"]:
    """Half the mean over rays of (sum along the ray of activation * gradient of the ray's loss)².

    Second-order change of the loss when the neuron is gated off, with the empirical Fisher information in place of the
    Hessian (Theis et al. 2018, arXiv 1801.05787). Costs a backward pass of the rendering loss.
    """
    return _gradients(_statistics(group).fisher) / 2


def _statistics(group: NeuronGroup) -> GroupStatistics:
    if group.statistics is None:
        raise ValueError("this score needs calibration samples, and none were collected")
    return group.statistics


def _gradients(values: Tensor | None) -> Float[Tensor, " neurons"]:
    if values is None:
        raise ValueError("this score needs gradients of the loss, and none were collected")
    return values


SCORES: dict[str, Score] = {
    "w_in": w_in,
    "w_out": w_out,
    "w_in_w_out": w_in_w_out,
    "sensitivity": sensitivity,
    "activation": activation,
    "apoz": apoz,
    "obs": obs,
    "taylor": taylor,
    "fisher": fisher,
}
"""Name -> score. Add an entry to make a score available to the option `score`."""


def weight_scores() -> dict[str, Score]:
    """The scores that are computed from weights alone, by name."""
    return {name: score for name, score in SCORES.items() if needs_of(score) == "weights"}


def score_by_name(name: str) -> Score:
    """Looks a score up in `SCORES`.

    Raises:
        ValueError: If there is none of that name; lists the names.
    """
    if name not in SCORES:
        raise ValueError(f"score must be one of {', '.join(sorted(SCORES))}, got {name!r}")
    return SCORES[name]
