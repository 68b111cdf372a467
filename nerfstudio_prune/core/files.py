"""Files from anyone, looked at before they are read, and files that are written as a whole or not at all."""

import stat
import tempfile
from collections.abc import Mapping
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
        OSError: If it cannot be read, is no regular file, too large, or grows meanwhile.
    """
    size = check_file(path, max_bytes)
    with path.open("rb") as file:
        # As many bytes as are asked for are allocated: not as many as any file may have.
        content = file.read(size + 1)
    if len(content) > size:
        raise OSError(f"grew beyond {size:,} bytes while it was read")
    return content


def write_file(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part.

    Folders are made. The file keeps its mode; a new one is readable for all.

    Raises:
        OSError: If it cannot be written; the old one is then as it was.
    """
    write_files({path: content})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes several files, all of them or none: each beside its place first, then all take their places.

    Args:
        contents: Path -> content; see `write_file`.

    Raises:
        OSError: If one cannot be written; all are then as they were.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder, expected a file or nothing")
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
                written[path] = Path(file.name)
                file.write(content)
            written[path].chmod(mode)
        for path, part in written.items():
            part.replace(path)
    finally:
        for part in written.values():
            part.unlink(missing_ok=True)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no file")
