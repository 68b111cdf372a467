"""Quality of rendered pictures beside true ones, as means over views."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Optional

from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_prune.data.metrics import MIN_SSIM_SIZE, counted, masked, ssim


@dataclass(frozen=True)
class Quality:
    """Of one view, or means over views."""

    psnr: float
    """In dB."""
    ssim: Optional[float]
    """None where pictures are too small for its window."""


def quality_of(
    picture: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"], used: Optional[Bool[Tensor, "H W"]]
) -> Quality:
    """Quality of one view.

    Args:
        picture: Rendered colours in [0, 1].
        truth: True ones.
        used: The pixels that count. None: all.
    """
    shown, true = (image.moveaxis(-1, 0)[None] for image in (masked(picture, truth, used), truth))
    error = (counted(shown, used) - counted(true, used)).double().square().mean()
    similarity = ssim(true, shown, used) if min(truth.shape[:2]) >= MIN_SSIM_SIZE else None
    return Quality(decibels(float(error)), similarity)


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """Means over views.

    Args:
        qualities: At least one.
    """
    similarities = [quality.ssim for quality in qualities if quality.ssim is not None]
    return Quality(fmean(q.psnr for q in qualities), fmean(similarities) if similarities else None)


def decibels(error: float) -> float:
    """PSNR of a mean square error of colours in [0, 1]; infinite where there is none.

    Args:
        error: At least 0.
    """
    return -10 * math.log10(error) if error > 0 else math.inf
