"""New values for the layers behind a group, so that the neurons that stay take over what left."""

from dataclasses import dataclass
from typing import Literal, Optional

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup
from nerfstudio_prune.neurons.obs import regularised
from nerfstudio_prune.neurons.statistics import GroupStatistics, LayerMoments

RefitMode = Literal["none", "lstsq", "merge"]


@dataclass(frozen=True)
class Refit:
    """How the neurons that stay take over what left."""

    mode: RefitMode = "none"
    """none: not at all; lstsq: least squares on calibration samples; merge: by similarity, without samples."""
    ridge: float = 1e-4
    """Share of the mean squared input by which least squares draws weights to their present values, >= 0."""


LEAST_COSINE = 0.45
"""Neurons that are less alike are not merged: mostly noise would be added."""


def refit_layer(layer: LayerMoments, keep: Int64[Tensor, " kept"], ridge: float) -> Float[Tensor, "outputs inputs"]:
    """Least squares over the inputs that stay, towards the wanted pre-activations.

    Minimises the weighted mean of |z* - W x|² plus the ridge times |W - W_present|². When all neurons stay and the
    pre-activations are as wanted, the weights come back as they were.

    Args:
        layer: Moments of the consumer.
        keep: Neurons that stay.
        ridge: Share of the mean squared input, >= 0.

    Returns:
        Weights in the order of the moments; zero for neurons that leave.
    """
    moments = regularised(layer, ridge)
    stay = torch.cat([torch.arange(layer.fixed), layer.fixed + keep])
    gone = torch.ones(len(moments), dtype=torch.bool)
    gone[stay] = False
    # Only the correction is solved for: what stays and fits already is not rounded.
    wanted = layer.residual[stay] + layer.gram[stay][:, gone] @ layer.weight[:, gone].T
    change = torch.cholesky_solve(wanted, torch.linalg.cholesky(moments[stay][:, stay]))
    weights = torch.zeros_like(layer.weight)
    weights[:, stay] = layer.weight[:, stay] + change.T
    return weights


@torch.no_grad()
def lstsq(
    group: NeuronGroup, statistics: GroupStatistics, keep: Int64[Tensor, " kept"]
) -> dict[str, tuple[Tensor, Optional[Tensor]]]:
    """Least squares for every consumer of a group.

    Args:
        group: The group.
        statistics: Its statistics.
        keep: Neurons that stay.

    Returns:
        Module path of the consumer -> weight [outputs, inputs] and bias, in full size and float64.
    """
    values = {}
    for consumer, layer in zip(group.consumers, statistics.layers, strict=True):
        values[consumer.name] = _in_place(consumer, group.width, layer, refit_layer(layer, keep, statistics.ridge))
    return values


def _in_place(
    consumer: Consumer, width: int, layer: LayerMoments, weights: Float[Tensor, "outputs inputs"]
) -> tuple[Float[Tensor, "outputs columns"], Optional[Float[Tensor, " outputs"]]]:
    """From the order of the moments to the layer's own."""
    offset = consumer.column_offset
    extra = weights[:, : layer.fixed - layer.has_bias]
    weight = torch.cat([extra[:, :offset], weights[:, layer.fixed :], extra[:, offset:]], dim=1)
    assert weight.shape[1] == extra.shape[1] + width
    return weight, weights[:, layer.fixed - 1] if layer.has_bias else None


@torch.no_grad()
def fold_constants(
    group: NeuronGroup, statistics: GroupStatistics, keep: Int64[Tensor, " kept"]
) -> dict[str, tuple[Tensor, Optional[Tensor]]]:
    """Puts what constant neurons that leave contributed into the biases of the layers that read them.

    Args:
        group: The group.
        statistics: Its statistics.
        keep: Neurons that stay.

    Returns:
        As `lstsq`, without the layers that do not change.
    """
    gone = statistics.constant & (statistics.mean != 0)
    gone[keep] = False
    values: dict[str, tuple[Tensor, Optional[Tensor]]] = {}
    for consumer, layer in zip(group.consumers, statistics.layers, strict=True):
        if bool(gone.any()) and layer.has_bias:
            weights = layer.weight.clone()
            weights[:, layer.fixed - 1] += weights[:, layer.fixed :][:, gone] @ statistics.mean[gone]
            values[consumer.name] = _in_place(consumer, group.width, layer, weights)
    return values


@torch.no_grad()
def merge(
    group: NeuronGroup, keep: Int64[Tensor, " kept"], idle: Optional[Bool[Tensor, " neurons"]] = None
) -> dict[str, tuple[Tensor, Optional[Tensor]]]:
    """Adds the outgoing weights of each neuron that leaves to those of the most similar one that stays. Needs no data.

    Similar is a large cosine of the incoming weights with bias; as ReLU is positively homogeneous, a neuron whose
    incoming weights are s times another's is worth s times its activation (neuron merging, Kim et al. 2020,
    arXiv 2010.13160). Neurons with a cosine below `LEAST_COSINE` to all that stay are dropped.

    Args:
        group: The group.
        keep: Neurons that stay.
        idle: Neurons that are known never to change; none takes over from them. None: nothing is known.

    Returns:
        As `lstsq`; biases as they are.
    """
    incoming = group.incoming.cpu().double()
    if group.producer.bias is not None:
        incoming = torch.cat([incoming, group.producer.bias.detach().cpu().double()[:, None]], dim=1)
    norms = incoming.norm(dim=1)
    directions = incoming / norms.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    gone = torch.ones(group.width, dtype=torch.bool)
    gone[keep] = False
    cosine, nearest = (directions[gone] @ directions[keep].T).max(dim=1)
    alike = cosine >= LEAST_COSINE
    if idle is not None:
        alike &= ~idle[gone]
    scale = torch.where(alike, norms[gone] / norms[keep[nearest]], 0.0)
    values = {}
    for consumer in group.consumers:
        weight, bias = consumer.linear.weight.detach().cpu().double().clone(), consumer.linear.bias
        columns = weight[:, consumer.column_offset : consumer.column_offset + group.width]
        columns.index_add_(1, keep[nearest], columns[:, gone] * scale)
        values[consumer.name] = (weight, None if bias is None else bias.detach().cpu().double())
    return values
