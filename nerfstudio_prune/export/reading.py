"""Reads a file that may come from anyone. Needs torch, safetensors, msgspec and jaxtyping: no Nerfstudio."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.exchange.compression import decompress
from nerfstudio_prune.exchange.errors import FileFormatError, refuse
from nerfstudio_prune.export.container import (
    KEY,
    NO_SUM,
    PAYLOAD,
    TensorForm,
    check_sum,
    decoded,
    read_content,
    read_header,
    read_tensors,
)
from nerfstudio_prune.export.kinds import AnyMetadata, check_metadata
from nerfstudio_prune.export.layers import DTYPES, LayerTensors, check_finite, decode_layers, layer_bytes
from nerfstudio_prune.export.schema import VERSION

NAMES = {16: "F16", 32: "F32"}
"""Bits of a weight that has a tensor of its own -> what the library calls its type."""


@dataclass(frozen=True)
class Exported:
    """What a file holds."""

    metadata: AnyMetadata
    layers: Mapping[str, LayerTensors]
    """Name of each layer -> its numbers, in single precision."""
    blobs: Mapping[str, bytes]
    """Name of each tensor of bytes beside the layers -> what it says."""
    size: int
    """Bytes of the file."""


def read_exported(path: Path | str) -> Exported:
    """Reads what `ns-prune export` wrote.

    Sizes, counts and names are checked before anything is allocated for them; nothing in the file is run.

    Args:
        path: The file.

    Raises:
        FileFormatError: If it cannot be read, is damaged, of another kind, or of a newer version. Names the file, the
            section, what was expected and what was found.
    """
    try:
        return decode_exported(read_content(Path(path)))
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def decode_exported(content: bytes) -> Exported:
    """What the content of such a file says.

    Args:
        content: All of it.

    Raises:
        FileFormatError: As `read_exported`, without the name of the file.
    """
    header = read_header(content)
    texts = header.get("__metadata__")
    text = texts.get(KEY) if isinstance(texts, dict) else None
    if not isinstance(text, str):
        raise refuse("metadata", f"a text {KEY!r}, which ns-prune export writes", "none")
    metadata = decode_metadata(text)
    check_metadata(metadata)
    size = len(content)
    tensors = read_tensors(content, header, expected_tensors(metadata, header))
    del content  # as large as all tensors together
    found = check_sum(text.replace(metadata.crc32, NO_SUM, 1), tensors.values())
    if found != metadata.crc32:
        raise refuse("check sum", f"{metadata.crc32}, as when it was written", f"{found}: the file is damaged")
    # Before the layers, which are larger.
    blobs = {name: decompress(tensors.pop(name), length, name) for name, length in metadata.blobs().items()}
    return Exported(metadata, _layers(metadata, tensors), blobs, size)


def decode_metadata(text: str) -> AnyMetadata:
    """What a file says of itself, each value within its range.

    Args:
        text: JSON.

    Raises:
        FileFormatError: If it is of another version, a key is unknown or missing, or a value out of its range.
    """
    values = decoded(text, "metadata")
    version = values.get("version")
    if version != VERSION or type(version) is not int:
        raise refuse(
            "metadata, version", f"{VERSION}, the one that this version of nerfstudio-prune reads", shown(version)
        )
    try:
        return msgspec.convert(values, AnyMetadata)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        place = place.strip("`") or "$"
        raise FileFormatError(f"metadata, {place}: {message}; found {shown(_at(values, place))}") from error


def _at(values: Any, place: str) -> Any:
    """The value at a place as msgspec names it, e.g. `$.fine.trunk[0][2]`."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        values = values[name] if name else values[int(index)]
    return values


def expected_tensors(metadata: AnyMetadata, header: Mapping[str, Any]) -> dict[str, TensorForm]:
    """Name and form of the tensors that a file has to hold, in the order of its layers, further bytes behind them.

    Args:
        metadata: What it says of itself.
        header: Its header: how long something compressed is, nothing else says.
    """
    blobs = {name: TensorForm("U8", [_length(header, name)]) for name in metadata.blobs()}
    return {**_layer_forms(metadata, header), **blobs}


def _length(header: Mapping[str, Any], name: str) -> Any:
    """Bytes of a tensor, as the header says."""
    entry = header.get(name)
    shape = entry.get("shape") if isinstance(entry, dict) else None
    return shape[0] if isinstance(shape, list) and len(shape) == 1 else 0


def _layer_forms(metadata: AnyMetadata, header: Mapping[str, Any]) -> dict[str, TensorForm]:
    layers = metadata.layers()
    if metadata.storage == "tensors":
        forms = {}
        for name, layer in layers.items():
            forms[f"{name}.weight"] = TensorForm(NAMES[layer.bits], [layer.rows, layer.columns])
            forms[f"{name}.bias"] = TensorForm(NAMES[layer.bits], [layer.rows])
        return forms
    length: Any = sum(map(layer_bytes, layers.values()))
    if metadata.storage == "lzma":
        length = _length(header, PAYLOAD)
    return {PAYLOAD: TensorForm("U8", [length])}


def _layers(metadata: AnyMetadata, tensors: dict[str, bytearray]) -> dict[str, LayerTensors]:
    if metadata.storage == "tensors":
        return {
            name: _own_tensors(name, layer.bits, layer.columns, tensors) for name, layer in metadata.layers().items()
        }
    payload = tensors.pop(PAYLOAD)
    if metadata.storage == "lzma":
        expected = sum(map(layer_bytes, metadata.layers().values()))
        payload = bytearray(decompress(payload, expected, PAYLOAD))
    return dict(decode_layers(memoryview(payload), metadata.layers()))


def _own_tensors(name: str, bits: int, columns: int, tensors: dict[str, bytearray]) -> LayerTensors:
    """A layer whose weight and bias are tensors of their own."""
    parts = []
    for part in ("weight", "bias"):
        values = torch.frombuffer(tensors.pop(f"{name}.{part}"), dtype=DTYPES[bits])
        check_finite(values, f"{name}.{part}")
        parts.append(values.float())
    weight, bias = parts
    return LayerTensors(weight.view(-1, columns), bias)
