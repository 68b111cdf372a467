"""Points of a data set that Gaussians start from: read without a question, refused by name where they are broken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.utils.colmap_parsing_utils import read_points3D_binary, read_points3D_text
from torch import Tensor

XYZ, RGB = "points3D_xyz", "points3D_rgb"
"""Where the host's parsers put points and their colours, and its pipeline looks for them."""
COLMAP = Path("colmap") / "sparse" / "0"
"""Where the host's `ns-process-data` leaves COLMAP's model beside the pictures."""
GREY = 128
"""Colour of points that have none."""
ADVICE = "Correct the file, or start without points: --load-3D-points False behind the parser's name"


def without_questions(parser: DataParser) -> DataParser:
    """Lets a parser of the host read points without asking, writing or warning.

    It asks on the terminal whether it may write COLMAP's points into the data; those are read by `colmap_points`. It
    takes a file that is missing or broken for one without points.

    Args:
        parser: The parser; changed in place.

    Returns:
        The parser.
    """
    parser.prompted_user, parser.create_pc = True, False  # type: ignore[attr-defined]
    load: Optional[Callable[..., Any]] = getattr(parser, "_load_3D_points", None)
    if load is not None:
        parser._load_3D_points = _checked(load)  # type: ignore[attr-defined]
    return parser


def colmap_points(parser: DataParser, outputs: DataparserOutputs) -> dict[str, Tensor]:
    """COLMAP's points beside the pictures, as metadata of the views; empty if there are none or the parser gave some.

    Args:
        parser: The parser.
        outputs: The views that it gave, with the transform that points are to take.

    Raises:
        ValueError: If they cannot be read. Names the file.
    """
    folder = Path(parser.config.data) / COLMAP
    if XYZ in outputs.metadata or not getattr(parser.config, "load_3D_points", False) or not folder.exists():
        return {}
    xyz, rgb = _read_colmap(folder)
    transform, scale = outputs.dataparser_transform, outputs.dataparser_scale
    return {XYZ: (xyz @ transform[:3, :3].T + transform[:3, 3]) * scale, RGB: rgb}


def _read_colmap(folder: Path) -> tuple[Float[Tensor, "points 3"], UInt8[Tensor, "points 3"]]:
    readers = {"points3D.bin": read_points3D_binary, "points3D.txt": read_points3D_text}
    there = [(folder / name, read) for name, read in readers.items() if (folder / name).is_file()]
    if not there:
        raise ValueError(f"the COLMAP model {folder} has no points3D.bin and no points3D.txt. {ADVICE}")
    path, read = there[0]
    try:
        points = list(read(path).values())
        xyz = np.array([point.xyz for point in points], dtype=np.float32).reshape(-1, 3)
        rgb = np.array([point.rgb for point in points]).reshape(-1, 3).astype(np.uint8)
    except Exception as error:  # the host's reader raises what comes up
        raise ValueError(f"the points {path} cannot be read: {type(error).__name__}: {error}. {ADVICE}") from error
    _check(path, torch.from_numpy(xyz))
    return torch.from_numpy(xyz), torch.from_numpy(rgb)


def _checked(load: Callable[..., Any]) -> Callable[..., dict[str, Tensor]]:
    """A parser's reader of points, for files that may be missing or broken."""

    def read(path: Path, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        if not Path(path).exists():
            raise ValueError(f"the points {path} are not there. {ADVICE}")
        try:
            found = load(path, *args, **kwargs) or {}
        except Exception as error:  # open3d and the host raise what comes up
            raise ValueError(f"the points {path} cannot be read: {type(error).__name__}: {error}. {ADVICE}") from error
        xyz = found.get(XYZ, torch.zeros(0, 3))
        _check(Path(path), xyz)
        if len(found.get(RGB, ())) != len(xyz):
            found[RGB] = torch.full((len(xyz), 3), GREY, dtype=torch.uint8)
        return found

    return read


def _check(path: Path, xyz: Float[Tensor, "points 3"]) -> None:
    if len(xyz) == 0:
        raise ValueError(f"the points {path} hold no point that can be read. {ADVICE}")
    wrong = int((~torch.isfinite(xyz).all(dim=1)).sum())
    if wrong:
        raise ValueError(f"the points {path}: coordinates must be finite, and {wrong} of {len(xyz)} are not. {ADVICE}")
