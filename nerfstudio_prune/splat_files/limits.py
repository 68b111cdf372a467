"""How large a file of Gaussians may be, and how much it may become: in proportion to what it brings.

Rows of a `.ply` lie in the file as they are. A packed file can say in a few bytes that it holds millions of Gaussians,
and is believed only as many as it has the bytes for.
"""

from pathlib import Path

from nerfstudio_prune.core.files import read_file
from nerfstudio_prune.exchange.errors import FileFormatError, refuse

MAX_BYTES = 4_000_000_000
"""Of a file: 16 million Gaussians of degree 3 in single precision."""
MAX_GAUSSIANS = 16_000_000
FREE_GAUSSIANS = 2**18
"""As many as this a small file may hold, however well it is compressed: 62 MB in single precision."""
BYTES_EACH = 4
"""Bytes that each of more Gaussians takes at least in any packed file; real ones take 8 to 30."""


def read_content(path: Path) -> bytes:
    """The bytes of a file.

    Args:
        path: The file.

    Raises:
        FileFormatError: If it cannot be read, is no regular file, or too large.
    """
    try:
        return read_file(path, MAX_BYTES)
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error}") from error


def check_count(count: int, size: int, section: str) -> None:
    """Checks how many Gaussians a packed file says that it holds, before anything is allocated for them.

    Args:
        count: What it says.
        size: Bytes of the file.
        section: Where it says so.

    Raises:
        FileFormatError: If there is none, or more than a file of this size can hold.
    """
    most = most_gaussians(size)
    if not 1 <= count <= most:
        raise refuse(section, f"1 to {most:,} Gaussians in a file of {size:,} bytes", f"{count:,}")


def most_gaussians(size: int) -> int:
    """How many Gaussians a packed file can hold.

    Args:
        size: Its bytes.
    """
    return min(MAX_GAUSSIANS, max(FREE_GAUSSIANS, size // BYTES_EACH))
