"""Pictures without the distortion of their lenses, and the pinhole cameras that they belong to then."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Optional

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Shaped, UInt8
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from nerfstudio_prune.data.pixels import UNREADABLE, CountedDataset

MAPS = 4
"""Lenses whose maps are kept, 8 bytes a pixel: pictures of one lens follow each other."""

STRETCH = 20.0
"""How much the focal length may change. OpenCV gives anything for lenses that see half of the world or more, or that
no light goes through."""


@dataclass(frozen=True)
class Pinhole:
    """A camera without distortion. Lengths in pixels, counted from the outer corner of the first one."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def matrix(self) -> np.ndarray[Any, Any]:
        """Its matrix as OpenCV counts: from the middle of the first pixel, which the host's cameras do not do."""
        return np.array([[self.fx, 0, self.cx - 0.5], [0, self.fy, self.cy - 0.5], [0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True)
class Lens(Pinhole):
    """A camera as the host describes it."""

    kind: int
    """Value of the host's `CameraType`."""
    distortion: tuple[float, ...]
    """k1, k2, k3, k4, p1, p2."""

    @property
    def bends(self) -> bool:
        """Whether straight lines are not straight in its pictures."""
        return self.kind != CameraType.PERSPECTIVE.value or any(self.distortion)

    def check(self) -> None:
        """Refuses what cannot be straightened.

        Raises:
            ValueError: Says what was found.
        """
        kinds = (CameraType.PERSPECTIVE.value, CameraType.FISHEYE.value)
        if self.kind not in kinds:
            raise ValueError(f"splats need pinhole or fisheye cameras; got {CameraType(self.kind).name}")
        *_, k4, p1, p2 = self.distortion
        if self.kind == CameraType.PERSPECTIVE.value and k4:
            raise ValueError(f"the fourth radial parameter k4 of a perspective lens must be 0, got {k4:g}")
        if self.kind == CameraType.FISHEYE.value and (p1 or p2):
            raise ValueError(f"the tangential parameters p1, p2 of a fisheye lens must be 0, got {p1:g}, {p2:g}")

    def straightened(self) -> Pinhole:
        """The pinhole camera that sees what lies in its pictures, and nothing beside them, as the host chooses it.

        Raises:
            ValueError: If there is none.
        """
        self.check()
        size = (self.width, self.height)
        if self.kind == CameraType.FISHEYE.value:
            matrix = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
                self.matrix(), self._opencv(), size, np.eye(3), balance=0
            )
            left, top, width, height = 0, 0, *size
        else:
            matrix, roi = cv2.getOptimalNewCameraMatrix(self.matrix(), self._opencv(), size, 0)
            left, top, width, height = roi
        (fx, _, cx), (_, fy, cy) = matrix[:2].tolist()
        found = (fx, fy, cx - left + 0.5, cy - top + 0.5)
        stretch = (fx / self.fx, fy / self.fy)
        if min(width, height) <= 0 or not (1 / STRETCH < min(stretch) and max(stretch) < STRETCH):
            raise ValueError(
                f"a lens of {self.width}x{self.height} pixels with focal lengths {self.fx:g}, {self.fy:g} and "
                f"distortion {', '.join(f'{value:g}' for value in self.distortion)} leaves no straight picture"
            )
        return Pinhole(*found, width, height)

    def straighten(
        self, picture: Shaped[Tensor, "height width channels"], border: Literal["nearest", "black"] = "nearest"
    ) -> Shaped[Tensor, "new_height new_width channels"]:
        """A picture as the pinhole camera sees it, interpolated between neighbours.

        Args:
            picture: Bytes or floats.
            border: What lies around it, where the pinhole camera sees a little more: the nearest pixel, or black.
        """
        beyond = {"nearest": cv2.BORDER_REPLICATE, "black": cv2.BORDER_CONSTANT}[border]
        bent = cv2.remap(picture.numpy(), *_maps(self), cv2.INTER_LINEAR, borderMode=beyond)
        return torch.from_numpy(bent.reshape(*bent.shape[:2], picture.shape[-1]))

    def straighten_pixels(self, pixels: Bool[Tensor, "height width"]) -> Bool[Tensor, "new_height new_width"]:
        """Those pixels whose colour comes from such pixels only.

        Args:
            pixels: Pixels that count.
        """
        return self.straighten(pixels[..., None].byte() * 255, "black")[..., 0] == 255

    def _opencv(self) -> np.ndarray[Any, Any]:
        """The distortion in OpenCV's order."""
        k1, k2, k3, k4, p1, p2 = self.distortion
        values = (k1, k2, k3, k4) if self.kind == CameraType.FISHEYE.value else (k1, k2, p1, p2, k3)
        return np.array(values, dtype=np.float64)


@lru_cache(maxsize=MAPS)
def _maps(lens: Lens) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Column and row of each pixel of the straight picture in the picture as it was taken."""
    straight = lens.straightened()
    size = (straight.width, straight.height)
    make = cv2.fisheye.initUndistortRectifyMap if lens.kind == CameraType.FISHEYE.value else cv2.initUndistortRectifyMap
    columns, rows = make(lens.matrix(), lens._opencv(), np.eye(3), straight.matrix(), size, cv2.CV_32FC1)
    return columns, rows


def lenses_of(cameras: Cameras) -> list[Lens]:
    """The lens of each camera.

    Args:
        cameras: Cameras of the host, of shape [views].
    """
    count = len(cameras.fx)
    fx, fy, cx, cy, width, height, kind = (
        getattr(cameras, name).flatten().tolist() for name in ("fx", "fy", "cx", "cy", "width", "height", "camera_type")
    )
    distortion = cameras.distortion_params
    bent = [(0.0,) * 6] * count if distortion is None else [tuple(row) for row in distortion.tolist()]
    return [Lens(*values) for values in zip(fx, fy, cx, cy, width, height, kind, bent, strict=True)]


class PinholeDataset(CountedDataset):
    """Views of pinhole cameras: the distortion of their lenses is taken out of pictures, masks and cameras.

    Args:
        dataparser_outputs: What the parser gave, with the cameras that took the pictures.
        scale_factor: Factor of the resolution.

    Raises:
        ValueError: If a camera is of another kind, or its lens cannot be straightened. Names the picture.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        # A list of its own: the host takes names out of the one that all data sets share.
        self.exclude_batch_keys_from_device = list(self.exclude_batch_keys_from_device)
        self.stored_cameras = self.cameras
        """Cameras that took the pictures as they are stored."""
        self._lenses = lenses_of(self.cameras)
        if any(lens.bends for lens in self._lenses):
            self.cameras = _pinholes(self.cameras, self._lenses, self.image_filenames)

    @property
    def crop_radius(self) -> Optional[float]:
        """Radius of the lens in pixels of the stored pictures; None where there is no border."""
        radius = (self.stored_cameras.metadata or {}).get("fisheye_crop_radius")
        return None if radius is None else float(radius)

    def pixels(self, view: int) -> Optional[Bool[Tensor, "height width"]]:
        """The pixels of a view that count; None where all of them do. Reads the mask, and no picture.

        Args:
            view: Index of the view.
        """
        lens, pixels = self._lenses[view], super().pixels(view)
        return lens.straighten_pixels(pixels) if pixels is not None and lens.bends else pixels

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """Picture of a view, and its `mask` where something limits the pixels.

        Args:
            image_idx: Index of the view.
            image_type: Type of the colours.

        Raises:
            ValueError: If a file cannot be read, or has another size than its camera. Names it.
        """
        data = super().get_data(image_idx, image_type)
        data["image"] = self._straight(image_idx, data["image"])
        if "mask" in data and self._lenses[image_idx].bends:
            data["mask"] = self._lenses[image_idx].straighten_pixels(data["mask"][..., 0])[..., None]
        return data

    def picture(self, view: int) -> UInt8[Tensor, "height width channels"]:
        """Picture of a view with three channels, or four where the file has opacity: before it is laid over a colour.

        Args:
            view: Index of the view.

        Raises:
            ValueError: If the file cannot be read. Names it.
        """
        try:
            stored = torch.from_numpy(self.get_numpy_image(view))
        except UNREADABLE as error:
            raise ValueError(f"the picture {self.image_filenames[view]} cannot be read: {error}") from error
        return self._straight(view, stored)

    def _straight(self, view: int, picture: Tensor) -> Tensor:
        lens = self._lenses[view]
        if picture.shape[:2] != (lens.height, lens.width):
            found = f"picture {picture.shape[1]}x{picture.shape[0]}, camera {lens.width}x{lens.height}"
            raise ValueError(f"the picture {self.image_filenames[view]} has another size than its camera: {found}")
        return lens.straighten(picture) if lens.bends else picture

    def _stored_size(self, view: int) -> tuple[int, int]:
        lens = self._lenses[view]
        return lens.height, lens.width


def _pinholes(cameras: Cameras, lenses: Sequence[Lens], names: Sequence[Path]) -> Cameras:
    """The pinhole cameras of straightened pictures."""
    straight = []
    for lens, name in zip(lenses, names, strict=True):
        try:
            straight.append(lens.straightened() if lens.bends else lens)
        except (ValueError, cv2.error) as error:
            raise ValueError(f"camera of {name}: {' '.join(str(error).split())}. Undistort the pictures") from error
    numbers = {key: [[getattr(pinhole, key)] for pinhole in straight] for key in ("fx", "fy", "cx", "cy")}
    sizes = {key: [[getattr(pinhole, key)] for pinhole in straight] for key in ("width", "height")}
    metadata = {key: value for key, value in (cameras.metadata or {}).items() if key != "fisheye_crop_radius"}
    return Cameras(
        camera_to_worlds=cameras.camera_to_worlds,
        distortion_params=None if cameras.distortion_params is None else torch.zeros_like(cameras.distortion_params),
        camera_type=CameraType.PERSPECTIVE,
        times=cameras.times,
        metadata=metadata,
        **{key: torch.tensor(values) for key, values in numbers.items()},
        **{key: torch.tensor(values, dtype=torch.int64) for key, values in sizes.items()},
    )
