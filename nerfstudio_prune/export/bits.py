"""How many bits each layer gets, so that all together lose least at a bounded mean. Knows numbers only."""

import math
from collections.abc import Mapping

LayerErrors = Mapping[int, float]
"""Bits of a weight, every number that may be chosen -> error of a layer."""


def choose_bits(errors: Mapping[str, LayerErrors], weights: Mapping[str, int], mean: float) -> dict[str, int]:
    """Bits of each layer, with a small sum of errors at a bounded mean of bits over all weights.

    Starts with the fewest bits and takes the steps along every layer's lower convex hull, those first whose bits gain
    most, as long as they fit: what a Lagrange multiplier would choose (Shoham and Gersho 1988). Whatever some price of
    bits can choose is the best at what it costs. Between two prices there may be better choices that none finds; there
    single layers are raised as far as the rest goes, the one that gains most first, which need not be the best.

    Args:
        errors: Name of each layer -> its errors, finite, over the same numbers of bits; they may rise in places.
        weights: Name of each layer -> how many weights it has, >= 1.
        mean: Largest mean of bits over all weights, at least the fewest bits.

    Returns:
        Name of each layer -> bits, in the order of the errors.

    Raises:
        ValueError: If even the fewest bits are more.
    """
    chosen = {name: min(own) for name, own in errors.items()}
    # Whole numbers: a mean that is exactly reached must not be missed by how it is rounded.
    left = math.floor(mean * sum(weights[name] for name in errors) + 1e-6)
    left -= sum(weights[name] * bits for name, bits in chosen.items())
    if left < 0:
        raise ValueError(f"a mean of {mean:g} bits is less than the fewest, {min(chosen.values())}")
    steps = [(gain / weights[name], name, bits) for name, own in errors.items() for gain, bits in _hull(own)]
    for _, name, bits in sorted(steps, key=lambda step: -step[0]):
        cost = weights[name] * (bits - chosen[name])
        if cost > left:
            break
        chosen[name], left = bits, left - cost
    while raised := _best_raise(errors, weights, chosen, left):
        name, bits = raised
        left -= weights[name] * (bits - chosen[name])
        chosen[name] = bits
    return chosen


def mean_bits(bits: Mapping[str, int], weights: Mapping[str, int]) -> float:
    """Mean of bits over all weights.

    Args:
        bits: Name of each layer -> bits of its weights.
        weights: Name of each layer -> how many it has.
    """
    return sum(weights[name] * own for name, own in bits.items()) / sum(weights[name] for name in bits)


def _hull(errors: LayerErrors) -> list[tuple[float, int]]:
    """Steps along the lower convex hull from the fewest bits to the least error: gain for a bit more, bits after it."""
    steps: list[tuple[float, int]] = []
    now = min(errors)
    while True:
        gains = [((errors[now] - errors[bits]) / (bits - now), bits) for bits in errors if bits > now]
        gain, bits = max(gains, default=(0.0, now))
        if gain <= 0:
            return steps
        steps.append((gain, bits))
        now = bits


def _best_raise(
    errors: Mapping[str, LayerErrors], weights: Mapping[str, int], chosen: Mapping[str, int], left: int
) -> tuple[str, int] | None:
    """The layer and its bits that gain most of all that still fit; None if none gains anything."""
    gains = [
        (own[chosen[name]] - error, -weights[name] * bits, name, bits)
        for name, own in errors.items()
        for bits, error in own.items()
        if 0 < weights[name] * (bits - chosen[name]) <= left
    ]
    gain, _, name, bits = max(gains, default=(0.0, 0, "", 0))
    return (name, bits) if gain > 0 else None
