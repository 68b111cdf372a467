"""Gzip streams, and decompression that cannot be led beyond what is expected."""

import gzip
import zlib

from nerfstudio_prune.exchange.errors import refuse

GZIP = 16 + zlib.MAX_WBITS
"""A window of at most 32 kB, with the header and the check sum of gzip."""


def gzip_compress(content: bytes) -> bytes:
    """Compresses bytes; the same bytes give the same stream.

    Args:
        content: The bytes.
    """
    return gzip.compress(content, compresslevel=9, mtime=0)


def gzip_decompress(content: bytes, most: int, section: str) -> bytes:
    """Decompresses a stream that may become only so long.

    Args:
        content: One whole stream.
        most: Bytes after decompression.
        section: What it is called in an error.

    Raises:
        FileFormatError: If it is damaged, cut off, longer than that, or followed by something.
    """
    decoder = zlib.decompressobj(GZIP)
    try:
        # One byte more than allowed tells a stream that is too long from one that is right.
        found = decoder.decompress(content, most + 1)
    except zlib.error as error:
        raise refuse(section, "a gzip stream", f"one that cannot be decoded ({error})") from error
    if len(found) > most:
        raise refuse(section, f"at most {most:,} bytes when decompressed", "more")
    if not decoder.eof:
        raise refuse(section, "a gzip stream with its end", "one that is cut off")
    if decoder.unused_data:
        raise refuse(section, "nothing behind the gzip stream", f"{len(decoder.unused_data):,} bytes")
    return found
