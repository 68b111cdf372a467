"""What a network costs, read off its tensors."""

from collections.abc import Iterable

from torch import nn


def count_parameters(layers: Iterable[nn.Linear]) -> int:
    """Number of weights and biases."""
    return sum(p.numel() for layer in layers for p in layer.parameters())


def macs_per_sample(layers: Iterable[nn.Linear]) -> int:
    """Multiply-accumulates of one evaluation at one sample; biases and activations are not counted."""
    return sum(layer.weight.numel() for layer in layers)
