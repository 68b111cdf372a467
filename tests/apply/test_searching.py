"""The search for the smallest size that keeps a promise, against trying every size."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from nerfstudio_prune.apply.quality import Drop
from nerfstudio_prune.apply.searching import SHARES, SMALLEST, Probe, smallest
from nerfstudio_prune.core.events import Sizes


def by_loss(loss: Callable[[float], float], error: float = 0.0) -> Callable[[float], Probe]:
    """Cuts that lose what a function of the share says."""
    return lambda share: Probe(share, None, Sizes(), Drop(loss(share), error, 30 - loss(share)))


def test_shares_are_evenly_spaced() -> None:
    """On a logarithmic scale, and all of them remove something."""
    factors = [second / first for first, second in pairwise(SHARES)]
    assert SHARES[0] == pytest.approx(SMALLEST) and SHARES[-1] < 1
    assert min(factors) == pytest.approx(max(factors)) and SHARES[-1] * factors[0] == pytest.approx(1)


@pytest.mark.parametrize("allowed", [0.001, 0.03, 0.1, 0.5, 3.0, 100.0])
def test_it_finds_what_trying_all_finds(allowed: float) -> None:
    """In a twelfth of the time: five sizes of 24 are tried."""
    probe = by_loss(lambda share: 0.02 / share**2 - 0.02)
    best, tried = smallest(SHARES, probe, allowed)
    expected = next((share for share in SHARES if probe(share).drop.mean <= allowed), None)
    assert (None if best is None else best.share) == expected
    assert len(tried) <= 5


def test_errors_count() -> None:
    """A mean loss that is small enough by chance is not: two standard errors stand above it."""
    assert smallest(SHARES, by_loss(lambda share: 0.05, 0.07), 0.2)[0] is not None
    assert smallest(SHARES, by_loss(lambda share: 0.05, 0.08), 0.2)[0] is None


def test_what_it_gives_was_tried() -> None:
    """Losses need not rise with every cut; whatever is given keeps the promise itself."""
    losses = {share: 0.1 if i % 3 else 0.5 for i, share in enumerate(SHARES)}
    best, tried = smallest(SHARES, by_loss(losses.__getitem__), 0.2)
    assert best in tried and losses[best.share] == 0.1


def test_nothing_to_search() -> None:
    """Of no sizes none keeps a promise."""
    assert smallest([], by_loss(lambda share: 0.0), 1.0) == (None, [])
