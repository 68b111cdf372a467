"""Plain values that come from files: what they may be, how deep and how many, and how an error shows them."""

import math
import reprlib
from typing import Any

from torch import Tensor

MAX_DEPTH = 32
"""Levels of nesting; nothing that this project writes has more than eight."""
MAX_VALUES = 1_000_000
"""Values in all. Nests that hold one another several times are small files of very many values."""
MAX_INT = 2**62
"""Bound of whole numbers: what a tensor, and every file format, can hold."""
MAX_BITS = 256
"""Longer numbers are not printed; Python refuses to print very long ones."""

_repr = reprlib.Repr()
_repr.maxlevel = 2
_repr.maxstring = _repr.maxother = 80


def shown(value: Any) -> str:
    """A value for an error message: short, however long or deep it is."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    return _repr.repr(value)


def check_plain(value: Any, where: str, finite: bool = True, tensors: bool = False) -> None:
    """Checks that a value is made of None, booleans, numbers, texts, lists and dictionaries with texts for keys.

    Args:
        value: What a file holds.
        where: What it is called in an error.
        finite: Whether every number must be finite.
        tensors: Whether there may be tensors; they are not looked into.

    Raises:
        ValueError: Names the place, what was found and what was expected.
    """
    # Not by recursion: a file can nest more deeply than Python can call.
    left: list[tuple[str, Any, int]] = [(where, value, 0)]
    count = 0
    while left:
        place, found, depth = left.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ValueError(f"{where}: nested more deeply, or larger, than anything that is written here")
        if isinstance(found, dict):
            for key, part in found.items():
                if not isinstance(key, str):
                    raise ValueError(f"{place}: expected texts for keys, got {type(key).__name__}")
                left.append((f"{place}.{key:.60}", part, depth + 1))
        elif isinstance(found, (list, tuple)):
            left.extend((f"{place}[{i}]", part, depth + 1) for i, part in enumerate(found))
        elif isinstance(found, bool) or found is None or isinstance(found, str):
            continue
        elif isinstance(found, int):
            if abs(found) > MAX_INT:
                raise ValueError(f"{place} must lie within ±2^62, got a number of {found.bit_length()} bits")
        elif isinstance(found, float):
            if finite and not math.isfinite(found):
                raise ValueError(f"{place} must be finite, got {found}")
        elif not (tensors and isinstance(found, Tensor)):
            raise ValueError(f"{place}: expected plain values, got {type(found).__name__}")
