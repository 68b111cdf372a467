"""How kernels are compiled: kept on disk, without Python's lock, with the processor's rules for division by zero."""

from typing import Any

from numba import njit

compiled: Any = njit(nogil=True, cache=True, error_model="numpy")
"""Decorator of a kernel that Python calls."""
inlined: Any = njit(nogil=True, cache=True, error_model="numpy", inline="always")
"""Decorator of a part of kernels."""
