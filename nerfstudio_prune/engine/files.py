"""Files that are there as a whole or not at all, whatever ends the process that writes them."""

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Optional
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows has none, and no need of it here: it lets nobody remove a file that is open
    fcntl = None

_TEMPORARY = re.compile(r"(step--1)?\.saving-[0-9a-f]{32}")
_SECONDS_TO_LOCK = 60.0
"""Longer than it takes from making a file to locking it."""


def write_whole(path: Path, write: Callable[[BinaryIO], object], beside: Path) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part, also after a loss of power.

    The folder is made. What is not finished lies beside it, since Nerfstudio takes every name in a folder of
    checkpoints for one.

    Args:
        path: The file.
        write: Writes the content to an open file.
        beside: Folder for the unfinished file, on the same disk.

    Raises:
        OSError: If it cannot be written, for example on a full disk. The old file is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".saving-{uuid4().hex}"
    try:
        _write_and_replace(beside / name, path, write)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The folder is a disk of its own. Nerfstudio reads this name as step -1, which is never the newest.
        _write_and_replace(path.parent / f"step--1{name}", path, write)


def remove_abandoned(folder: Path) -> None:
    """Removes what `write_whole` left unfinished in a folder when its process was killed.

    A file that a living process is writing stays; so does what cannot be removed.
    """
    with suppress(OSError):
        for file in folder.iterdir():
            if _TEMPORARY.fullmatch(file.name) and not _is_in_use(file):
                file.unlink(missing_ok=True)


def _write_and_replace(temporary: Path, path: Path, write: Callable[[BinaryIO], object]) -> None:
    with temporary.open("xb") as file:
        try:
            with suppress(OSError):  # some network disks have no locks
                _lock(file)
            _write(file, write)
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def _write(file: BinaryIO, write: Callable[[BinaryIO], object]) -> None:
    try:
        write(file)
        file.flush()
    except RuntimeError as error:
        # torch.save hides what went wrong with the file behind an error of its own.
        reason = _reason(error)
        if reason is None:
            raise
        raise reason from error


def _reason(error: Optional[BaseException]) -> Optional[OSError]:
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    """Without this a new name may be lost with the power."""
    with suppress(OSError):  # not every system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(file: BinaryIO) -> None:
    """Marks a file as being written, until it is closed or the process ends.

    Raises:
        OSError: If another process holds it, or there are no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_in_use(path: Path) -> bool:
    found = path.stat()
    if not found.st_size and time.time() - found.st_mtime < _SECONDS_TO_LOCK:
        return True
    try:
        with path.open("r+b") as file:
            _lock(file)
    except OSError:
        return True
    return False
