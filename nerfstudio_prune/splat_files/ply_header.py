"""The header of a binary `.ply` file, and the rows that it describes.

The format is that of Greg Turk (1994), http://paulbourke.net/dataformats/ply/. Lists of varying length are not read: no
file of Gaussians has them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.splat_files.limits import MAX_GAUSSIANS

MAX_HEADER = 64_000
"""Bytes; the header of Gaussians of degree 3 has 1,500."""
MAX_PROPERTIES = 256
"""Of all elements together; Gaussians of degree 3 have 62."""
END = re.compile(rb"\nend_header[ \t]*\r?\n")
COUNT = re.compile(r"[0-9]{1,12}")
TYPES: Mapping[str, str] = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
}
"""Name of a type in a header -> numpy's."""


@dataclass(frozen=True)
class Element:
    """Rows of one kind."""

    name: str
    count: int
    """Number of rows."""
    properties: dict[str, str] = field(default_factory=dict)
    """Name of each column -> its type, as in a header."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """A row, without gaps."""
        return np.dtype([(name, TYPES[kind]) for name, kind in self.properties.items()])


@dataclass(frozen=True)
class PlyHeader:
    """What a file says of itself."""

    elements: dict[str, Element] = field(default_factory=dict)
    """By name, in the order of their rows."""
    comments: list[str] = field(default_factory=list)
    length: int = 0
    """Bytes of the header."""


def parse_header(content: bytes) -> PlyHeader:
    """Reads the header of a file.

    Args:
        content: The whole file.

    Raises:
        FileFormatError: If there is none, it is not of a binary little-endian file, it is not understood, or it does
            not describe as many bytes as there are.
    """
    if not re.match(rb"ply[ \t]*\r?\n", content[:16]):
        raise refuse("header", "'ply' in the first line", shown(content[:8]))
    end = END.search(content[:MAX_HEADER])
    if end is None:
        raise refuse("header", f"'end_header' within {MAX_HEADER:,} bytes", "none")
    header = PlyHeader(length=end.end())
    lines = content[: end.start()].decode("utf-8", errors="replace").split("\n")[1:]
    kinds = []
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "format":
            kinds.append(rest.strip())
        elif word == "comment":
            header.comments.append(rest)
        elif word == "element":
            _add_element(header, rest.split())
        elif word == "property":
            _add_property(header, rest.split())
        elif word not in ("", "obj_info"):
            raise refuse("header", "format, comment, element or property", shown(line))
    if kinds != ["binary_little_endian 1.0"]:
        raise refuse("header", "format binary_little_endian 1.0", shown(", ".join(kinds) or "none"))
    _check_size(header, len(content))
    return header


def _add_element(header: PlyHeader, words: list[str]) -> None:
    if len(words) != 2 or not COUNT.fullmatch(words[1]) or words[0] in header.elements:
        raise refuse("header", "a new name and a number of rows after 'element'", shown(" ".join(words)))
    count = int(words[1])
    if count > MAX_GAUSSIANS:
        raise refuse(f"element {shown(words[0])}", f"at most {MAX_GAUSSIANS:,} rows", f"{count:,}")
    header.elements[words[0]] = Element(words[0], count)


def _add_property(header: PlyHeader, words: list[str]) -> None:
    if not header.elements:
        raise refuse("header", "an element before its properties", shown(" ".join(words)))
    element = list(header.elements.values())[-1]
    if words[:1] == ["list"]:
        raise refuse(f"element {shown(element.name)}", "no lists", shown(" ".join(words)))
    if len(words) != 2 or words[0] not in TYPES or words[1] in element.properties:
        raise refuse(f"element {shown(element.name)}", "a type and a new name of a property", shown(" ".join(words)))
    element.properties[words[1]] = words[0]
    if sum(len(e.properties) for e in header.elements.values()) > MAX_PROPERTIES:
        raise refuse("header", f"at most {MAX_PROPERTIES} properties", "more")


def _check_size(header: PlyHeader, size: int) -> None:
    for name, element in header.elements.items():
        if not element.properties:
            raise refuse(f"element {shown(name)}", "properties", "none")
    expected = header.length + sum(e.count * e.dtype.itemsize for e in header.elements.values())
    if expected != size:
        raise refuse("rows", f"a file of {expected:,} bytes, as the header says", f"{size:,}")


def read_rows(content: bytes, header: PlyHeader) -> dict[str, Any]:
    """The rows of all elements, as numpy's arrays of records; views, not copies.

    Args:
        content: The whole file.
        header: What `parse_header` gave.
    """
    rows, offset = {}, header.length
    for name, element in header.elements.items():
        rows[name] = np.frombuffer(content, element.dtype, element.count, offset)
        offset += element.count * element.dtype.itemsize
    return rows


def columns_of(rows: Any, names: Sequence[str], section: str) -> Any:
    """Some columns side by side, in single precision.

    Args:
        rows: Records.
        names: Of the columns.
        section: What the rows are called in an error.

    Raises:
        FileFormatError: Names the columns that are not there.
    """
    missing = [name for name in names if name not in rows.dtype.names]
    if missing:
        raise refuse(section, f"properties {', '.join(names)}", f"none named {', '.join(missing)}")
    found = np.empty((len(rows), len(names)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for i, name in enumerate(names):
            found[:, i] = rows[name]
    return found


def header_of(elements: Sequence[Element], comments: Sequence[str]) -> bytes:
    """The bytes of a header.

    Args:
        elements: In the order of their rows.
        comments: Lines without line ends.
    """
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    for element in elements:
        lines.append(f"element {element.name} {element.count}")
        lines += [f"property {kind} {name}" for name, kind in element.properties.items()]
    return "\n".join([*lines, "end_header", ""]).encode()
