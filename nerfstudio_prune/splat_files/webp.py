"""Pictures of type WebP from anyone: the size is known, and agreed to, before a decoder sees them.

Where the sizes stand is told in https://developers.google.com/speed/webp/docs/riff_container.
"""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nerfstudio_prune.exchange.errors import refuse

HEADER = 30
"""Bytes that hold the size in each of the three kinds."""
ANIMATED = 2
"""Flag of a picture in the extended kind."""


def decode_webp(content: bytes, most: int, section: str) -> UInt8[np.ndarray, "height width 4"]:
    """Red, green, blue and alpha of each pixel; alpha is 255 where there is none.

    Args:
        content: A picture's file.
        most: Pixels that it may have.
        section: What it is called in an error.

    Raises:
        FileFormatError: If it is none, is larger than that, or damaged.
    """
    width, height = webp_size(content, section)
    if width * height > most:
        raise refuse(section, f"a picture of at most {most:,} pixels", f"one of {width:,} x {height:,}")
    try:
        with Image.open(io.BytesIO(content), formats=("WEBP",)) as picture:
            if picture.size != (width, height):
                raise refuse(section, f"a picture of {width:,} x {height:,} pixels", f"{picture.size}")
            return np.asarray(picture.convert("RGBA"))
    except (OSError, EOFError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        raise refuse(section, "a WebP picture", f"one that cannot be decoded ({error})") from error


def webp_size(content: bytes, section: str) -> tuple[int, int]:
    """Width and height that a file says its picture has.

    Args:
        content: A picture's file.
        section: What it is called in an error.

    Raises:
        FileFormatError: If it is of none of the three kinds, or moves.
    """
    read = SIZES.get(content[12:16])
    if len(content) < HEADER or content[:4] != b"RIFF" or content[8:12] != b"WEBP" or read is None:
        raise refuse(section, "a WebP picture", f"{len(content):,} bytes that begin with {content[:4]!r}")
    if read is _extended and content[20] & ANIMATED:
        raise refuse(section, "a single picture", "an animation")
    return read(content)


def _lossy(content: bytes) -> tuple[int, int]:
    width, height = (int.from_bytes(content[i : i + 2], "little") & 0x3FFF for i in (26, 28))
    return width, height


def _lossless(content: bytes) -> tuple[int, int]:
    bits = int.from_bytes(content[21:25], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _extended(content: bytes) -> tuple[int, int]:
    width, height = (int.from_bytes(content[i : i + 3], "little") + 1 for i in (24, 27))
    return width, height


SIZES: dict[bytes, Callable[[bytes], tuple[int, int]]] = {b"VP8 ": _lossy, b"VP8L": _lossless, b"VP8X": _extended}
"""Name of the first chunk -> how it says the size."""
