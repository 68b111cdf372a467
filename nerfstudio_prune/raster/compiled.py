"""How kernels are compiled: kept on disk, free of Python's lock, and with the processor's rules for division by zero."""

from typing import Any

from numba import njit

compiled: Any = njit(nogil=True, cache=True, error_model="numpy")
"""Decorator of a kernel that Python calls."""
inlined: Any = njit(nogil=True, cache=True, error_model="numpy", inline="always")
"""Decorator of a part of kernels."""
