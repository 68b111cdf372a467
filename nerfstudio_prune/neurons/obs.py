"""Which neurons the layers behind them can do without, if these are refitted: exact costs from second moments.

For a quadratic error, minimised over the weights, taking an input away costs ‖W_j‖² / [H⁻¹]_jj (optimal brain surgeon,
Hassibi and Stork 1993; for columns of a layer: ZipLM, arXiv 2302.04089).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nerfstudio_prune.neurons.statistics import GroupStatistics, LayerMoments

SMALLEST_RIDGE = 1e-12
"""Of the mean squared input: keeps the inverse finite when inputs are linearly dependent and no ridge is wanted."""


@dataclass(frozen=True, eq=False)
class Elimination:
    """Greedy backward elimination of the neurons of a group."""

    order: Int64[Tensor, " removed"]
    """Neurons in the order in which they leave."""
    errors: Float[Tensor, " removed_and_none"]
    """Squared error of all consumers, weighted by samples and rows, after 0, 1, ... removals with refit; counted from
    the refit of all neurons on."""


def regularised(layer: LayerMoments, ridge: float) -> Float[Tensor, "inputs inputs"]:
    """Second moments plus the ridge, a share of the mean squared input, which draws weights to their present values.

    Sums in single precision of inputs that depend on each other can be off by more than a small ridge; it is then
    raised tenfold until the matrix is safely positive definite.

    Args:
        layer: Moments of a consumer.
        ridge: Share, >= 0.
    """
    mean = float(layer.gram.diagonal().mean())
    strength = max(max(ridge, SMALLEST_RIDGE) * mean, torch.finfo(torch.float64).tiny)
    identity = torch.eye(len(layer.gram), dtype=torch.float64)
    while strength < mean and int(torch.linalg.cholesky_ex(layer.gram + strength / 2 * identity).info):
        strength *= 10
    return layer.gram + strength * identity


class _Consumer:
    """One layer during the elimination: its best weights, and the inverse moments of the neurons that are left."""

    def __init__(self, layer: LayerMoments, ridge: float) -> None:
        moments = regularised(layer, ridge)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
        best = layer.weight + (inverse @ layer.residual).T
        # Inputs that always stay take part through the inverse of the whole matrix; rows of their own are not needed.
        self.inverse = inverse[layer.fixed :, layer.fixed :].clone()
        self.weights = best[:, layer.fixed :] * layer.rows.sqrt()[:, None]

    def costs(self) -> Float[Tensor, " neurons"]:
        return self.weights.square().sum(dim=0) / self.inverse.diagonal()

    def remove(self, neuron: int) -> None:
        column = self.inverse[:, neuron] / self.inverse[neuron, neuron]
        self.weights -= torch.outer(self.weights[:, neuron], column)
        self.inverse -= torch.outer(column, self.inverse[neuron])
        self.inverse[neuron, neuron] = 1.0  # out of the game; the caller leaves it out


@torch.no_grad()
def removal_costs(statistics: GroupStatistics) -> Float[Tensor, " neurons"]:
    """Exact cost of removing each neuron alone when the consumers are refitted: sum over rows of W_ij² / [H⁻¹]_jj.

    Args:
        statistics: Statistics of the group.
    """
    return torch.stack([_Consumer(layer, statistics.ridge).costs() for layer in statistics.layers]).sum(dim=0)


@torch.no_grad()
def eliminate(statistics: GroupStatistics, n_keep: int) -> Elimination:
    """Removes the neuron that costs least, refits all consumers, and so on (O(neurons³), one inverse per consumer).

    Args:
        statistics: Statistics of the group.
        n_keep: Neurons that are left at the end, >= 0.
    """
    consumers = [_Consumer(layer, statistics.ridge) for layer in statistics.layers]
    neurons = len(statistics.active)
    gone = torch.zeros(neurons, dtype=torch.bool)
    order, errors = [], [0.0]
    for _ in range(neurons - n_keep):
        costs = torch.stack([consumer.costs() for consumer in consumers]).sum(dim=0)
        costs[gone] = torch.inf
        neuron = int(costs.argmin())
        errors.append(errors[-1] + max(0.0, float(costs[neuron])))
        order.append(neuron)
        gone[neuron] = True
        for consumer in consumers:
            consumer.remove(neuron)
    return Elimination(torch.tensor(order, dtype=torch.int64), torch.tensor(errors, dtype=torch.float64))


@torch.no_grad()
def pivot_order(statistics: GroupStatistics, n_keep: int) -> Int64[Tensor, " kept"]:
    """Neurons that span the others best: pivots of a QR decomposition of the activations with column pivoting.

    Works on the second moments (pivoted Cholesky, the same pivots) of the weighted samples, summed over the consumers,
    after taking out what the inputs that always stay explain. The interpolative decomposition of Chee et al. 2022
    (arXiv 2108.00065) chooses neurons so; its interpolation matrix is what least squares gives. O(neurons² kept).

    Args:
        statistics: Statistics of the group.
        n_keep: Number of neurons to choose.
    """
    left = torch.zeros(len(statistics.active), len(statistics.active), dtype=torch.float64)
    for layer in statistics.layers:
        moments = regularised(layer, 0.0)
        k = layer.fixed
        shared = torch.linalg.solve(moments[:k, :k], moments[:k, k:]) if k else moments[:k, k:]
        left += moments[k:, k:] - moments[k:, :k] @ shared
    chosen: list[int] = []
    for _ in range(n_keep):
        variance = left.diagonal().clone()
        variance[chosen] = -torch.inf
        pivot = int(variance.argmax())
        chosen.append(pivot)
        if variance[pivot] > 0:
            left = left - torch.outer(left[:, pivot], left[pivot]) / variance[pivot]
    return torch.tensor(chosen, dtype=torch.int64)
