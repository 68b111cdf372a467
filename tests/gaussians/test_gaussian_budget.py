"""How many stay."""

import math

import pytest
import torch
from support.splats_by_hand import drawn

from nerfstudio_prune.gaussians.budget import (
    count_from_megabytes,
    count_from_psnr_drop,
    count_from_ratio,
    uncompressed_bytes,
    values_of_gaussian,
)
from nerfstudio_prune.gaussians.selecting import Ranking


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_values_are_those_of_the_tensors(degree: int) -> None:
    """A size that is told and one that is measured must be the same."""
    values = sum(tensor.numel() for _, tensor in drawn(7, degree).items())
    assert values_of_gaussian(degree) * 7 == values
    assert uncompressed_bytes(7, degree) == 4 * values


def test_59_numbers_and_236_bytes_at_degree_3() -> None:
    """By hand: 3 + 3 + 4 + 1 + 48."""
    assert values_of_gaussian(3) == 59
    assert uncompressed_bytes(1, 3) == 236


def test_ratio() -> None:
    """66 % away leave 34 %."""
    assert count_from_ratio(16_000, 0.66) == 5440
    assert count_from_ratio(10, 0.0) == 10
    for ratio in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"pruning_ratio must be in \[0, 1\)"):
            count_from_ratio(10, ratio)


def test_megabytes() -> None:
    """The most that fit, and not one more."""
    count = count_from_megabytes(1.0, 3)
    assert count == 4237
    assert uncompressed_bytes(count, 3) <= 1e6 < uncompressed_bytes(count + 1, 3)
    assert count_from_megabytes(236e-6, 3) == 1
    for megabytes in (0.0, 1e-6, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"target_mb must be at least 0\.000236, the 236 bytes of one Gaussian"):
            count_from_megabytes(megabytes, 3)


RANKING = Ranking(torch.arange(10_000))


def quality(keep: torch.Tensor) -> float:
    """Falls as the number does: 30 dB with all, 20 dB with a tenth."""
    return 30 + 10 * math.log10(len(keep) / 10_000)


def test_psnr_drop_finds_the_number() -> None:
    """1 dB is a factor of 10^-0.1: 7,943 Gaussians."""
    found = count_from_psnr_drop(RANKING, quality, 1.0, 100)
    assert 7943 <= found.count <= 7943 * 1.02
    assert found.dense_psnr == 30
    assert 29 <= found.psnr == quality(torch.arange(found.count))
    assert len(found.measured) == 10
    assert found.measured[0].count == 10_000


def test_a_drop_that_the_floor_meets_comes_close_to_the_floor() -> None:
    """Everything but the floor is superfluous: the search must get there, not below."""
    found = count_from_psnr_drop(RANKING, lambda keep: 30.0, 0.0, 100)
    assert 100 <= found.count <= 110
    small = count_from_psnr_drop(Ranking(torch.arange(20)), lambda keep: 30.0, 0.0, 1)
    assert small.count == 1
    assert len(small.measured) < 10


def test_nothing_can_leave() -> None:
    """Every Gaussian counts: all stay."""
    found = count_from_psnr_drop(RANKING, lambda keep: 30.0 if len(keep) == 10_000 else 10.0, 3.0, 100)
    assert found.count == 10_000
    assert found.psnr == 30
    assert count_from_psnr_drop(Ranking(torch.arange(1)), lambda keep: 30.0, 1.0, 1).count == 1


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_was_measured_within_the_drop_even_if_quality_goes_up_and_down(seed: int) -> None:
    """Removing a floater makes pictures better, so PSNR is not monotonous. The guarantee must not need that."""
    noise = torch.randn(10_001, generator=torch.Generator().manual_seed(seed))

    def rough(keep: torch.Tensor) -> float:
        return quality(keep) + float(noise[len(keep)])

    found = count_from_psnr_drop(RANKING, rough, 2.0, 100)
    assert found.psnr == rough(torch.arange(found.count)) >= found.dense_psnr - 2
    assert (found.count, found.psnr) in [(m.count, m.psnr) for m in found.measured]
    below = [m for m in found.measured if m.count < found.count]
    assert all(m.psnr < found.dense_psnr - 2 for m in sorted(below, key=lambda m: m.count)[-1:])


def test_the_best_by_rank_are_measured() -> None:
    """Which Gaussians stay must be those that the cut will keep."""
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))

    def check(keep: torch.Tensor) -> float:
        assert keep.tolist() == sorted(order[: len(keep)].tolist())
        return 1.0

    count_from_psnr_drop(Ranking(order), check, 1.0, 100)


def test_errors() -> None:
    """Each says which option, what was found, what is possible."""
    with pytest.raises(ValueError, match="max_psnr_drop needs evaluation views to measure on, and there are none"):
        count_from_psnr_drop(RANKING, None, 1.0, 100)
    for drop in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="max_psnr_drop must be a number of dB"):
            count_from_psnr_drop(RANKING, quality, drop, 100)
    with pytest.raises(ValueError, match=r"floor must be in \[1, 10000\]"):
        count_from_psnr_drop(RANKING, quality, 1.0, 0)
    with pytest.raises(ValueError, match="measurements must be at least 2"):
        count_from_psnr_drop(RANKING, quality, 1.0, 100, measurements=1)
    with pytest.raises(ValueError, match="the PSNR of 10,000 Gaussians is not a number"):
        count_from_psnr_drop(RANKING, lambda keep: math.nan, 1.0, 100)
