"""Files that come from anyone: their kind and size are looked at before they are read."""

import stat
from pathlib import Path


def check_file(path: Path, max_bytes: int) -> int:
    """Checks that a path leads to a regular file of a size that can be.

    A pipe or a device would be waited for, or read, without end.

    Args:
        path: The file; links are followed.
        max_bytes: Largest size.

    Returns:
        Size in bytes.

    Raises:
        OSError: If there is no such file, it may not be looked at, is no regular file, or too large.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"is {_kind(found.st_mode)}, expected a regular file")
    if found.st_size > max_bytes:
        raise OSError(f"has {found.st_size:,} bytes, expected at most {max_bytes:,}")
    return found.st_size


def read_file(path: Path, max_bytes: int) -> bytes:
    """Reads a regular file.

    Args:
        path: The file.
        max_bytes: Largest size.

    Raises:
        OSError: If it cannot be read, is no regular file, or too large.
    """
    check_file(path, max_bytes)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"grew beyond {max_bytes:,} bytes while it was read")
    return content


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no file")
