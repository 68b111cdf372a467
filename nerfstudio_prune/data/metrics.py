"""Metrics of whole views: over the pixels that count, and LPIPS only where it can be had."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Optional
from urllib.parse import urlparse

import torch
from jaxtyping import Bool, Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torchmetrics.functional import structural_similarity_index_measure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights

MIN_IMAGE_SIZE = 32
"""AlexNet's pooling needs images of at least about this many pixels a side."""
MIN_SSIM_SIZE = 6
"""Its window of 11 pixels is mirrored at the border."""


def masked(
    prediction: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"], pixels: Bool[Tensor, "H W"] | None
) -> Float[Tensor, "H W 3"]:
    """A prediction that is the truth wherever pixels do not count, so that nothing there is held against it.

    Args:
        prediction: Rendered colours.
        truth: True ones.
        pixels: The pixels that count. None: all.
    """
    return prediction if pixels is None else torch.where(pixels[..., None], prediction, truth)


def counted(image: Float[Tensor, "1 3 H W"], pixels: Bool[Tensor, "H W"] | None) -> Tensor:
    """Colours of the pixels that count, [1, 3, pixels]; the whole image where all do."""
    return image if pixels is None else image[..., pixels]


def ssim(
    truth: Float[Tensor, "1 3 H W"], prediction: Float[Tensor, "1 3 H W"], pixels: Bool[Tensor, "H W"] | None
) -> float:
    """Structural similarity (Wang et al. 2004), the mean of its map over the pixels that count.

    Args:
        truth: True colours.
        prediction: Rendered ones; see `masked`.
        pixels: The pixels that count. None: all.

    Raises:
        ValueError: If the view is smaller than half of the metric's window.
    """
    if min(truth.shape[-2:]) < MIN_SSIM_SIZE:
        size = tuple(truth.shape[-2:])
        raise ValueError(f"SSIM needs pictures of at least {MIN_SSIM_SIZE} pixels a side, got {size}")
    mean, every = structural_similarity_index_measure(prediction, truth, return_full_image=True)
    return float(mean if pixels is None else every[..., pixels].mean())


class LazyLpips:
    """LPIPS with AlexNet (Zhang et al. 2018, arXiv 1801.03924). No `nn.Module`, so that it is never saved."""

    def __init__(self) -> None:
        self.may_download = True
        """Whether the network's weights may be fetched; a training run sets it to False."""
        self._network: Optional[LearnedPerceptualImagePatchSimilarity] = None
        self._unavailable = False

    def __call__(self, image: Float[Tensor, "1 3 H W"], prediction: Float[Tensor, "1 3 H W"]) -> Optional[float]:
        """Distance between two images with values in [0, 1]; None, with one line on the console, if not available."""
        if self._unavailable:
            return None
        if min(image.shape[-2:]) < MIN_IMAGE_SIZE:
            return self._skip(f"it needs images of at least {MIN_IMAGE_SIZE} pixels, got {tuple(image.shape[-2:])}")
        if self._network is None:
            if not self.may_download and not weights_file().exists():
                return self._skip("its weights are not on this machine and are not downloaded in training")
            try:
                self._network = LearnedPerceptualImagePatchSimilarity(normalize=True)
            except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # no network, or a damaged file
                return self._skip(f"its weights could not be loaded ({error})")
        network = self._network.to(image.device)
        return float(network(image, prediction.clamp(0, 1)))

    def _skip(self, reason: str) -> None:
        self._unavailable = True
        CONSOLE.print(f"[yellow]LPIPS is left out: {reason}. The other metrics are not affected.")


def weights_file() -> Path:
    """Where the host's libraries keep the AlexNet weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(AlexNet_Weights.IMAGENET1K_V1.url).path).name
