"""Second moments of what the layers behind a group of neurons read. Knows nothing of networks."""

from dataclasses import dataclass
from typing import Optional

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CHUNK = 8192
"""Samples whose products are summed in the samples' own precision before they are added in double precision."""


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """What one consumer reads and how far it is from what it should compute, on weighted samples.

    Inputs are ordered: columns that are no neurons, the constant 1 of the bias if there is one, neurons. The constant
    and the columns before it always stay. All tensors are float64 on the CPU.
    """

    weight: Float[Tensor, "outputs inputs"]
    """Present weights."""
    gram: Float[Tensor, "inputs inputs"]
    """Weighted mean of x xᵀ."""
    residual: Float[Tensor, "inputs outputs"]
    """Weighted mean of x (z* - z)ᵀ, where z are the present and z* the wanted pre-activations."""
    rows: Float[Tensor, " outputs"]
    """How much the squared error of each output counts."""
    fixed: int
    """Number of inputs that always stay."""
    has_bias: bool
    """Whether the last of these is the constant of the bias."""


@dataclass(frozen=True, eq=False)
class GroupStatistics:
    """What is known of a group's neurons on real samples."""

    layers: tuple[LayerMoments, ...]
    """One per consumer, in the group's order."""
    ridge: float
    """Ridge of the refit that costs are computed for, as a share of the mean squared input, >= 0."""
    active: Float[Tensor, " neurons"]
    """Share of the samples at which the neuron's activation is not zero, in [0, 1]."""
    constant: Bool[Tensor, " neurons"]
    """Neurons with the same activation at all samples; dead ones are among them."""
    mean: Float[Tensor, " neurons"]
    """Mean activation, every sample counted alike."""
    taylor: Optional[Float[Tensor, " neurons"]] = None
    """See `Samples.taylor`."""
    fisher: Optional[Float[Tensor, " neurons"]] = None
    """See `Samples.fisher`."""


@torch.no_grad()
def second_moments(
    inputs: Float[Tensor, "samples inputs"],
    errors: Float[Tensor, "samples outputs"],
    weights: Float[Tensor, " samples"],
) -> tuple[Float[Tensor, "inputs inputs"], Float[Tensor, "inputs outputs"]]:
    """Weighted means of x xᵀ and x eᵀ, in float64 on the CPU.

    Args:
        inputs: x, one row per sample.
        errors: e, one row per sample.
        weights: Weight of each sample, >= 0, not all zero.
    """
    gram = torch.zeros(inputs.shape[1], inputs.shape[1], dtype=torch.float64)
    cross = torch.zeros(inputs.shape[1], errors.shape[1], dtype=torch.float64)
    exact = bool((errors == 0).all())
    for x, e, s in zip(inputs.split(CHUNK), errors.split(CHUNK), weights.split(CHUNK), strict=True):
        weighted = (x * s[:, None]).T
        gram += (weighted @ x).cpu().double()
        if not exact:
            cross += (weighted @ e).cpu().double()
    total = float(weights.cpu().double().sum())
    # Matrix products do not round symmetrically.
    return (gram + gram.T) / (2 * total), cross / total
