"""Reads single values by their type hints, for whatever comes from a file, a checkpoint or a form. Converts nothing but
whole numbers to floats, lists to tuples and numpy's numbers to plain ones."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from nerfstudio_prune.core.plain import shown

WORDS: Mapping[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    tuple: "a list of",
    list: "a list of",
    dict: "a mapping of",
}
"""Type -> what a person calls its values."""
MAX_BITS = 63
"""Whole numbers are those that a checkpoint, TensorBoard and generators of random numbers can hold."""
MAX_ENTRIES = 1000
"""Most entries of a list or a mapping."""
MAX_LENGTH = 1000
"""Most characters of a text."""


@cache
def hints_of(cls: type) -> Mapping[str, Any]:
    """Type hints of a dataclass, by name."""
    return get_type_hints(cls)


def expected(hint: Any) -> str:
    """What values a type hint stands for, in words."""
    kind, parts = get_origin(hint) or hint, [part for part in get_args(hint) if part is not Ellipsis]
    if kind is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if parts and kind not in WORDS:  # Optional: what is not given needs no words
        return " or ".join(expected(part) for part in parts if part is not type(None))
    inner = [expected(part).removeprefix("a ") + "s" for part in parts]
    return " ".join([WORDS.get(kind, str(kind)), " to ".join(inner)]).strip()


def typed_value(name: str, value: Any, hint: Any) -> Any:
    """A value as its type hint wants it.

    Args:
        name: What the value is called, for the message.
        value: Anything.
        hint: Plain types, literals, `Optional`, and lists, tuples and mappings of them.

    Returns:
        The value; a list where the hint is a tuple comes back as one.

    Raises:
        ValueError: Names the value, what was found and what was expected. Numbers have to be finite.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    try:
        found = msgspec.convert(plain, hint, strict=True)
        sound = _sound(found) and not isinstance(plain, (set, frozenset))  # those have no order
    except Exception:  # a ValidationError, or whatever an object that only looks like a mapping comes to
        sound = False
    if not sound:
        raise ValueError(f"{name} must be {expected(hint)}, got {shown(plain)}")
    return found


def _sound(value: Any) -> bool:
    """Whether numbers are finite and nothing is larger than any sensible value."""
    if isinstance(value, (list, tuple)):
        return len(value) <= MAX_ENTRIES and all(_sound(part) for part in value)
    if isinstance(value, dict):
        return len(value) <= MAX_ENTRIES and all(_sound(key) and _sound(part) for key, part in value.items())
    if isinstance(value, str):
        return len(value) <= MAX_LENGTH
    if isinstance(value, int):
        return value.bit_length() <= MAX_BITS
    return not isinstance(value, float) or math.isfinite(value)
