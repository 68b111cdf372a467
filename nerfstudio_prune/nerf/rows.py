"""Rays of a view, some rows of pixels at a time: the host makes those of a whole one by some 130 numbers a pixel."""

from collections.abc import Iterator
from typing import Optional

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox

RAYS_AT_ONCE = 2**15
"""Rays that are made at once, about: a smaller picture is rendered as the host does."""


def rows_of_rays(camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Iterator[RayBundle]:
    """The rays of a view.

    Args:
        camera: Its camera, one alone.
        obb_box: What the view is cropped to; None: nothing.

    Yields:
        Rays of some rows, [rows, width], from the top on; equal to the host's for the whole view.
    """
    height, width = int(camera.height.item()), int(camera.width.item())
    rows = max(1, RAYS_AT_ONCE // width)
    if height <= rows:
        yield camera.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
        return
    coords = camera.get_image_coords(index=(0,) if camera.shape else None)
    for begin in range(0, height, rows):
        part = coords[begin : begin + rows].to(camera.device)
        yield camera.generate_rays(camera_indices=0, coords=part, keep_shape=True, obb_box=obb_box)
