"""How wrong each network is: a mean over the last training steps, for a person to look at; training never does."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor, nn

DECAY = 0.99
"""What a step counts for when another one has followed: the mean is that of the last hundred steps or so."""


class CellErrors(nn.Module):
    """Mean squared error of each network: sums of squares times weights, and of the weights, which fade with each step.

    Begins with no network. Tensors are replaced and never written to: a picture keeps those of its time.

    Buffers: `sums` and `weights`, a number >= 0 for each network.
    """

    sums: Float[Tensor, " networks"]
    weights: Float[Tensor, " networks"]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(0))
        self.register_buffer("weights", torch.zeros(0))

    def forget(self, num_networks: int) -> None:
        """Nothing is known of any network.

        Args:
            num_networks: How many there are from now on.
        """
        self.sums, self.weights = self.sums.new_zeros(num_networks), self.weights.new_zeros(num_networks)

    def put(self, sums: Float[Tensor, " networks"], weights: Float[Tensor, " networks"]) -> None:
        """Takes up what another one knew.

        Args:
            sums: Its sums.
            weights: Its weights.
        """
        self.sums, self.weights = sums.to(self.sums, copy=True), weights.to(self.weights, copy=True)

    @torch.no_grad()
    def note(self, sums: Float[Tensor, " networks"], weights: Float[Tensor, " networks"]) -> None:
        """Takes up a training step.

        Args:
            sums: Squared errors times weights, finite, of each network.
            weights: The weights, finite; 0 where the step says nothing of a network, which keeps its mean.
        """
        self.sums = DECAY * self.sums + sums.to(self.sums)
        self.weights = DECAY * self.weights + weights.to(self.weights)

    def replace(self, networks: Int64[Tensor, " some"], squares: Float[Tensor, " some"]) -> None:
        """Networks have become others, of which one measurement is all that is known.

        Args:
            networks: Their numbers.
            squares: Mean squared error of each, finite.
        """
        self.sums = self.sums.index_copy(0, networks, squares.to(self.sums))
        self.weights = self.weights.index_fill(0, networks, 1.0)

    def keep(self, stays: Bool[Tensor, " networks"]) -> None:
        """Networks leave.

        Args:
            stays: Whether each stays.
        """
        self.sums, self.weights = self.sums[stays], self.weights[stays]

    def roots(self) -> Float[Tensor, " networks"]:
        """Root of the mean squared error of each network, in [0, 1]; 0 where nothing is known."""
        known = self.weights > 0
        return (self.sums / self.weights.where(known, 1.0)).where(known, 0.0).clamp(0, 1).sqrt()


@dataclass(frozen=True, eq=False)
class Shares:
    """What the samples of a batch of rays have to do with the colours of their pixels."""

    network: Int32[Tensor, " samples"]
    """Network of each sample."""
    ray: Int32[Tensor, " samples"]
    """Ray of each sample."""
    weight: Float[Tensor, " samples"]
    """Contribution of each sample to its pixel, in [0, 1]; NaN where it is no number."""


def attributed(
    shares: Shares, squares: Float[Tensor, " rays"], num_networks: int
) -> tuple[Float[Tensor, " networks"], Float[Tensor, " networks"]]:
    """Errors of pixels, spread over the networks that made them. What is no number is as wrong, and counts as much, as
    can be.

    Args:
        shares: Who made them.
        squares: Squared error of each pixel, the mean of its channels, in [0, 1].
        num_networks: Number of networks.

    Returns:
        For each network the sum of weight times squared error over its samples, and that of the weights; finite.
    """
    network, weight = shares.network.long(), shares.weight.nan_to_num(1.0)
    squares = squares.nan_to_num(1.0).clamp(0, 1).to(weight)
    nothing = weight.new_zeros(num_networks)
    return (
        nothing.index_add(0, network, weight * squares.index_select(0, shares.ray)),
        nothing.index_add(0, network, weight),
    )
