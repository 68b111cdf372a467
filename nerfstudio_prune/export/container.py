"""The frame of a `.safetensors` file: names, check sum, and its header, held against limits before anything is taken.

The format (8 bytes of length, a header of JSON, then the tensors) is that of the library `safetensors`, which reads the
tensors; https://github.com/huggingface/safetensors has its description. Whatever the header names is small then.
"""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError, deserialize

from nerfstudio_prune.core.files import read_file
from nerfstudio_prune.core.plain import check_plain, shown
from nerfstudio_prune.core.tensors import different_keys
from nerfstudio_prune.exchange.errors import FileFormatError, refuse

KEY = "nerfstudio_prune"
"""Name of the text among the file's metadata."""
PAYLOAD = "payload"
"""Name of the tensor of bytes."""
NO_SUM = "00000000"
"""In place of the check sum while it is taken."""
MAX_BYTES = 64_000_000
"""Of a file."""
MAX_HEADER = 256_000
"""Bytes of a header; the library's own limit is 100 MB."""
LENGTH = 8
"""Bytes of the length of the header."""


class TensorForm(msgspec.Struct, frozen=True):
    """Type and shape of a tensor, as the library names them."""

    dtype: str
    shape: list[int]


def read_content(path: Path) -> bytes:
    """The bytes of a file.

    Args:
        path: The file.

    Raises:
        FileFormatError: If it cannot be read, is no regular file, or too large.
    """
    try:
        return read_file(path, MAX_BYTES)
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error}") from error


def read_header(content: bytes) -> Mapping[str, Any]:
    """The header of a file: name of a tensor -> its form, and the file's metadata.

    Args:
        content: The whole file.

    Raises:
        FileFormatError: If there is none, or it is too large.
    """
    if len(content) < LENGTH:
        raise refuse("header", f"at least {LENGTH} bytes", f"{len(content)}")
    length = int.from_bytes(content[:LENGTH], "little")
    most = min(MAX_HEADER, len(content) - LENGTH)
    if not 2 <= length <= most:
        raise refuse("header", f"a length of 2 to {most:,} bytes, as in a .safetensors file", f"{length:,}")
    return decoded(content[LENGTH : LENGTH + length], "header")


def decoded(text: bytes | str, section: str) -> dict[str, Any]:
    """A JSON object of plain values.

    Args:
        text: Its text.
        section: What it is called in an error.

    Raises:
        FileFormatError: If it is none, nests too deeply, or holds a number that no tensor could.
    """
    try:
        values = msgspec.json.decode(text)
        check_plain(values, section)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise refuse(section, "JSON", f"{str(error) or type(error).__name__}") from error
    if not isinstance(values, dict):
        raise refuse(section, "a JSON object", shown(values))
    return values


def read_tensors(content: bytes, header: Mapping[str, Any], expected: Mapping[str, TensorForm]) -> dict[str, bytearray]:
    """The bytes of all tensors, once the header says that they are those that are expected.

    Args:
        content: The whole file.
        header: What `read_header` gave.
        expected: Name of each tensor -> its form.

    Returns:
        Name -> bytes, in the order of what is expected.

    Raises:
        FileFormatError: If a tensor is missing, unknown or of another form, or the tensors do not fill the file.
    """
    names = header.keys() - {"__metadata__"}
    missing, unknown = sorted(expected.keys() - names), sorted(names - expected.keys())
    if missing or unknown:
        raise refuse("header", "the tensors that the metadata describe", different_keys(missing, unknown))
    for name, form in expected.items():
        try:
            found = msgspec.convert(header[name], TensorForm)
        except msgspec.ValidationError as error:
            raise refuse(name, "type and shape of a tensor", str(error)) from error
        if found != form:
            raise refuse(name, f"{form.dtype} of shape {form.shape}", f"{shown(found.dtype)} of {shown(found.shape)}")
    try:
        tensors = {name: values["data"] for name, values in deserialize(content)}
    except SafetensorError as error:
        raise refuse("tensors", "what the header describes, without gaps", f"{error}") from error
    return {name: tensors[name] for name in expected}


def check_sum(text: str, contents: Iterable[bytes | bytearray]) -> str:
    """CRC-32 of a file, in eight hexadecimal digits.

    Args:
        text: Its metadata, with `NO_SUM` in place of the sum.
        contents: The bytes of its tensors, in the order of the layers, the weight before the bias.
    """
    found = zlib.crc32(text.encode())
    for content in contents:
        found = zlib.crc32(content, found)
    return f"{found:08x}"
