"""How many Gaussians stay: from a share, a size in memory, or a largest loss of quality."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from jaxtyping import Int64
from torch import Tensor

from nerfstudio_prune.gaussians.selecting import Ranking

BYTES_PER_VALUE = 4
MEGABYTE = 1e6

Psnr = Callable[[Int64[Tensor, " kept"]], float]
"""Indices of Gaussians that stay -> PSNR of the pictures of these alone, in dB."""


def values_of_gaussian(sh_degree: int) -> int:
    """Numbers that describe one Gaussian: centre, scales, quaternion, opacity, harmonics; 59 at degree 3.

    Args:
        sh_degree: Degree of the spherical harmonics, >= 0.
    """
    return 3 + 3 + 4 + 1 + 3 * (sh_degree + 1) ** 2


def uncompressed_bytes(count: int, sh_degree: int) -> int:
    """Bytes of a scene whose numbers are all float32, as in a `.ply` without normals; 236 a Gaussian at degree 3.

    Args:
        count: Gaussians.
        sh_degree: Degree of the spherical harmonics, >= 0.
    """
    return count * values_of_gaussian(sh_degree) * BYTES_PER_VALUE


def count_from_ratio(count: int, pruning_ratio: float) -> int:
    """Gaussians that stay when a share leaves, rounded to the nearest.

    Args:
        count: Gaussians that there are.
        pruning_ratio: Share that leaves, in [0, 1).

    Raises:
        ValueError: If the share is out of range.
    """
    if not 0 <= pruning_ratio < 1:
        raise ValueError(f"pruning_ratio must be in [0, 1), got {pruning_ratio}")
    return round(count * (1 - pruning_ratio))


def count_from_megabytes(megabytes: float, sh_degree: int) -> int:
    """Most Gaussians that fit into a size, uncompressed: `uncompressed_bytes` and not those of a small file.

    Args:
        megabytes: Size in units of 1,000,000 bytes, > 0.
        sh_degree: Degree of the spherical harmonics of what will be stored.

    Raises:
        ValueError: If not even one fits.
    """
    each = uncompressed_bytes(1, sh_degree)
    if not each / MEGABYTE <= megabytes < math.inf:
        raise ValueError(
            f"target_mb must be at least {each / MEGABYTE:g}, the {each} bytes of one Gaussian of degree {sh_degree} "
            f"in float32, got {megabytes:g}"
        )
    return math.floor(megabytes * MEGABYTE / each)


@dataclass(frozen=True)
class Measurement:
    """One point of the curve that the search looked at."""

    count: int
    """Gaussians that stayed."""
    psnr: float
    """PSNR of these alone, right after the cut, in dB."""


@dataclass(frozen=True)
class PsnrBudget:
    """What a search for the fewest Gaussians within a loss of quality found."""

    count: int
    """Gaussians that stay."""
    psnr: float
    """PSNR of these, as measured, in dB."""
    dense_psnr: float
    """PSNR of the whole scene in dB."""
    measured: tuple[Measurement, ...]
    """All measurements, in their order."""


def count_from_psnr_drop(
    ranking: Ranking, psnr: Optional[Psnr], max_psnr_drop: float, floor: int, measurements: int = 10
) -> PsnrBudget:
    """Searches the fewest Gaussians whose pictures lose at most so many dB right after the cut.

    Bisection over the logarithm of the number, on one ranking. The PSNR need not fall with every Gaussian that leaves,
    so what is found is not the smallest number in every case. It is certain that the number was itself measured and is
    within the drop (or is all Gaussians), that it is no smaller than the floor, and that the closest smaller number
    that was tried lost more. With 10 measurements numbers differ by about 1 % where the floor is a thousandth.

    Args:
        ranking: All Gaussians, best first.
        psnr: Measures what stays. None: there are no evaluation views.
        max_psnr_drop: Largest loss in dB, >= 0.
        floor: Fewest that may stay, in [1, N].
        measurements: Most calls of `psnr`, that of the whole scene among them, at least 2.

    Raises:
        ValueError: If there are no evaluation views, an argument is out of range, or a PSNR is not a number.
    """
    count = len(ranking.order)
    if psnr is None:
        raise ValueError("max_psnr_drop needs evaluation views to measure on, and there are none")
    if not 0 <= max_psnr_drop < math.inf:
        raise ValueError(f"max_psnr_drop must be a number of dB that is at least 0, got {max_psnr_drop}")
    if not 1 <= floor <= count:
        raise ValueError(f"floor must be in [1, {count}], got {floor}")
    if measurements < 2:
        raise ValueError(f"measurements must be at least 2, got {measurements}")
    measured: list[Measurement] = []

    def measure(n_keep: int) -> float:
        value = float(psnr(ranking.keep(n_keep)))
        if math.isnan(value):
            raise ValueError(f"the PSNR of {n_keep:,} Gaussians is not a number; nothing was pruned")
        measured.append(Measurement(n_keep, value))
        return value

    dense = measure(count)
    best = measured[0]
    too_few = floor - 1  # the largest number that is known, or not allowed, to do
    while len(measured) < measurements and best.count - too_few > 1:
        between = round(math.sqrt(max(too_few, 1) * best.count))
        n_keep = min(max(between, too_few + 1), best.count - 1)
        if measure(n_keep) >= dense - max_psnr_drop:
            best = measured[-1]
        else:
            too_few = n_keep
    return PsnrBudget(best.count, best.psnr, dense, tuple(measured))
