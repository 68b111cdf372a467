"""Renders a file of `ns-prune export`. Needs torch, safetensors, msgspec and jaxtyping: no Nerfstudio, no data set."""

from pathlib import Path

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.export.kinds import KINDS, ExportedNetwork
from nerfstudio_prune.export.reading import Exported, read_exported


def load_exported(path: Path | str) -> ExportedNetwork:
    """Opens a file as a module that renders rays, on the CPU.

    Args:
        path: The file; it may come from anyone.

    Raises:
        FileFormatError: If it cannot be read, is damaged, of another kind, or of a newer version.
    """
    try:
        return network_of(read_exported(path))
    except FileFormatError as error:
        text = str(error)
        raise FileFormatError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from error


def network_of(exported: Exported) -> ExportedNetwork:
    """The module that renders what was read.

    Args:
        exported: What a file holds.

    Raises:
        FileFormatError: If its parts do not fit together.
    """
    return KINDS[type(exported.metadata)].network(exported.metadata, exported.layers, exported.blobs)
