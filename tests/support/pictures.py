"""Tiny data sets of pictures of every kind, made by the tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 12, 8


def colours(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray[Any, Any]:
    """Random colours, [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(mode: str = "RGB", width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Image.Image:
    """A picture of a mode of Pillow's."""
    image = Image.fromarray(colours(width, height, seed))
    if mode == "I;16":
        return Image.fromarray(colours(width, height, seed)[..., 0].astype(np.uint16) * 200)
    return image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)


def mask(kept: Any, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A grey mask that is white at `kept`, an index of rows and columns, and black elsewhere."""
    values = np.zeros((height, width), dtype=np.uint8)
    values[kept] = 255
    return Image.fromarray(values)


def turned(image: Image.Image, orientation: int = 6) -> dict[str, Any]:
    """Options of `save` for a picture that EXIF turns."""
    exif = image.getexif()
    exif[0x0112] = orientation
    return {"exif": exif}


def pose(i: int) -> list[list[float]]:
    """A pose that looks at the middle of the scene, another one for each number."""
    angle = 0.3 * i
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return [[c, 0.0, s, 4 * s], [0.0, 1.0, 0.0, 0.1 * i], [-s, 0.0, c, 4 * c], [0.0, 0.0, 0.0, 1.0]]


def scene(
    folder: Path,
    views: int = 10,
    frames: Optional[Mapping[int, Mapping[str, Any]]] = None,
    masks: Optional[Mapping[int, Image.Image]] = None,
    pictures: Optional[Mapping[int, Image.Image]] = None,
    every_mask: Any = None,
    **top: Any,
) -> Path:
    """A data set in Nerfstudio's format. Of ten views, number 8 is the one to evaluate on.

    Args:
        folder: Where it is written.
        views: Number of frames.
        frames: Number of a frame -> fields that it has besides, or instead of others.
        masks: Number of a frame -> its mask; the others have that of `every_mask`.
        pictures: Number of a frame -> its picture, instead of a random one.
        every_mask: See `mask`; None without `masks`: there are no masks.
        **top: Fields of the file, besides or instead of others.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    listed = []
    for i in range(views):
        name = f"images/{i:03d}.png"
        ((pictures or {}).get(i) or picture(seed=i)).save(folder / name)
        frame: dict[str, Any] = {"file_path": name, "transform_matrix": pose(i)}
        if masks is not None or every_mask is not None:
            frame["mask_path"] = f"images/{i:03d}_mask.png"
            ((masks or {}).get(i) or mask(every_mask)).save(folder / frame["mask_path"])
        listed.append({**frame, **(frames or {}).get(i, {})})
    camera = {"w": WIDTH, "h": HEIGHT, "fl_x": 12.0, "fl_y": 12.0, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    content = {key: value for key, value in {**camera, **top}.items() if value is not None}
    (folder / "transforms.json").write_text(json.dumps({**content, "frames": listed}))
    return folder


def blender_scene(folder: Path, splits: Mapping[str, int]) -> Path:
    """A data set in the Blender format: name of the split -> number of its views."""
    for split, views in splits.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": pose(i)} for i in range(views)]
        for i in range(views):
            picture("RGBA", seed=i).save(folder / split / f"r_{i}.png")
        content = {"camera_angle_x": 0.8, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder
