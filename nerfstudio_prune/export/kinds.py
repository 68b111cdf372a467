"""The kinds of networks that a file may hold: what is said of each, what must hold, and what renders it.

Whatever reads, writes, measures or shows a file knows their common parts only: see the classes of their metadata, which
have the same names for what they share, and `ExportedNetwork`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nerfstudio_prune.export.checks import check_nerf
from nerfstudio_prune.export.kilo_checks import check_kilo
from nerfstudio_prune.export.kilo_rendering import ExportedKilo
from nerfstudio_prune.export.kilo_schema import KiloMetadata
from nerfstudio_prune.export.nerf_rendering import ExportedNeRF
from nerfstudio_prune.export.schema import Metadata

AnyMetadata = Metadata | KiloMetadata
"""What a file says of itself; `kind` in the file tells which."""
ExportedNetwork = ExportedNeRF | ExportedKilo
"""Renders rays: origins and directions -> `rgb`, `depth` and `accumulation`."""


@dataclass(frozen=True)
class Kind:
    """One kind of networks."""

    check: Callable[[Any], None]
    """Checks what must hold between the values of its metadata."""
    network: Callable[[Any, Mapping[str, Any], Mapping[str, bytes]], ExportedNetwork]
    """Makes the network of metadata, layers and further bytes."""


KINDS: Mapping[type, Kind] = {
    Metadata: Kind(check_nerf, lambda metadata, layers, blobs: ExportedNeRF(metadata, layers)),
    KiloMetadata: Kind(check_kilo, ExportedKilo),
}
"""Class of the metadata -> the kind."""


def check_metadata(metadata: AnyMetadata) -> None:
    """Checks what a file says of itself, before anything is allocated for it.

    Args:
        metadata: Values that are in their ranges, each for itself.

    Raises:
        FileFormatError: Names the layer or value, what was expected and what was found.
    """
    KINDS[type(metadata)].check(metadata)
