"""A disk that fills up, and is cleared again."""

import errno
import os
from typing import Any

import pytest

from nerfstudio_prune.engine import files


class FullDisk:
    """Room for what is written by `write_whole`; what does not fit is cut off with the error of a full disk.

    Args:
        monkeypatch: Puts everything back after the test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        """Bytes that fit into one file."""
        inner = files._write

        def write_what_fits(file: Any, write: Any) -> None:
            limited: Any = _File(file, self)
            inner(limited, write)

        monkeypatch.setattr(files, "_write", write_what_fits)


class _File:
    def __init__(self, file: Any, disk: FullDisk) -> None:
        self._file, self._disk, self._done = file, disk, 0

    def write(self, data: Any) -> int:
        data = bytes(data)
        fits = data[: max(0, self._disk.room - self._done)]
        self._file.write(fits)
        self._done += len(fits)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
