"""Draws of pixels within masks, for every pixel sampler of the host."""

from dataclasses import replace
from typing import Any, Optional

import torch
from jaxtyping import Int
from nerfstudio.data.pixel_samplers import PixelSampler
from torch import Tensor


def draw_within_masks(sampler: PixelSampler) -> PixelSampler:
    """Lets a sampler draw within masks whatever the number of views, their sizes and the number of pixels that count.

    The host's own rejection squeezes a single view's axis away, and where pixels are few it asks for more different
    ones than there are. Where it works, the draws are the same.

    Args:
        sampler: The host's sampler; changed in place.

    Returns:
        The sampler.
    """
    sampler.rejection_sample_mask = MaskedDraw(sampler.config.max_num_iterations)  # type: ignore[method-assign]
    # Without rejection the host wants different pixels in a batch, and fails where there are too few. Which masks are
    # ignored is the data set's to say. A copy: the host shares one configuration between its samplers.
    sampler.config = replace(sampler.config, rejection_sample_mask=True, ignore_mask=False)
    return sampler


class MaskedDraw:
    """Draws pixels evenly within masks.

    Args:
        rounds: How often pixels are drawn anew that fell outside; then they are drawn from a list of those inside.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self._listed: Optional[Tensor] = None
        self._pixels = torch.zeros(0, 3, dtype=torch.long)

    def __call__(
        self, mask: Tensor, num_samples: int, num_images: int, image_height: int, image_width: int, device: Any
    ) -> Int[Tensor, "samples 3"]:
        """Draws.

        Args:
            mask: Masks of all views, of any shape that holds views x height x width values in this order.
            num_samples: Number of draws.
            num_images: Number of views.
            image_height: Height of all of them.
            image_width: Width of all of them.
            device: Where the indices are wanted.

        Returns:
            View, row and column of each.

        Raises:
            ValueError: If no pixel lies within the masks.
        """
        valid = mask.reshape(num_images, image_height, image_width)
        size = torch.tensor([num_images, image_height, image_width], device=device)
        indices = (torch.rand((num_samples, 3), device=device) * size).long()
        outside = ~self._look_up(valid, indices)
        for _ in range(self.rounds):
            missing = int(outside.sum())
            if missing == 0:
                return indices
            indices[outside] = (torch.rand((missing, 3), device=device) * size).long()
            outside = ~self._look_up(valid, indices)
        missing = int(outside.sum())
        if missing:
            pixels = self._list(mask, valid).to(device)
            indices[outside] = pixels[torch.randint(len(pixels), (missing,), device=device)]
        return indices

    @staticmethod
    def _look_up(valid: Tensor, indices: Tensor) -> Tensor:
        view, row, column = indices.to(valid.device).unbind(-1)
        return valid[view, row, column].bool().to(indices.device)

    def _list(self, mask: Tensor, valid: Tensor) -> Tensor:
        """All pixels within the masks; the masks of a batch are the same for many steps."""
        if self._listed is not mask:
            self._listed, self._pixels = mask, valid.nonzero()
        if len(self._pixels) == 0:
            raise ValueError("the masks leave no pixel to draw, or none that is far enough from their border")
        return self._pixels
