"""The frame of a `.gsvt` file: a header, a list of sections, and their contents, each with its check sum.

All numbers are little-endian. The header is `GSVT`, version (u16), layout (u8), flags (u8), Gaussians (u32), degree of
the spherical harmonics (u8), sections (u8); then for each section its id (u8), whether it is compressed (u8), its bytes
in the file (u32) and their CRC-32 (u32); then the CRC-32 of all that comes before it (u32). Contents follow without
gaps.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from nerfstudio_prune.exchange.compression import compress, decompress
from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.raster.gaussians import MAX_SH_DEGREE

MAGIC = b"GSVT"
VERSION = 1
SUFFIX = ".gsvt"
MAX_BYTES = 2**30
"""Of a file."""
MAX_COUNT = 2**26
"""Gaussians."""
_HEAD = struct.Struct("<4sHBBIBB")
_ENTRY = struct.Struct("<BBII")
_SUM = struct.Struct("<I")


class Layout(IntEnum):
    """How the numbers are stored."""

    ADAPTIVE = 0
    """Rounded by what pictures make of it, see `adaptive_encode.py`."""
    VECTREE = 1
    """LightGaussian's VecTree, see `vectree.py`."""


class Section(IntEnum):
    """What a section holds."""

    PLACEMENT = 1
    FRAME = 2
    TABLES = 3
    PLACES = 4
    SYMBOLS = 5
    ESCAPES = 6
    PADDING = 7
    OCTREE = 8
    COUNTS = 9
    SHAPES = 10
    CODED = 11
    CODES = 12
    CODEBOOK = 13
    HARMONICS = 14

    @property
    def label(self) -> str:
        """Its name in an error."""
        return self.name.lower()


class Flag(IntEnum):
    """Bits of the flags."""

    KNOWS_ANTIALIASING = 1
    ANTIALIASED = 2


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    layout: Layout
    flags: int
    count: int
    """Gaussians."""
    degree: int
    """Of the spherical harmonics."""


class Sections:
    """The sections of a file that was read.

    Args:
        contents: Section -> whether it is compressed, and its bytes in the file.
    """

    def __init__(self, contents: Mapping[Section, tuple[bool, bytes]]) -> None:
        self._contents = dict(contents)

    def take(self, section: Section, expected: int) -> bytes:
        """The content of a section of which it is known how long it is.

        Args:
            section: Which.
            expected: Bytes, before compression.

        Raises:
            FileFormatError: If it is not there, or has another length.
        """
        packed, content = self._taken(section)
        if packed:
            return decompress(content, expected, section.label)
        if len(content) != expected:
            raise refuse(section.label, f"{expected:,} bytes", f"{len(content):,}")
        return content

    def take_raw(self, section: Section) -> bytes:
        """The content of a section that is never compressed.

        Args:
            section: Which.

        Raises:
            FileFormatError: If it is not there, or compressed.
        """
        packed, content = self._taken(section)
        if packed:
            raise refuse(section.label, "a section that is not compressed", "one that is")
        return content

    def has(self, section: Section) -> bool:
        """Whether a section is there that was not taken yet."""
        return section in self._contents

    def finish(self) -> None:
        """Checks that all sections were taken.

        Raises:
            FileFormatError: If not.
        """
        if self._contents:
            raise refuse("header", "the sections of its layout alone", f"{min(self._contents).label} as well")

    def _taken(self, section: Section) -> tuple[bool, bytes]:
        if section not in self._contents:
            raise refuse("header", f"a section {section.label}", "none")
        return self._contents.pop(section)


