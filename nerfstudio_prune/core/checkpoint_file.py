"""A checkpoint as a file: whether it is whole, and what is in it. Runs nothing that it names."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from nerfstudio_prune.core.files import check_file

MAX_BYTES = 2**40
"""No bound for what is trained; a file may take what it holds."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of the host on the CPU.

    Args:
        path: A file as `torch.save` writes it.

    Returns:
        Its content: a step, at least 0, and the pipeline's entries by name, besides what else it holds.

    Raises:
        ValueError: If the file is missing, torn or no checkpoint; names the file.
    """
    try:
        check_whole(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is torn, or made by hand, makes the readers raise anything
        raise ValueError(f"{path}: expected a checkpoint of Nerfstudio, which it is not: {_text(error)}") from error
    pipeline = loaded.get("pipeline") if isinstance(loaded, dict) else None
    if not isinstance(pipeline, dict) or not all(isinstance(name, str) for name in pipeline):
        raise ValueError(
            f"{path}: expected a checkpoint of Nerfstudio, which it is not: it holds no entries of a pipeline by name"
        )
    step = loaded.get("step")
    if type(step) is not int or not 0 <= step < 2**62:
        raise ValueError(
            f"{path}: expected a checkpoint of Nerfstudio, which it is not: step must be a whole number, at least 0, "
            f"got {step!r:.60}"
        )
    return loaded


def check_whole(path: Path) -> None:
    """Checks that a file is an archive as `torch.save` writes it, whole, and no larger than it looks.

    `torch.load` itself looks at no checksum, and unpacks an archive that was compressed to be small.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is torn, or would take more memory than its size.
        zipfile.BadZipFile: If it is no archive.
    """
    size = check_file(path, MAX_BYTES)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which torch.save does not do")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries take more than the file holds")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} in it is damaged")


def _text(error: Exception) -> str:
    """The first line of an error; what torch adds to it is advice on how to run what the file names."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no more is known').splitlines()[0]}"
