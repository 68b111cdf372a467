"""A data set by its folder and the name of its data parser, and whether a file's scene is the one that it shows."""

import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any, Optional

import torch
import tyro
from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig

from nerfstudio_prune.export.run_data import RunData, read_data
from nerfstudio_prune.export.schema import Scene

MARKS = {"transforms_train.json": "blender-data", "transforms.json": "nerfstudio-data"}
"""File that tells a format -> name of its data parser."""
TOLERANCE = 1e-3
"""Largest difference of two transforms of one scene, as a share of their largest entry."""


def read_data_set(data: Optional[Path], dataparser: Optional[str]) -> RunData:
    """Reads cameras and names of pictures of a data set; no training picture is loaded.

    Args:
        data: Its folder or file. None: where the data parser looks by itself.
        dataparser: Name of the data parser, with its options. None: what the folder says.

    Raises:
        ValueError: If there is no such data parser or option, or the data cannot be read.
    """
    return read_views(VanillaDataManagerConfig(dataparser=parser_of(data, dataparser)), data)


def read_views(datamanager: Any, data: Optional[Path]) -> RunData:
    """The same by the options of a data manager.

    Args:
        datamanager: Its options; the place of the data is put in.
        data: Folder or file of the data set. None: where the data parser looks by itself.

    Raises:
        ValueError: If the data cannot be read.
    """
    try:
        return read_data(datamanager, data)
    except ValueError as error:
        raise ValueError(f"--data {error}") from error


def parser_of(data: Optional[Path], dataparser: Optional[str]) -> DataParserConfig:
    """Options of the data parser of a data set.

    Args:
        data: Its folder or file.
        dataparser: Name of the data parser, with its options. None: what the folder says.

    Raises:
        ValueError: If there is no such data parser or option, or the folder does not say.
    """
    return parser_config(dataparser) if dataparser is not None else parser_of_folder(data)


def parser_config(words: str) -> DataParserConfig:
    """Options of a data parser.

    Args:
        words: Its name and options, as they are typed.

    Raises:
        ValueError: If there is no such data parser or option.
    """
    try:
        name, *options = shlex.split(words) or [""]
    except ValueError as error:
        raise ValueError(f"--dataparser {words!r}: {error}") from error
    config = all_dataparsers.get(name)
    if config is None:
        raise ValueError(f"--dataparser must be one of {', '.join(sorted(all_dataparsers))}, got {name!r}")
    return _with_options(config, name, options)


def _with_options(config: Any, name: str, options: Sequence[str]) -> DataParserConfig:
    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(type(config), default=deepcopy(config), args=options, prog=name, console_outputs=False)
    except SystemExit as error:
        raise ValueError(
            f"--dataparser {name}: not its options: {shlex.join(options)}; ns-train nerf-prune {name} -h has them"
        ) from error


def parser_of_folder(data: Optional[Path]) -> DataParserConfig:
    """Options of the data parser that a folder is for.

    Args:
        data: The folder, or the file in it that tells.

    Raises:
        ValueError: If it does not say.
    """
    if data is None:
        raise ValueError("--data is needed, or a --dataparser that has its own, such as demo-data")
    for mark, name in MARKS.items():
        if (data / mark).is_file() or (data.name == mark and data.is_file()):
            return deepcopy(all_dataparsers[name])
    raise ValueError(
        f"--data {data}: expected a folder with {' or '.join(MARKS)}; name the data parser of any other with "
        "--dataparser, as behind ns-train"
    )


def check_scene(scene: Scene, outputs: Any, file: Path) -> str:
    """Checks that a data set's cameras stand in the scene of a file.

    Args:
        scene: What the file says of its scene.
        outputs: What the data parser gives.
        file: Name of the file.

    Returns:
        Why that could not be checked; empty if it was.

    Raises:
        ValueError: If they do not: another data set, or one that is laid out in another way. Says both.
    """
    if scene.transform is None or scene.scale is None:
        return "the file does not say how its scene lies in its data, so that the views may be of another one"
    told, found = torch.tensor(scene.transform), outputs.dataparser_transform.float()
    scale = float(outputs.dataparser_scale)
    apart = float((told - found).abs().max()), abs(scene.scale - scale)
    if apart[0] <= TOLERANCE * float(told.abs().max()) and apart[1] <= TOLERANCE * scene.scale:
        return ""
    raise ValueError(
        f"--data: its cameras do not stand in the scene of {file}: the file has {_layout(told, scene.scale)}, the data "
        f"{_layout(found, scale)}. Other data, or other options of --dataparser than in the run"
    )


def _layout(transform: torch.Tensor, scale: float) -> str:
    rows = ", ".join("[" + " ".join(f"{value:.4g}" for value in row) + "]" for row in transform.tolist())
    return f"transform [{rows}] and scale {scale:.4g}"
