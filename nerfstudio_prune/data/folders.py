"""What is in a folder of data, where the host's parser fails or gives what nothing can be trained on."""

import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

FORMATS = {
    "transforms_train.json": "the Blender format: ns-train nerf-prune blender-data --data",
    "transforms.json": "Nerfstudio's format, photographs: ns-train nerf-prune-real nerfstudio-data --data",
    "sparse": "COLMAP's format: ns-train nerf-prune-real colmap --colmap-path sparse/0 --data",
    "colmap": "COLMAP's format: ns-train nerf-prune-real colmap --colmap-path colmap/sparse/0 --data",
}
"""File or folder that tells a format -> its name, and how to train on it."""
NAMES = 5
"""Files or frames that a message names."""
LARGEST = 1e12
"""Number that a pose or a lens may have: its square has to fit into single precision."""
SMALLEST_FOCAL_LENGTH = 1e-6


def first_names(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more


def explain(data: Path, parser: str, error: Exception) -> str:
    """Why a parser could not read a data set, and what to do.

    Args:
        data: Folder or file of the data set.
        parser: Name of the parser.
        error: What it raised.
    """
    reason = _reason(error)
    text = f"--data {data} cannot be read by the data parser {parser}: {' '.join(reason.split()).rstrip('.')}"
    folder = data.parent if data.suffix == ".json" else data
    if not data.exists():
        return f"{text}. There is no {data}: give the data set's path with --data behind the parser's name"
    found = [f"{told} {folder}" for name, told in FORMATS.items() if (folder / name).exists()]
    if isinstance(error, FileNotFoundError) and error.filename and Path(error.filename).suffix == ".json":
        if found:
            return f"{text}. The folder holds {'; '.join(found)}"
        return f"{text}. Of photographs alone, ns-process-data makes a data set"
    if isinstance(error, ZeroDivisionError):
        return f"{text}. If all cameras stand at one place, give --auto-scale-poses False behind the parser's name"
    if isinstance(error, (ValueError, RecursionError)):
        broken = [str(path) for path in _files(data) if not _is_json(path)]
        if broken:
            return f"{text}. No JSON: {', '.join(broken)}"
    frames = [name for path in _files(data) for name in bad_frames(path)]
    return f"{text}. Not finite: {first_names(frames)}" if frames else text


def check_cameras(outputs: DataparserOutputs, data: Path) -> None:
    """Refuses cameras that no ray can be drawn from.

    Args:
        outputs: What the parser gave.
        data: Folder or file of the data set.

    Raises:
        ValueError: If a pose or lens is not finite or absurd, or a focal length is 0. Names the frames.
    """
    cameras = outputs.cameras
    parts = [cameras.camera_to_worlds.flatten(1), cameras.fx, cameras.fy, cameras.cx, cameras.cy]
    if cameras.distortion_params is not None:
        parts.append(cameras.distortion_params)
    fits = (torch.cat(parts, dim=1).abs() <= LARGEST).all(dim=1)
    bends = (torch.cat([cameras.fx, cameras.fy], dim=1).abs() >= SMALLEST_FOCAL_LENGTH).all(dim=1)
    bad = ~(fits & bends)
    if not bool(bad.any()):
        if not bool(torch.isfinite(outputs.scene_box.aabb).all()):
            raise ValueError(f"scene box of {data}: it must be finite, got {outputs.scene_box.aabb.tolist()}")
        _check_lens(outputs, data)
        return
    # One bad pose spoils all of them when they are centred: the file tells which it is.
    frames = [name for path in _files(data) for name in bad_frames(path)]
    frames = frames or [str(outputs.image_filenames[int(i)]) for i in bad.nonzero()]
    raise ValueError(
        f"cameras of {data}: poses and lenses must be finite, below {LARGEST:g}, and focal lengths not 0; wrong: "
        f"{first_names(frames)}. Correct these frames, or take them out"
    )


def _check_lens(outputs: DataparserOutputs, data: Path) -> None:
    """Refuses what the data set says about a lens, if the host cannot draw rays with it or draws others."""
    radius = (outputs.cameras.metadata or {}).get("fisheye_crop_radius")
    try:
        usable = radius is None or 0 < float(radius) <= LARGEST
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"cameras of {data}: fisheye_crop_radius must be a number of pixels above 0, got {radius!r}")
    middle = torch.stack([outputs.cameras.height.flatten(), outputs.cameras.width.flatten()], dim=-1) / 2
    kinds = outputs.cameras.camera_type.flatten()
    for view in (int((kinds == kind).nonzero()[0]) for kind in kinds.unique()):  # one of each kind of lens
        try:
            outputs.cameras.generate_rays(camera_indices=view, coords=middle[view][None])
        except Exception as error:
            name = CameraType(int(kinds[view])).name
            raise ValueError(
                f"cameras of {data}: Nerfstudio makes no rays for the lens of {outputs.image_filenames[view]}, camera "
                f"model {name}: {' '.join(str(error).split())[-200:]}. Undistort the pictures, or give another model"
            ) from error


def _reason(error: Exception) -> str:
    """What an error of a parser says; many a one says nothing without its type or the line that it comes from."""
    text = str(error)
    if not text.strip():
        return f"{type(error).__name__} at {traceback.extract_tb(error.__traceback__)[-1].line}"
    named = (KeyError, IndexError, TypeError, AttributeError)
    return f"{type(error).__name__}: {text}" if isinstance(error, named) else text


def bad_frames(path: Path) -> list[str]:
    """Where a `transforms.json` has numbers that are not finite or absurd.

    Args:
        path: The file; anything else has none.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        frames = [frame for frame in content.get("frames", []) if isinstance(frame, dict)]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return []
    top = {name: value for name, value in content.items() if name != "frames"}
    found = [f"{path.name}: {name}" for name in _not_finite(top)]
    for i, frame in enumerate(frames):
        name = frame.get("file_path", f"number {i}")
        found += [f"{path.name}, frame {name}: {field}" for field in _not_finite(frame)]
    return found


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _files(data: Path) -> list[Path]:
    return [data] if data.suffix == ".json" else sorted(data.glob("transforms*.json"))


def _not_finite(fields: dict[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        if any(not abs(number) <= LARGEST for number in _numbers(value)):
            yield name


def _numbers(value: Any) -> Iterator[float]:
    left = [value]  # not by recursion: a file can nest more deeply than Python can call
    while left:
        found = left.pop()
        if isinstance(found, (int, float)):
            yield found
        elif isinstance(found, list):
            left.extend(found)
