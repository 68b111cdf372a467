"""What becomes of memory that a training step has freed: it stays with the process, for the next step needs it again.

Without that the C library gives large blocks back to the system, which hands them out again page by page, each filled
with zeros: up to a fifth of a step's time.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
NEVER = -1
MOST_BLOCKS = 65536
"""Blocks that get pages of their own at most, where glibc is left alone."""
MOST_THRESHOLD = 32 * 2**20
"""Size from which glibc gives blocks pages of their own, once it has seen larger ones freed; twice that at the end of
the heap goes back to the system."""

_kept = False


@contextmanager
def kept_memory(wanted: bool) -> Iterator[None]:
    """Says for a while whether freed memory stays with the process.

    Nothing changes where the C library is not glibc, or where somebody has tuned it by its environment variables.

    Args:
        wanted: Whether it shall stay; otherwise it is as if nobody had asked.
    """
    former = _kept
    _keep(wanted)
    try:
        yield
    finally:
        _keep(former)


def _keep(wanted: bool) -> None:
    global _kept  # noqa: PLW0603  the library has one state for the whole process
    library = None if wanted == _kept or _is_tuned() else _glibc()
    if library is None:
        return
    _kept = wanted
    if wanted:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, NEVER)
        return
    # It adapts these two by itself no longer once one was set: they are where it would have got to.
    library.mallopt(M_MMAP_THRESHOLD, MOST_THRESHOLD)
    library.mallopt(M_TRIM_THRESHOLD, 2 * MOST_THRESHOLD)
    library.mallopt(M_MMAP_MAX, MOST_BLOCKS)
    library.malloc_trim(0)


def release_memory() -> None:
    """Gives memory that is free back to the system, where the C library can."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> Optional[Any]:
    """The C library, if it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _is_tuned() -> bool:
    environment = os.environ
    return any(name.startswith("MALLOC_") for name in environment) or "malloc" in environment.get("GLIBC_TUNABLES", "")
