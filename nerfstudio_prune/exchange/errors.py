"""What is wrong with a file that comes from anyone."""

from typing import Any


class FileFormatError(ValueError):
    """A file that cannot be read. The message names the file, the section, what was expected and what was found."""


def refuse(section: str, expected: str, found: Any) -> FileFormatError:
    """The error of one section; whoever knows the file's name puts it in front.

    Args:
        section: Part of the file, or of what it says of itself.
        expected: What it should have held.
        found: What it holds, in words.
    """
    return FileFormatError(f"{section}: expected {expected}, got {found}")