def put_together(header: Header, sections: Mapping[Section, tuple[bool, bytes]]) -> bytes:
    """The bytes of a file. It is at least as long as there are Gaussians, so that a reader may hold their number
    against its length.

    Args:
        header: What it says of itself.
        sections: Section -> whether it is compressed already, so that `lzma` need not be tried, and its content.
    """
    stored: dict[Section, tuple[bool, bytes]] = {}
    for section, (final, content) in sections.items():
        packed = content if final else compress(content)
        stored[section] = (True, packed) if len(packed) < len(content) else (False, content)
    length = _HEAD.size + _SUM.size + sum(_ENTRY.size + len(content) for _, content in stored.values())
    if length < header.count:
        stored[Section.PADDING] = False, bytes(header.count - length)
    head = _HEAD.pack(MAGIC, VERSION, header.layout, header.flags, header.count, header.degree, len(stored)) + b"".join(
        _ENTRY.pack(section, packed, len(content), zlib.crc32(content)) for section, (packed, content) in stored.items()
    )
    return head + _SUM.pack(zlib.crc32(head)) + b"".join(content for _, content in stored.values())


def take_apart(content: bytes) -> tuple[Header, Sections]:
    """Header and sections of a file, all check sums checked.

    Args:
        content: The whole file.

    Raises:
        FileFormatError: If it is of something else, of a newer version, cut off, damaged, or says more of itself than
            there can be.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise refuse("header", f"a file that begins with {MAGIC!r}", f"{content[: len(MAGIC)]!r}")
    if len(content) < _HEAD.size:
        raise refuse("header", f"{_HEAD.size} bytes", f"{len(content)}")
    _, version, layout, flags, count, degree, number = _HEAD.unpack_from(content)
    if version != VERSION:
        raise refuse("header", f"version {VERSION}, the one that this version of nerfstudio-prune reads", f"{version}")
    begin = _HEAD.size + number * _ENTRY.size
    if len(content) < begin + _SUM.size:
        raise refuse("header", f"{begin + _SUM.size} bytes for {number} sections", f"{len(content)}")
    if zlib.crc32(content[:begin]) != _SUM.unpack_from(content, begin)[0]:
        raise refuse("header", "its check sum", "another one: it is damaged")
    most = min(MAX_COUNT, len(content))
    if not 1 <= count <= most:
        raise refuse("header", f"1 to {most:,} Gaussians in a file of {len(content):,} bytes", f"{count:,}")
    if degree > MAX_SH_DEGREE:
        raise refuse("header", f"spherical harmonics of degree 0 to {MAX_SH_DEGREE}", f"{degree}")
    if layout not in {*Layout}:
        raise refuse("header", f"a layout of {', '.join(str(int(known)) for known in Layout)}", f"{layout}")
    if flags & ~sum(Flag):
        raise refuse("header", "flags that are known", f"{flags:#04x}")
    return Header(Layout(layout), flags, count, degree), _sections(content, number, begin + _SUM.size)


def section_sizes(content: bytes) -> dict[str, int]:
    """Bytes of each section as it is stored, the header with its list first.

    Args:
        content: A file that `take_apart` takes.
    """
    number = _HEAD.unpack_from(content)[-1]
    found = {"header": _HEAD.size + number * _ENTRY.size + _SUM.size}
    for i in range(number):
        name, _, length, _ = _ENTRY.unpack_from(content, _HEAD.size + i * _ENTRY.size)
        found[Section(name).label] = length
    return found


def _sections(content: bytes, number: int, begin: int) -> Sections:
    found: dict[Section, tuple[bool, bytes]] = {}
    for i in range(number):
        name, packed, length, expected = _ENTRY.unpack_from(content, _HEAD.size + i * _ENTRY.size)
        if name not in {*Section} or packed > 1 or Section(name) in found:
            raise refuse("header", "sections that are known, each once", f"{name}, compressed: {packed}")
        section = Section(name)
        if len(content) - begin < length:
            raise refuse(section.label, f"{length:,} bytes", f"{len(content) - begin:,}: the file is cut off")
        found[section] = bool(packed), content[begin : begin + length]
        if zlib.crc32(found[section][1]) != expected:
            raise refuse(section.label, "its check sum", "another one: it is damaged")
        begin += length
    if begin != len(content):
        raise refuse("sections", "nothing behind the last one", f"{len(content) - begin:,} bytes")
    padding = found.pop(Section.PADDING, None)
    if padding is not None and (padding[0] or any(padding[1])):
        raise refuse(Section.PADDING.label, "zeros", "something else")
    return Sections(found)
