"""Bits of layers under a bound: the best there is, where a price of bits can find it, and what fits into a file."""

import itertools
import math
import random

import pytest

from nerfstudio_prune.export.bits import choose_bits, mean_bits
from nerfstudio_prune.export.fitting import STEPS_OF_A_BIT, SizeError, fit_mean

WEIGHTS = {"a": 40, "b": 17, "c": 60, "d": 3}


def drawn_errors(seed: int) -> dict[str, dict[int, float]]:
    """Errors of four layers that fall by about four with each bit, and rise in places."""
    rng = random.Random(seed)
    return {
        name: {bits: size * 4.0**-bits * math.exp(rng.gauss(0, 0.5)) for bits in range(2, 9)}
        for name, size in zip(WEIGHTS, (1.0, 30.0, 3.0, 300.0), strict=True)
    }


def every_choice(errors: dict[str, dict[int, float]]) -> list[tuple[int, float, dict[str, int]]]:
    """Bits of storage and error of all assignments of two to eight bits to four layers."""
    choices = [dict(zip(WEIGHTS, bits, strict=True)) for bits in itertools.product(range(2, 9), repeat=4)]
    return [
        (sum(WEIGHTS[n] * b for n, b in choice.items()), sum(errors[n][b] for n, b in choice.items()), choice)
        for choice in choices
    ]


@pytest.mark.parametrize("seed", range(4))
def test_against_every_assignment(seed: int) -> None:
    """Whatever a price of bits can choose is the best of all 2,401 assignments that cost no more. Between two prices
    the result is never worse than the cheaper one's, and never better than what there is."""
    errors, total = drawn_errors(seed), sum(WEIGHTS.values())
    choices = every_choice(errors)
    corners = []
    for price in [10.0**exponent for exponent in spaced(-9, 1, 400)]:
        best = min(choices, key=lambda c: (c[1] + price * c[0], c[0]))
        if best not in corners:
            corners.append(best)
    assert len(corners) > 10
    for cost, error, choice in corners:
        assert choose_bits(errors, WEIGHTS, cost / total) == choice
        assert error == min(e for c, e, _ in choices if c <= cost)
    excess = []
    for mean in spaced(2, 8, 60):
        found = choose_bits(errors, WEIGHTS, mean)
        error = sum(errors[name][bits] for name, bits in found.items())
        best_error = min(e for c, e, _ in choices if c <= mean * total + 1e-6)
        assert mean_bits(found, WEIGHTS) <= mean + 1e-9
        cheaper = [e for c, e, _ in corners if c <= mean * total]
        assert best_error - 1e-15 <= error <= min(cheaper, default=math.inf)
        excess.append(error / best_error)
    assert sorted(excess)[len(excess) // 2] < 1.2


def spaced(low: float, high: float, steps: int) -> list[float]:
    """Evenly spaced numbers from low to high."""
    return [low + (high - low) * i / steps for i in range(steps + 1)]


def test_by_hand() -> None:
    """Two layers of equal size: eight bits in all go where they gain most; the third gains nothing above two bits."""
    errors = {
        "a": {2: 10.0, 3: 4.0, 4: 1.0},
        "b": {2: 5.0, 3: 4.5, 4: 0.5},
        "c": {2: 0.1, 3: 0.2, 4: 0.3},
    }
    weights = dict.fromkeys(errors, 10)
    assert choose_bits(errors, weights, 2.0) == {"a": 2, "b": 2, "c": 2}
    assert choose_bits(errors, weights, 7 / 3) == {"a": 3, "b": 2, "c": 2}
    # On the hull of b the middle is left out: it gains least for its bits.
    assert choose_bits(errors, weights, 8 / 3) == {"a": 4, "b": 2, "c": 2}
    assert choose_bits(errors, weights, 3.0) == {"a": 4, "b": 3, "c": 2}
    assert choose_bits(errors, weights, 8.0) == {"a": 4, "b": 4, "c": 2}
    with pytest.raises(ValueError, match=r"a mean of 1\.9 bits is less than the fewest, 2"):
        choose_bits(errors, weights, 1.9)


def test_few_weights_get_many_bits() -> None:
    """The layers that density and colour come out of need no rule of their own."""
    same = {bits: 4.0**-bits for bits in range(2, 9)}
    assert choose_bits({"wide": same, "narrow": same}, {"wide": 10_000, "narrow": 100}, 4.5) == {"wide": 4, "narrow": 8}


def test_most_bits_that_fit_into_a_file() -> None:
    """The size of a file is known when it is made; the largest mean that fits is found in a few tries."""
    tried: list[float] = []

    def size(mean: float) -> int:
        tried.append(mean)
        return 100 + int(50 * mean)

    means = [step / STEPS_OF_A_BIT for step in range(2 * STEPS_OF_A_BIT, 8 * STEPS_OF_A_BIT)]
    for largest in (200, 233, 300, 499):
        expected = max(mean for mean in means if size(mean) <= largest)
        tried.clear()
        assert fit_mean(size, largest) == expected
        assert tried[:2] == [8, 2] and len(tried) <= 10
    assert fit_mean(size, 500) == 8
    with pytest.raises(SizeError, match=r"at most 199 bytes, got 200 at 2 bits"):
        fit_mean(size, 199)
