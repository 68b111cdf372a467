"""Which pixels of a view count: one rule for training, calibration and every metric."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, Optional

import torch
from jaxtyping import Bool
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.utils.data_utils import get_image_mask_tensor_from_path
from PIL import Image
from torch import Tensor

THREADS = 8
"""Files that are read at the same time."""
UNREADABLE = (OSError, SyntaxError, ValueError, AssertionError, Image.DecompressionBombError)
"""What Pillow and the host raise for a file that has gone, is broken, or was changed."""


class CountedDataset(InputDataset):
    """Views whose `mask` marks the pixels that count, wherever something limits them.

    Those are the pixels that the host's sampler draws: within the view's mask, else within the crop radius of fisheye
    lenses. The host applies the radius in its sampler only, so that whatever else reads the views sees black corners.
    """

    ignore_mask = False
    """Whether masks say nothing, as by the pixel sampler's option of that name."""

    @property
    def crop_radius(self) -> Optional[float]:
        """Radius of the lens in pixels; None where there is no border."""
        radius = (self.cameras.metadata or {}).get("fisheye_crop_radius")
        return None if radius is None else float(radius)

    @property
    def limited(self) -> str:
        """What limits the pixels, in words; empty where all count."""
        if self._dataparser_outputs.mask_filenames is not None and not self.ignore_mask:
            return "masks"
        return "fisheye_crop_radius" if self.crop_radius is not None else ""

    def pixels(self, view: int) -> Optional[Bool[Tensor, "height width"]]:
        """The pixels of a view that count; None where all of them do. Reads the mask, and no picture.

        Args:
            view: Index of the view.
        """
        if self.limited != "masks":
            return self._within_lens(*self._stored_size(view))
        filenames = self._dataparser_outputs.mask_filenames
        assert filenames is not None
        try:
            return get_image_mask_tensor_from_path(filenames[view], self.scale_factor)[..., 0]
        except UNREADABLE as error:
            raise ValueError(f"the mask {filenames[view]} cannot be read: {error}") from error

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """Picture of a view, and its `mask` where something limits the pixels.

        Args:
            image_idx: Index of the view.
            image_type: Type of the colours.

        Raises:
            ValueError: If a file cannot be read. Names it.
        """
        try:
            data = super().get_data(image_idx, image_type)
        except UNREADABLE as error:
            name = self.image_filenames[image_idx]
            raise ValueError(f"the picture {name}, or its mask, cannot be read: {error}") from error
        if self.limited != "masks":
            data.pop("mask", None)
            lens = self._within_lens(*data["image"].shape[:2])
            if lens is not None:
                data["mask"] = lens[..., None]
        return data

    def _stored_size(self, view: int) -> tuple[int, int]:
        """Height and width of a picture as it is read."""
        return int(self.cameras.height[view]), int(self.cameras.width[view])

    def _within_lens(self, height: int, width: int) -> Optional[Bool[Tensor, "height width"]]:
        radius = self.crop_radius
        return None if radius is None else crop_circle(height, width, radius)

    def subset(self, views: list[int]) -> "CountedDataset":
        """The same data set with some of its views.

        Args:
            views: Their indices.
        """
        outputs = self._dataparser_outputs
        masks = outputs.mask_filenames
        part = replace(
            outputs,
            image_filenames=[outputs.image_filenames[view] for view in views],
            mask_filenames=None if masks is None else [masks[view] for view in views],
            cameras=outputs.cameras[torch.tensor(views, dtype=torch.long)],
        )
        dataset = type(self)(part, self.scale_factor)
        dataset.ignore_mask = self.ignore_mask
        return dataset


def crop_circle(height: int, width: int, radius: float) -> Bool[Tensor, "height width"]:
    """Pixels that a circle around the middle of a picture touches: those that the host's `sample_method_fisheye` draws.

    Args:
        height: Height of the picture.
        width: Width of the picture.
        radius: Radius of the circle in pixels.
    """

    def distances(size: int) -> Tensor:
        """From the middle to the nearer edge of each pixel; the middle is itself the edge of one."""
        edges = (torch.arange(size + 1) - size // 2).abs()
        return torch.minimum(edges[:-1], edges[1:]).double()

    return distances(height)[:, None] ** 2 + distances(width) ** 2 < radius**2


def counted_pixels(data: Mapping[str, Any]) -> Bool[Tensor, "height width"]:
    """The pixels that count.

    Args:
        data: A view as its data set gives it.
    """
    if "mask" in data:
        return data["mask"][..., 0].bool()
    return torch.ones(data["image"].shape[:2], dtype=torch.bool)


def count_pixels(dataset: CountedDataset) -> list[tuple[int, int]]:
    """For each view, pixels that count and pixels in all. Reads the masks where there are any, and no picture."""

    def count(view: int) -> tuple[int, int]:
        pixels = dataset.pixels(view)
        whole = int(dataset.cameras.height[view] * dataset.cameras.width[view])
        return (whole, whole) if pixels is None else (int(pixels.sum()), pixels.numel())

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(count, range(len(dataset))))
