"""Gaussians as an SPZ file: versions 1 to 4 are read, version 3 is written.

The format is that of Niantic, https://github.com/nianticlabs/spz.
"""

import struct
from dataclasses import replace
from typing import Any

import numpy as np

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.exchange.gzip_stream import gzip_compress, gzip_decompress
from nerfstudio_prune.splat_files.limits import most_gaussians
from nerfstudio_prune.splat_files.spz_codes import decode_numbers, encode_numbers
from nerfstudio_prune.splat_files.spz_header import LEGACY, MAGIC, SpzHeader, read_axes, read_start, write_start
from nerfstudio_prune.splat_files.stored import StoredGaussians

GZIP_MAGIC = b"\x1f\x8b"
LARGEST = 9 + 1 + 3 + 3 + 4 + 45
"""Bytes of a Gaussian of degree 3."""
MAX_RECORDS = 2**16
"""Bytes of all records of vendors; known ones have a dozen each."""
WIDE = struct.Struct("<BI12x")
"""What the header of version 4 has behind the common part's last byte: number of streams, beginning of the table."""
WIDE_SIZE = 32
SIZES = struct.Struct("<QQ")
"""A stream's bytes in the file, and when decompressed."""
WINDOW = 2**23
"""Bytes that zstd may look back, beside the output; what its format asks every decoder to allow."""


def decode_spz(content: bytes) -> StoredGaussians:
    """Gaussians of a file.

    Args:
        content: The whole file.

    Raises:
        FileFormatError: If it is none, of a newer version, damaged, or needs a package that is not installed.
    """
    if content[: len(MAGIC)] == MAGIC:
        header, streams = _separate_streams(content)
    elif content[: len(GZIP_MAGIC)] == GZIP_MAGIC:
        header, streams = _one_stream(content)
    else:
        raise refuse("header", "an SPZ file, which begins with NGSP or as a gzip stream", repr(content[:4]))
    arrays = {name: np.frombuffer(stream, np.uint8) for name, stream in streams.items()}
    return replace(decode_numbers(header, arrays), antialiased=header.antialiased)


def _one_stream(content: bytes) -> tuple[SpzHeader, dict[str, Any]]:
    """Header and streams of versions 1 to 3."""
    size = len(content)
    most = LEGACY.size + LARGEST * most_gaussians(size) + MAX_RECORDS
    unpacked = memoryview(gzip_decompress(content, most, "gzip stream"))
    header = read_start(unpacked[: LEGACY.size].tobytes(), range(1, 4), size)
    streams, at = {}, LEGACY.size
    for name, length in header.lengths().items():
        streams[name] = unpacked[at : at + length]
        at += length
    records = unpacked[at:].tobytes()
    if at > len(unpacked) or (records and not header.extensions):
        raise refuse("streams", f"{at:,} bytes, as the header says", f"{len(unpacked):,}")
    return replace(header, axes=read_axes(records)), streams


def _separate_streams(content: bytes) -> tuple[SpzHeader, dict[str, Any]]:
    """Header and streams of version 4."""
    header = read_start(content, range(4, 5), len(content))
    if len(content) < WIDE_SIZE:
        raise refuse("header", f"{WIDE_SIZE} bytes", f"{len(content)}")
    number, table = WIDE.unpack_from(content, LEGACY.size - 1)
    lengths = {name: length for name, length in header.lengths().items() if length}
    at = table + number * SIZES.size
    if number != len(lengths) or not WIDE_SIZE <= table <= WIDE_SIZE + MAX_RECORDS or at > len(content):
        raise refuse("table of streams", f"{len(lengths)} streams, in the file", f"{number} from byte {table:,} on")
    streams: dict[str, Any] = {"harmonics": b""}
    for i, (name, length) in enumerate(lengths.items()):
        packed, unpacked = SIZES.unpack_from(content, table + i * SIZES.size)
        if unpacked != length or packed > len(content) - at:
            found = f"{unpacked:,} bytes, packed in {packed:,}"
            raise refuse(name, f"{length:,} bytes, packed in at most {len(content) - at:,}", found)
        streams[name] = _zstd_decompress(content[at : at + packed], length, name)
        at += packed
    if at != len(content):
        raise refuse("streams", f"{at:,} bytes, as the table says", f"{len(content):,}")
    records = content[WIDE_SIZE:table] if header.extensions else b""
    return replace(header, axes=read_axes(records)), streams


def _zstd_decompress(content: bytes, length: int, section: str) -> bytes:
    try:
        # Python's standard library has zstd from 3.14 on only, and few files need it.
        import zstandard  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        need = "the Python package zstandard, since version 4 is compressed by zstd (or the file in version 3)"
        raise refuse("header, version", need, "no such package") from error
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    try:
        # One byte more than expected tells a stream that is too long from one that is right.
        found = decoder.stream_reader(content, read_across_frames=False).read(length + 1)
    except zstandard.ZstdError as error:
        raise refuse(section, "a zstd stream", f"one that cannot be decoded ({error})") from error
    if len(found) != length:
        more = "more" if len(found) > length else f"{len(found):,}"
        raise refuse(section, f"{length:,} bytes when decompressed", more)
    return found


def encode_spz(stored: StoredGaussians) -> bytes:
    """The bytes of a file of version 3.

    Args:
        stored: What it is to hold.

    Raises:
        FileFormatError: If a Gaussian is too far away for the format.
    """
    header, streams = encode_numbers(stored)
    return gzip_compress(write_start(header) + b"".join(streams[name] for name in header.lengths()))
