"""When a training counts as slow."""

import pytest

from nerfstudio_prune.engine.auto_start import Plateau, slope


def test_slope_by_hand() -> None:
    """The least-squares line: exact on a line, by hand on three points, and nothing on one."""
    assert slope([1.0, 3.0, 5.0, 7.0]) == pytest.approx(2.0)
    assert slope([0.0, 1.0, 0.0]) == 0.0
    assert slope([0.0, 0.0, 3.0]) == pytest.approx(1.5)
    assert slope([4.0]) == slope([]) == 0.0


def test_says_nothing_before_the_window_is_full() -> None:
    """The first steps of a training are flat too: a grey picture. A short look would prune at once."""
    plateau = Plateau(window=5, least_slope=0.1)
    assert [plateau.add(20.0) for _ in range(6)] == [False, False, False, False, True, True]


def test_noise_does_not_count_but_the_trend_does() -> None:
    """The PSNR of a batch jumps by a decibel from step to step; a rise of 0.02 dB a step must show through that."""
    noise = [1.0, -1.0, 0.5, -0.5] * 50
    rising, flat = Plateau(100, 0.01), Plateau(100, 0.01)
    assert not any([rising.add(10 + 0.02 * i + n) for i, n in enumerate(noise)])
    assert [flat.add(10 + 0.001 * i + n) for i, n in enumerate(noise)][-1]
