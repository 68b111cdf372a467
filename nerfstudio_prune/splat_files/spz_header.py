"""What an SPZ file says of itself, and how long its streams are.

Versions 1 to 3 have 16 bytes in front of the streams, all of it in one gzip stream. Version 4 has 32 bytes, records of
vendors and a table of sizes, and then each stream by itself, compressed by zstd.
"""

import struct
from dataclasses import dataclass

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.raster.gaussians import MAX_SH_DEGREE
from nerfstudio_prune.splat_files.limits import check_count

MAGIC = b"NGSP"
LEGACY = struct.Struct("<4sIIBBBB")
"""Magic, version, number, degree, bits behind the point, flags, nothing."""
ANTIALIASED, EXTENSIONS = 1, 2
"""Flags."""
COORDINATES = 0xADBE0003
"""Record of a vendor that says in which directions the axes go."""
RECORD = struct.Struct("<II")
"""Kind of a record, and bytes that follow."""
AXES_OF_PLY = 6
"""Right, down and front, among the systems of `COORDINATES`: 1 to 8, a bit for each axis of one less."""
AXES = (1, -1, -1)
"""Signs from right, up and back, the axes of a file without that record, to right, down and front."""
MAX_FRACTION = 30
"""Bits behind the point that are believed."""


@dataclass(frozen=True)
class SpzHeader:
    """What a file says of itself, each value in its range."""

    version: int
    count: int
    """Gaussians."""
    sh_degree: int
    fractional_bits: int
    """Of the positions, from version 2 on."""
    antialiased: bool
    extensions: bool = False
    """Whether there are records of vendors."""
    axes: tuple[int, int, int] = AXES
    """Signs that bring the axes to those of a `.ply` file."""

    def lengths(self) -> dict[str, int]:
        """Name of each stream -> its bytes, in the order of the file."""
        each = {
            "positions": 6 if self.version == 1 else 9,
            "opacities": 1,
            "colours": 3,
            "scales": 3,
            "rotations": 3 if self.version < 3 else 4,
            "harmonics": 3 * ((self.sh_degree + 1) ** 2 - 1),
        }
        return {name: self.count * size for name, size in each.items()}


def read_start(content: bytes, versions: range, size: int) -> SpzHeader:
    """The header's first sixteen bytes, which all versions have in common.

    Args:
        content: What begins with them.
        versions: Those that can be here.
        size: Bytes of the file.

    Raises:
        FileFormatError: If there is no header, or a value is out of its range.
    """
    if len(content) < LEGACY.size:
        raise refuse("header", f"{LEGACY.size} bytes", f"{len(content)}")
    magic, version, count, degree, bits, flags, _ = LEGACY.unpack_from(content)
    if magic != MAGIC:
        raise refuse("header", f"{MAGIC.decode()} at its beginning", shown(magic))
    if version not in versions:
        known = " or ".join(map(str, versions))
        raise refuse("header, version", f"{known} in a file that begins like this one", f"{version}")
    check_count(count, size, "header, number")
    if degree > MAX_SH_DEGREE:
        raise refuse("header, degree of the harmonics", f"0 to {MAX_SH_DEGREE}", f"{degree}")
    if bits > MAX_FRACTION:
        raise refuse("header, bits behind the point", f"0 to {MAX_FRACTION}", f"{bits}")
    return SpzHeader(version, count, degree, bits, bool(flags & ANTIALIASED), bool(flags & EXTENSIONS))


def write_start(header: SpzHeader) -> bytes:
    """The inverse of `read_start`, without records of vendors.

    Args:
        header: What to say.
    """
    flags = ANTIALIASED * header.antialiased
    return LEGACY.pack(MAGIC, header.version, header.count, header.sh_degree, header.fractional_bits, flags, 0)


def read_axes(records: bytes) -> tuple[int, int, int]:
    """Signs that bring the axes to those of a `.ply` file, by the records of vendors; others are skipped.

    Args:
        records: All records, one after the other.

    Raises:
        FileFormatError: If a record is cut off, or the axes are ones that cannot be brought there by signs.
    """
    axes, at = AXES, 0
    while at < len(records):
        if len(records) - at < RECORD.size:
            raise refuse("extensions", f"records of at least {RECORD.size} bytes", f"{len(records) - at} at the end")
        kind, length = RECORD.unpack_from(records, at)
        at += RECORD.size
        if length > len(records) - at:
            raise refuse("extensions", f"a record of at most {len(records) - at:,} bytes", f"one of {length:,}")
        if kind == COORDINATES:
            system = int.from_bytes(records[at : at + length], "little") if length == 4 else -1
            if not 0 <= system <= 8:
                raise refuse("extensions, coordinate system", "one of the eight that differ by signs", f"{system}")
            axes = _signs(system) if system else AXES
        at += length
    return axes


def _signs(system: int) -> tuple[int, int, int]:
    differ = (system - 1) ^ (AXES_OF_PLY - 1)
    x, y, z = (-1 if differ >> axis & 1 else 1 for axis in range(3))
    return x, y, z
