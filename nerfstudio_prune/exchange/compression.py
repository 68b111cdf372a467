"""Lossless compression by the standard library's `lzma`, and decompression that cannot be led beyond what is expected.

The stream is a `.lzma` one, whose header is the smallest that says how much memory the decoder needs.
"""

import lzma

from nerfstudio_prune.exchange.errors import refuse

DICTIONARY = 2**20
"""Bytes that are looked back for repetitions; the codes of a network hardly have any."""
MEMORY = 2**23
"""Bytes that a decoder may take beside its output."""
FILTERS = [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": DICTIONARY, "lc": 0, "pb": 0}]
"""Without the context of texts (`lc`, `pb`): neighbouring codes say little about each other."""


def compress(content: bytes, pairs: bool = False) -> bytes:
    """Compresses bytes.

    Args:
        content: The bytes.
        pairs: Whether the first and the second byte of each two are to be told apart, for numbers of two bytes.
    """
    filters = [{**own, "lp": int(pairs)} for own in FILTERS]
    return lzma.compress(content, format=lzma.FORMAT_ALONE, filters=filters)


def decompress(content: bytes | bytearray, expected: int, section: str) -> bytes:
    """Decompresses bytes of which it is known how many there are.

    Args:
        content: What `compress` gave.
        expected: Bytes before the compression.
        section: What it is called in an error.

    Raises:
        FileFormatError: If it is not whole, holds another number of bytes or more than one stream, or asks for more
            memory than `MEMORY`.
    """
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=MEMORY)
    try:
        # One byte more than expected tells a stream that is too long from one that is right.
        found = decoder.decompress(content, max_length=expected + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise refuse(section, "an lzma stream", f"one that cannot be decoded ({error})") from error
    if len(found) != expected:
        more = "more" if len(found) > expected else f"{len(found):,}"
        raise refuse(section, f"{expected:,} bytes when decompressed", more)
    if not decoder.eof:
        raise refuse(section, "an lzma stream with its end", "one that is cut off")
    if decoder.unused_data:
        raise refuse(section, "nothing behind the lzma stream", f"{len(decoder.unused_data):,} bytes")
    return found
