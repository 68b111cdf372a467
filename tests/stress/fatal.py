"""Ways to kill this process at a chosen point: at a line of a function, at a byte of a file. Nothing is cleaned up."""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any, Optional

OURS = ("nerfstudio_prune", f"torch{os.sep}serialization.py")
"""Parts of the names of files whose lines count."""


def die() -> None:
    """Ends this process as a loss of power would, as far as a process can."""
    os.kill(os.getpid(), signal.SIGKILL)


class Points:
    """Counts the points at which a process could die, and lets it die at one of them.

    Args:
        fatal: Number of that point, from 0; None to count only.
    """

    def __init__(self, fatal: Optional[int] = None) -> None:
        self.fatal = fatal
        self.count = 0

    def trace(self, owner: Any, name: str, when: Callable[..., bool] = lambda *values: True) -> None:
        """Makes every line a point that runs within a function.

        Args:
            owner: Class or module.
            name: Name of the function there.
            when: Looks at the function's arguments: do its lines count this time?
        """
        inner = getattr(owner, name)

        @wraps(inner)
        def traced(*values: Any, **named: Any) -> Any:
            if not when(*values):
                return inner(*values, **named)
            former = sys.gettrace()
            sys.settrace(self._trace)
            try:
                return inner(*values, **named)
            finally:
                sys.settrace(former)

        setattr(owner, name, traced)

    def trace_bytes(self, files: Any) -> None:
        """Makes every byte a point that is written to a file of `write_whole`.

        Args:
            files: The module `engine.files`.
        """
        inner = files._write
        files._write = lambda file, write: inner(FatalFile(file, self), write)

    def _trace(self, frame: FrameType, event: str, value: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in OURS):
            return None
        if event == "line":
            self.pass_by(1)
        return self._trace

    def pass_by(self, points: int) -> None:
        """Counts points, and dies if the fatal one is among them."""
        self.count += points
        if self.fatal is not None and self.count > self.fatal:
            die()


class FatalFile:
    """A file open for writing, each byte of which is a point; those before the fatal one are on the disk.

    Args:
        file: The file.
        points: Counts.
    """

    def __init__(self, file: Any, points: Points) -> None:
        self._file, self._points = file, points

    def write(self, data: Any) -> int:
        """Writes, or dies in the midst of it."""
        data, points = bytes(data), self._points
        if points.fatal is not None and points.count + len(data) > points.fatal:
            self._file.write(data[: points.fatal - points.count])
            self._file.flush()
            die()
        points.count += len(data)
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
