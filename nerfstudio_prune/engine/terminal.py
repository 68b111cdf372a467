"""Output on consoles whose encoding lacks characters of the messages, such as cp1252 and ASCII."""

import codecs
import io
import sys

PLAIN = {"→": "->", "…": "...", "—": "-", "─": "-", "±": "+-", "²": "^2", "⁶": "^6", "Δ": "Delta", "\u00d7": "x"}
"""What stands for a character where it is not to be had; a question mark for all others."""
PLAIN_ERRORS = "nerfstudio-prune-plain"
"""Name of the handler that does so, for `errors=` of a stream."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN_ERRORS, _plain)


def print_in_any_encoding() -> None:
    """Makes standard output and standard error of this process write what their encoding lacks in plain characters.

    A message that cannot be written would otherwise end a training. Streams that somebody has put in their place, such
    as those of tests and notebooks, stay as they are.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN_ERRORS)
