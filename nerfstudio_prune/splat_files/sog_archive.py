"""The zip archive of a SOG file, opened in memory: nothing is unpacked to a disk, whatever names it holds."""

import io
import struct
import zipfile
import zlib

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.exchange.errors import refuse

MAX_MEMBERS = 64
"""A file of version 2 has eight."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others take memory as the archive asks for."""
ENCRYPTED = 1
"""Flag of a member."""
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
"""What the library raises for archives that are damaged."""


class Archive:
    """Members of an archive, by name."""

    def __init__(self, content: bytes) -> None:
        """Reads the table of members.

        Args:
            content: The whole file.

        Raises:
            FileFormatError: If it is no archive, or holds too many members or two of one name.
        """
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except BROKEN as error:
            raise refuse("archive", "a zip archive", f"one that cannot be read: {shown(str(error))}") from error
        names = self._zip.namelist()
        if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
            raise refuse("archive", f"at most {MAX_MEMBERS} members of different names", f"{len(names)}")

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a member.

        Args:
            name: Of the member.
            most: Bytes that it may have.

        Raises:
            FileFormatError: If it is not there, is larger than that, or cannot be read.
        """
        try:
            info = self._zip.getinfo(name)
        except KeyError as error:
            raise refuse("archive", f"a member {shown(name)}", "none") from error
        if info.file_size > most:
            raise refuse(shown(name), f"at most {most:,} bytes", f"{info.file_size:,}")
        if info.compress_type not in COMPRESSIONS or info.flag_bits & ENCRYPTED:
            raise refuse(shown(name), "a member that is stored or deflated", f"kind {info.compress_type}, or encrypted")
        try:
            with self._zip.open(info) as member:
                return member.read(most)
        except BROKEN as error:
            raise refuse(shown(name), "a whole member", f"one that cannot be read: {shown(str(error))}") from error
