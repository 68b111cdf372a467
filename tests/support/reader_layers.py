"""Layers behind a group of neurons with all their samples, and least squares from scratch, for the tests."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from nerfstudio_prune.neurons.obs import SMALLEST_RIDGE
from nerfstudio_prune.neurons.statistics import GroupStatistics, LayerMoments, second_moments


@dataclass
class Reader:
    """A layer behind the neurons with its own samples of what else it reads; all that `LayerMoments` sums up."""

    neurons: Tensor
    """Activations [samples, neurons]."""
    fixed: Tensor
    """Inputs that always stay [samples, fixed], the constant included."""
    weight: Tensor
    """Present weights [outputs, fixed + neurons]."""
    wanted: Tensor
    """Wanted pre-activations [samples, outputs]."""
    weights: Tensor
    """Weight of each sample."""
    rows: Tensor
    """Weight of each output."""

    @property
    def inputs(self) -> Tensor:
        return torch.cat([self.fixed, self.neurons], dim=1)

    def moments(self) -> LayerMoments:
        gram, residual = second_moments(self.inputs, self.wanted - self.inputs @ self.weight.T, self.weights)
        return LayerMoments(self.weight, gram, residual, self.rows, self.fixed.shape[1], self.fixed.shape[1] > 0)

    def best(self, keep: Sequence[int], ridge: float) -> tuple[float, Tensor]:
        """Smallest error and weights with the given neurons, by explicit stacked rows.

        Minimises sum_n s_n |z*_n - W x_n|² / sum_n s_n + strength * |W - W_present|²; weights of other neurons are
        zero and pay their share of the ridge. The strength counts the mean squared input.
        """
        share = (self.weights / self.weights.sum()).sqrt()[:, None]
        strength = max(ridge, SMALLEST_RIDGE) * float((share * self.inputs).square().sum(dim=0).mean())
        stay = [*range(self.fixed.shape[1]), *(self.fixed.shape[1] + k for k in keep)]
        pull = strength**0.5 * torch.eye(self.inputs.shape[1], dtype=torch.float64)
        stacked = torch.cat([share * self.inputs, pull])
        target = torch.cat([share * self.wanted, pull @ self.weight.T])
        solution = torch.linalg.lstsq(stacked[:, stay], target, driver="gelsd", rcond=1e-15).solution
        errors = (target - stacked[:, stay] @ solution).square().sum(dim=0)
        weights = torch.zeros_like(self.weight)
        weights[:, stay] = solution.T
        return float((errors * self.rows).sum()), weights


def reader(
    neurons: Tensor, seed: int, fixed: int = 2, outputs: int = 3, noise: float = 0.3, rows: Optional[Tensor] = None
) -> Reader:
    """A layer that reads the neurons and `fixed` other inputs, the last of which is the constant."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    samples, count = neurons.shape
    others = torch.cat([normal(samples, max(0, fixed - 1)), torch.ones(samples, min(1, fixed))], dim=1).double()
    weight = normal(outputs, others.shape[1] + count)
    wanted = torch.cat([others, neurons], dim=1) @ weight.T + noise * normal(samples, outputs)
    weights = normal(samples).square() + 0.05
    return Reader(neurons, others, weight, wanted, weights, normal(outputs).abs() + 0.1 if rows is None else rows)


def relu_neurons(samples: int, count: int, seed: int = 0, features: int = 4) -> Tensor:
    """Activations of a random layer of ReLUs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, features, generator=generator, dtype=torch.float64)
    w = torch.randn(features, count, generator=generator, dtype=torch.float64)
    return torch.relu(x @ w + 0.3 * torch.randn(count, generator=generator, dtype=torch.float64))


def statistics(readers: Iterable[Reader], ridge: float) -> GroupStatistics:
    readers = list(readers)
    neurons = readers[0].neurons
    moments = tuple(r.moments() for r in readers)
    constant = neurons.amax(dim=0) == neurons.amin(dim=0)
    return GroupStatistics(moments, ridge, (neurons != 0).double().mean(dim=0), constant, neurons.mean(dim=0))


def error(readers: Iterable[Reader], keep: Sequence[int], ridge: float) -> float:
    """Error of all consumers after a refit from scratch."""
    return sum(r.best(keep, ridge)[0] for r in readers)


def ill_conditioned(samples: int, count: int, seed: int) -> Tensor:
    """Neurons that are all nearly the same two, at very different scales."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(samples, 2, generator=generator, dtype=torch.float64)
    mix = torch.rand(2, count, generator=generator, dtype=torch.float64)
    noise = 1e-4 * torch.rand(samples, count, generator=generator, dtype=torch.float64)
    return (base @ mix + noise) * torch.logspace(-3, 2, count, dtype=torch.float64)


CASES: dict[str, Callable[[int], list[Reader]]] = {
    "plain": lambda seed: [reader(relu_neurons(40, 6, seed), seed)],
    "two consumers": lambda seed: [
        reader(relu_neurons(40, 6, seed), seed, fixed=1, outputs=1),
        reader(relu_neurons(40, 6, seed), seed + 1, fixed=3, outputs=4),
    ],
    "bias only": lambda seed: [reader(relu_neurons(40, 6, seed), seed, fixed=1)],
    "nothing fixed": lambda seed: [reader(relu_neurons(40, 6, seed), seed, fixed=0)],
    "nothing lost before": lambda seed: [reader(relu_neurons(40, 6, seed), seed, noise=0.0)],
    "few samples": lambda seed: [reader(relu_neurons(4, 6, seed), seed)],
    "ill-conditioned": lambda seed: [reader(ill_conditioned(40, 6, seed), seed)],
    "copies": lambda seed: [reader(relu_neurons(40, 3, seed).repeat(1, 2), seed)],
    "dead": lambda seed: [reader(relu_neurons(40, 6, seed) * torch.tensor([1.0, 0, 1, 1, 0, 1]).double(), seed)],
    "all dead": lambda seed: [reader(torch.zeros(40, 6, dtype=torch.float64), seed)],
    "one neuron": lambda seed: [reader(relu_neurons(40, 1, seed), seed)],
}
