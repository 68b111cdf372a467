"""Which neurons thousands of networks can do without if what reads them is refitted: exact costs, all at once.

The room of neurons does the same for one layer: taking an input away costs sum_i W_ij² / [H⁻¹]_jj (optimal brain
surgeon, Hassibi and Stork 1993; for columns of a layer: ZipLM, arXiv 2302.04089). Here every tensor has the networks in
front.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SMALLEST_RIDGE = 1e-12
"""Of the mean squared input: keeps the inverse finite when inputs depend on each other and no ridge is wanted."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What one layer of every network reads, and how far it is from what it should give. All in float64.

    Inputs are ordered: those that always stay, the constant 1 of the bias among them, then neurons.
    """

    weight: Float[Tensor, "networks inputs outputs"]
    """Present weights, biases among them."""
    gram: Float[Tensor, "networks inputs inputs"]
    """Mean of x xᵀ."""
    residual: Float[Tensor, "networks inputs outputs"]
    """Mean of x (z* - z)ᵀ, where z are the present and z* the wanted pre-activations."""
    rows: Float[Tensor, "networks outputs"]
    """How much the squared error of each output counts."""
    fixed: int
    """Number of inputs that always stay."""

    @classmethod
    def of(
        cls,
        inputs: Float[Tensor, "networks points inputs"],
        weight: Float[Tensor, "networks inputs outputs"],
        wanted: Float[Tensor, "networks points outputs"],
        rows: Float[Tensor, "networks outputs"],
        fixed: int,
    ) -> "Moments":
        """Moments over points, every point counted alike.

        Args:
            inputs: x, the constant among them.
            weight: Present weights.
            wanted: z*, pre-activations that the layer should give.
            rows: How much the squared error of each output counts.
            fixed: Number of inputs that always stay.
        """
        x, w = inputs.double(), weight.double()
        count = inputs.shape[1]
        gram = x.transpose(1, 2) @ x / count
        residual = x.transpose(1, 2) @ (wanted.double() - x @ w) / count
        return cls(w, (gram + gram.transpose(1, 2)) / 2, residual, rows.double(), fixed)

    def regularised(self, ridge: float) -> Float[Tensor, "networks inputs inputs"]:
        """Second moments plus the ridge, raised tenfold for networks of which they are not safely positive definite.

        Args:
            ridge: Share of each network's mean squared input, >= 0.
        """
        mean = self.gram.diagonal(dim1=1, dim2=2).mean(dim=1)
        strength = (max(ridge, SMALLEST_RIDGE) * mean).clamp(min=torch.finfo(torch.float64).tiny)
        identity = torch.eye(self.gram.shape[1], dtype=torch.float64, device=self.gram.device)
        while True:
            found = torch.linalg.cholesky_ex(self.gram + strength[:, None, None] / 2 * identity).info
            weak = (found != 0) & (strength < mean)
            if not bool(weak.any()):
                return self.gram + strength[:, None, None] * identity
            strength = torch.where(weak, 10 * strength, strength)


@dataclass(frozen=True, eq=False)
class Elimination:
    """Greedy backward elimination, in every network for itself."""

    order: Int64[Tensor, "networks removed"]
    """Neurons in the order in which they leave."""
    errors: Float[Tensor, "networks removed_and_none"]
    """What 0, 1, ... removals with refit add to what a refit minimises, over all layers that read them: the squared
    error, and the ridge times the squared change of the weights, those that leave among them. 0 is the refit of all
    neurons, not the present weights."""

    def kept(self, neurons: int) -> Int64[Tensor, "networks kept"]:
        """Neurons that are left, sorted.

        Args:
            neurons: Number of neurons before.
        """
        stays = torch.ones(len(self.order), neurons, dtype=torch.bool, device=self.order.device)
        stays.scatter_(1, self.order, False)
        return stays.nonzero()[:, 1].view(len(self.order), neurons - self.order.shape[1])


@torch.no_grad()
def eliminate(layers: Sequence[Moments], n_keep: int, ridge: float) -> Elimination:
    """Removes in each network the neuron that costs least, refits all layers that read it, and so on.

    Args:
        layers: Moments of all layers that read the neurons.
        n_keep: Neurons that are left at the end, >= 0.
        ridge: Share of the mean squared input by which the refit draws weights to their present values, >= 0.
    """
    inverses, weights = [], []
    for layer in layers:
        moments = layer.regularised(ridge)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
        best = layer.weight + inverse @ layer.residual
        # Inputs that always stay take part through the inverse of the whole matrix.
        inverses.append(inverse[:, layer.fixed :, layer.fixed :].clone())
        weights.append(best[:, layer.fixed :] * layer.rows.sqrt()[:, None])
    networks, neurons = weights[0].shape[:2]
    each = torch.arange(networks, device=weights[0].device)
    gone = torch.zeros(networks, neurons, dtype=torch.bool, device=each.device)
    order = each.new_zeros(networks, neurons - n_keep)
    errors = weights[0].new_zeros(networks, neurons - n_keep + 1)
    for step in range(neurons - n_keep):
        costs = torch.zeros_like(gone, dtype=torch.float64)
        for inverse, weight in zip(inverses, weights, strict=True):
            costs += weight.square().sum(dim=2) / inverse.diagonal(dim1=1, dim2=2)
        least, neuron = costs.masked_fill(gone, torch.inf).min(dim=1)
        order[:, step] = neuron
        errors[:, step + 1] = errors[:, step] + least.clamp(min=0)
        gone[each, neuron] = True
        for inverse, weight in zip(inverses, weights, strict=True):
            row = inverse[each, neuron]
            column = inverse[each, :, neuron] / row[each, neuron, None]
            weight.sub_(column[:, :, None] * weight[each, neuron][:, None])
            inverse.sub_(column[:, :, None] * row[:, None])
            inverse[each, neuron, neuron] = 1.0  # out of the game
    return Elimination(order, errors)


@torch.no_grad()
def refit(layer: Moments, keep: Int64[Tensor, "networks kept"], ridge: float) -> Float[Tensor, "networks _ outputs"]:
    """Least squares over the inputs that stay, towards the wanted pre-activations.

    Minimises the mean of |z* - W x|² plus the ridge times |W - W_present|².

    Args:
        layer: Moments of a layer.
        keep: Neurons that stay in each network, sorted.
        ridge: Share of the mean squared input, >= 0.

    Returns:
        Weights for the fixed inputs and the neurons that stay, in this order.
    """
    networks, inputs, _ = layer.weight.shape
    each = torch.arange(networks, device=keep.device)[:, None]
    fixed = torch.arange(layer.fixed, device=keep.device).expand(networks, -1)
    stay = torch.cat([fixed, layer.fixed + keep], dim=1)
    leaves = torch.ones(networks, inputs, dtype=torch.bool, device=keep.device).scatter_(1, stay, False)
    gone = leaves.nonzero()[:, 1].view(networks, inputs - stay.shape[1])
    # Only the correction is solved for: what stays and fits already is not rounded.
    between = layer.gram[each[:, :, None], stay[:, :, None], gone[:, None]]
    wanted = layer.residual[each, stay] + between @ layer.weight[each, gone]
    moments = layer.regularised(ridge)[each[:, :, None], stay[:, :, None], stay[:, None]]
    return layer.weight[each, stay] + torch.cholesky_solve(wanted, torch.linalg.cholesky(moments))
