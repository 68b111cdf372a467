"""`meta.json` of a SOG file: values of the kinds that are expected, whatever it holds."""

import json
from typing import Any

import numpy as np
from jaxtyping import Float64

from nerfstudio_prune.core.plain import check_plain, shown
from nerfstudio_prune.exchange.errors import refuse


def parse_meta(text: bytes) -> "Section":
    """What a file says of itself.

    Args:
        text: JSON.

    Raises:
        FileFormatError: If it is none, nests too deeply, or holds a number that is not finite.
    """
    try:
        values = json.loads(text)
        check_plain(values, "meta.json")
    except (ValueError, RecursionError) as error:
        raise refuse("meta.json", "JSON", str(error) or type(error).__name__) from error
    return Section("meta.json", values)


class Section:
    """An object of JSON whose values are asked for by name and kind."""

    def __init__(self, name: str, values: Any) -> None:
        """Takes an object.

        Args:
            name: What it is called in errors.
            values: Plain values.

        Raises:
            FileFormatError: If it is no object.
        """
        if not isinstance(values, dict):
            raise refuse(name, "an object", shown(values))
        self.name = name
        self._values = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def is_list(self, key: str) -> bool:
        """Whether there are several values."""
        return isinstance(self._values.get(key), list)

    def section(self, key: str) -> "Section":
        """An object within this one.

        Raises:
            FileFormatError: If it is not there.
        """
        return Section(f"{self.name}, {key}", self._values.get(key))

    def whole(self, key: str) -> int:
        """A whole number.

        Raises:
            FileFormatError: If it is not there, or something else.
        """
        value = self._values.get(key)
        if type(value) is not int:
            raise refuse(f"{self.name}, {key}", "a whole number", shown(value))
        return value

    def first_whole(self, key: str) -> int:
        """The first of a list of whole numbers.

        Raises:
            FileFormatError: If it is not there, or something else.
        """
        value = self._values.get(key)
        if not isinstance(value, list) or not value or type(value[0]) is not int:
            raise refuse(f"{self.name}, {key}", "whole numbers", shown(value))
        return value[0]

    def truth(self, key: str) -> bool:
        """True or false.

        Raises:
            FileFormatError: If it is something else.
        """
        value = self._values.get(key)
        if not isinstance(value, bool):
            raise refuse(f"{self.name}, {key}", "true or false", shown(value))
        return value

    def numbers(self, key: str, least: int, most: int) -> Float64[np.ndarray, " numbers"]:
        """A list of numbers, or a single one.

        Args:
            key: Its name.
            least: How many there are at least.
            most: How many there are at most.

        Raises:
            FileFormatError: If it is not there, of another length, or holds something else.
        """
        value = self._values.get(key)
        numbers = value if isinstance(value, list) else [value]
        if not least <= len(numbers) <= most or any(type(number) not in (int, float) for number in numbers):
            expected = f"{least}" if least == most else f"{least} to {most}"
            raise refuse(f"{self.name}, {key}", f"{expected} numbers", shown(value))
        return np.array(numbers, dtype=np.float64)

    def texts(self, key: str, count: int) -> list[str]:
        """Several texts.

        Raises:
            FileFormatError: If they are not there, more or fewer, or something else.
        """
        value = self._values.get(key)
        if not isinstance(value, list) or len(value) != count or not all(isinstance(text, str) for text in value):
            raise refuse(f"{self.name}, {key}", f"{count} names of files", shown(value))
        return value
