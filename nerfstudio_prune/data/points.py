"""Points of a data set that Gaussians start from: read without a question, refused by name where they are broken."""

import re
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
HEADER = 4096
"""Bytes within which a `.ply` file says how many points it has."""
GREY = 128
"""Colour of points that have none."""
ADVICE = "Correct the file, or start without points: --load-3D-points False behind the parser's name"


def without_questions(parser: DataParser) -> DataParser:
    """Lets a parser of the host read points without asking, writing or warning.

    It asks on the terminal whether it may write COLMAP's points into the data; those are read by `colmap_points`. It
    takes a `.ply` file that is missing or broken for one without points.

    Args:
        parser: The parser; changed in place.

    Returns:
        The parser.
    """
    parser.prompted_user, parser.create_pc = True, False  # type: ignore[attr-defined]
    load: Optional[Callable[..., Any]] = getattr(parser, "_load_3D_points", None)
    if load is not None:
        parser._load_3D_points = _checked(load, getattr(parser.config, "scale_factor", 1.0))  # type: ignore[attr-defined]
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
        raise ValueError(f"the points {path} cannot be read: {_reason(error)}. {ADVICE}") from error
    _check(path, torch.from_numpy(xyz))
    return torch.from_numpy(xyz), torch.from_numpy(rgb)


def _checked(load: Callable[..., Any], scale_factor: float) -> Callable[..., dict[str, Tensor]]:
    """A parser's reader of points, for files that may be missing or broken."""

    def read(path: Path, transform: Optional[Tensor] = None, scale: float = scale_factor, *rest: Any) -> dict[str, Any]:
        path = Path(path)
        if not path.exists():
            raise ValueError(f"the points {path} are not there. {ADVICE}")
        try:
            if path.suffix.lower() == ".ply":
                xyz, rgb = _read_ply(path)
                _check(path, xyz)
                moved = xyz if transform is None else xyz @ transform[:3, :3].T + transform[:3, 3]
                return {XYZ: moved * scale, RGB: rgb}
            found = load(path, transform, scale, *rest)
        except Exception as error:  # readers raise what comes up
            raise ValueError(f"the points {path} cannot be read: {_reason(error)}. {ADVICE}") from error
        _check(path, found[XYZ])
        return found

    return read


def _read_ply(path: Path) -> tuple[Float[Tensor, "points 3"], UInt8[Tensor, "points 3"]]:
    """Vertices of a `.ply` file. The host reads them with open3d, which needs libraries of a desktop, takes seconds to
    import, and rounds colours down."""
    import trimesh  # noqa: PLC0415  (half a second, for few data sets)

    with path.open("rb") as file:
        told = re.search(rb"^element vertex (\d+)\s*$", file.read(HEADER), re.MULTILINE)
    cloud: Any = trimesh.load(path, process=False)
    xyz = torch.tensor(np.asarray(getattr(cloud, "vertices", ())), dtype=torch.float32).reshape(-1, 3)
    if told is not None and int(told[1]) != len(xyz):
        raise ValueError(f"it ends after {len(xyz)} of {int(told[1])} points")
    colours = getattr(cloud, "colors", None)
    if colours is None and hasattr(cloud, "visual"):
        colours = cloud.visual.vertex_colors  # of a mesh
    if colours is None or len(colours) != len(xyz):
        return xyz, torch.full((len(xyz), 3), GREY, dtype=torch.uint8)
    return xyz, torch.tensor(np.asarray(colours)[:, :3], dtype=torch.uint8)


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _check(path: Path, xyz: Float[Tensor, "points 3"]) -> None:
    if len(xyz) == 0:
        raise ValueError(f"the points {path} hold no point that can be read. {ADVICE}")
    wrong = int((~torch.isfinite(xyz).all(dim=1)).sum())
    if wrong:
        raise ValueError(f"the points {path}: coordinates must be finite, and {wrong} of {len(xyz)} are not. {ADVICE}")
