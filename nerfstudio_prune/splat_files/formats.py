"""Which formats there are, by the ends of names of files: one line each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.comments import read_comments
from nerfstudio_prune.splat_files.compressed_ply import decode_compressed_ply, encode_compressed_ply, is_compressed
from nerfstudio_prune.splat_files.limits import MAX_GAUSSIANS, read_content
from nerfstudio_prune.splat_files.order import along_curve
from nerfstudio_prune.splat_files.packed import decode_packed, encode_packed, packed_order
from nerfstudio_prune.splat_files.packed_container import SUFFIX
from nerfstudio_prune.splat_files.ply import decode_ply, encode_ply
from nerfstudio_prune.splat_files.ply_header import parse_header, read_rows
from nerfstudio_prune.splat_files.sog import decode_sog
from nerfstudio_prune.splat_files.spz import decode_spz, encode_spz
from nerfstudio_prune.splat_files.stored import StoredGaussians


def as_they_are(gaussians: Gaussians) -> Gaussians:
    """No other order."""
    return gaussians


def decode_any_ply(content: bytes) -> StoredGaussians:
    """Gaussians of a `.ply` file, compressed or not: names do not always tell.

    Args:
        content: The whole file.

    Raises:
        FileFormatError: If it is none of Gaussians, or damaged.
    """
    header = parse_header(content)
    rows = read_rows(content, header)
    found = decode_compressed_ply(rows) if is_compressed(header) else decode_ply(rows)
    antialiased, placement = read_comments(header.comments)
    return replace(found, antialiased=antialiased, placement=placement)


@dataclass(frozen=True)
class Format:
    """How Gaussians lie in a file."""

    name: str
    read: Callable[[bytes], StoredGaussians]
    """From the whole content of a file."""
    write: Optional[Callable[[StoredGaussians], bytes]] = None
    """The content of a file; None where files are only read."""
    arrange: Callable[[Gaussians], Gaussians] = as_they_are
    """The order in which Gaussians are written."""


FORMATS: dict[str, Format] = {
    SUFFIX: Format("this project's", decode_packed, encode_packed, packed_order),
    ".compressed.ply": Format("compressed ply", decode_any_ply, encode_compressed_ply, along_curve),
    ".ply": Format("ply", decode_any_ply, encode_ply),
    ".spz": Format("SPZ", decode_spz, encode_spz, along_curve),
    ".sog": Format("SOG", decode_sog),
}
"""End of a file's name -> format; where two fit, the first one counts."""


def format_of(path: Path) -> Format:
    """Format of a file, by its name.

    Args:
        path: The file.

    Raises:
        FileFormatError: If no format has such names.
    """
    for suffix, found in FORMATS.items():
        if path.name.lower().endswith(suffix):
            return found
    raise FileFormatError(f"{path}: expected a name that ends with {', '.join(FORMATS)}")


def format_to_write(path: Path) -> tuple[Format, Callable[[StoredGaussians], bytes]]:
    """Format of a file that is to be written, and what makes its content.

    Args:
        path: The file.

    Raises:
        FileFormatError: If no format has such names, or it is only read.
    """
    found = format_of(path)
    if found.write is None:
        writable = ", ".join(suffix for suffix, other in FORMATS.items() if other.write is not None)
        raise FileFormatError(f"{path}: files of {found.name} are only read; {writable} are written too")
    return found, found.write


def read_splats(path: Path | str) -> StoredGaussians:
    """Reads a file of Gaussians from anyone.

    Sizes and counts are checked before anything is allocated for them; nothing in the file is run.

    Args:
        path: The file.

    Raises:
        FileFormatError: If it cannot be read, is damaged, of another kind, or of a newer version. Names the file, the
            section, what was expected and what was found.
    """
    path = Path(path)
    found = format_of(path)
    try:
        return found.read(read_content(path))
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def write_splats(path: Path | str, stored: StoredGaussians) -> StoredGaussians:
    """Writes a file of Gaussians, as a whole or not at all.

    Args:
        path: The file; its name says the format.
        stored: What it is to hold.

    Returns:
        The same in the order in which it was written.

    Raises:
        FileFormatError: If the format is only read, cannot hold these Gaussians, or the file cannot be written. Names
            the file.
    """
    path = Path(path)
    found, encode = format_to_write(path)
    if not 1 <= len(stored.gaussians) <= MAX_GAUSSIANS:
        raise FileFormatError(f"{path}: expected 1 to {MAX_GAUSSIANS:,} Gaussians, got {len(stored.gaussians):,}")
    arranged = replace(stored, gaussians=found.arrange(stored.gaussians))
    try:
        write_file(path, encode(arranged))
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error}") from error
    return arranged
