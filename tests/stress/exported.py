"""Mutated files of `ns-prune export`, read and rendered.

Bytes are flipped, cut, doubled and put in anywhere; or header, metadata and numbers are changed and the check sum is
made to fit, which leads past it.

    python tests/stress/exported.py --count 10000
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from support.exported import content_of, small_model
from support.exported_kilo import kilo_content, kilo_model
from support.fuzz import NOT_FINITE, ODD_PLAIN, RAW, TAKEN, Mutator, main
from support.tiny_run import rays

from nerfstudio_prune.exchange.compression import compress
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.export.container import KEY, LENGTH, NO_SUM, PAYLOAD, check_sum
from nerfstudio_prune.export.kilo_schema import BITS, CELLS, WIDTHS
from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.export.schema import MAX_WIDTH, Storage

KINDS: tuple[tuple[Storage, int], ...] = (("tensors", 32), ("tensors", 16), ("payload", 8), ("payload", 3), ("lzma", 5))
BLOBS = (CELLS, WIDTHS, BITS)
"""Tensors beside the layers, in their order."""
BOMB = 10**7
"""Zeros that a few bytes become."""


@cache
def whole_files() -> tuple[bytes, ...]:
    """A file of each kind, as they are written."""
    models = small_model(), small_model(use_scene_contraction=True, background_color="last_sample", skip_connections=())
    tiny = kilo_model(narrows=True), kilo_model("last_sample", contracted=True)
    large = [content_of(model, *kind) for model in models for kind in KINDS]
    mixed = [kilo_content(model, storage, mixed=True) for model in tiny for storage in ("payload", "lzma")]
    return (*large, *(kilo_content(model, *kind) for model in tiny for kind in KINDS), *mixed)


def taken_apart(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a file."""
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    return json.loads(content[LENGTH:end]), content[end:]


def put_together(header: Any, data: bytes) -> bytes:
    """The file of a header and tensors."""
    text = json.dumps(header, default=str).encode()
    return len(text).to_bytes(LENGTH, "little") + text + data


def sealed(header: dict[str, Any], metadata: Any, data: bytes) -> bytes:
    """A file of other metadata whose check sum fits, if there is one among them."""
    parts = []
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            layer = name if name in BLOBS else name.rpartition(".")[0]
            parts.append((layer, name.endswith("bias"), data[begin:end]))
    order = list(dict.fromkeys(name for name, _, _ in sorted(parts, key=_forward)))
    parts.sort(key=lambda part: (order.index(part[0]), part[1]))
    if isinstance(metadata, dict) and "crc32" in metadata:
        metadata = {**metadata, "crc32": NO_SUM}
    text = json.dumps(metadata, default=str)
    text = text.replace(NO_SUM, check_sum(text, (part for _, _, part in parts)), 1)
    return put_together({**header, "__metadata__": {KEY: text}}, data)


def _forward(part: tuple[str, bool, bytes]) -> tuple[int, str, int, str]:
    """Where a layer stands in the order of the layers, or other bytes behind them."""
    field, _, rest = part[0].partition(".")
    if field in BLOBS:
        return (1, "", BLOBS.index(field), "")
    if field == "stacks":
        stack, kind, *number = rest.split(".")
        kinds = ("hidden", "density", "feature", "colour")
        return (0, stack.rjust(3), kinds.index(kind), "".join(number).rjust(3))
    kinds = ("", "mlp_base", "field_output_density", "mlp_head", "field_heads")
    number = rest.rpartition(".")[2]
    return (0, field, kinds.index(rest.partition(".")[0]), number.rjust(3))


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, cut off, put in, taken out or doubled."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        # Half of them in the header, which is the smaller part.
        at = rng.randrange(min(len(found), rng.choice((LENGTH, 2000, len(found)))))
        kind = rng.randrange(6)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del found[at:]
        elif kind == 2:
            found[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 8, 300))))
        elif kind == 3:
            del found[at : at + rng.choice((1, 4, 100))]
        elif kind == 4:
            found += found[at:]
        else:
            found[:LENGTH] = rng.choice((0, 1, 2, 255_999, 10**8, 2**63, 2**64 - 1, at)).to_bytes(LENGTH, "little")
        if not found:
            break
    return bytes(found)


def changed_header(rng: random.Random, content: bytes) -> bytes:
    """Names, types, shapes and places of tensors, or the metadata as a whole."""
    header, data = taken_apart(content)
    mutator = Mutator(rng, ODD_PLAIN, gentle=rng.random() < 0.5)
    return put_together(mutator.mutated(header, rng.choice((1, 1, 2, 5))), data)


def changed_metadata(rng: random.Random, content: bytes) -> bytes:
    """What the file says of itself."""
    header, data = taken_apart(content)
    mutator = Mutator(rng, ODD_PLAIN, gentle=rng.random() < 0.7)
    metadata = mutator.mutated(json.loads(header["__metadata__"][KEY]), rng.choice((1, 1, 2, 5)))
    return sealed(header, metadata, data)


def changed_numbers(rng: random.Random, content: bytes) -> bytes:
    """Weights, codes, scales and biases."""
    header, data = taken_apart(content)
    found = bytearray(data)
    for _ in range(rng.choice((1, 4, 100))):
        found[rng.randrange(len(found))] = rng.choice((0, 0x7B, 0x7C, 0x7F, 0x80, 0xFC, 0xFF, rng.randrange(256)))
    return sealed(header, json.loads(header["__metadata__"][KEY]), bytes(found))


def with_tensor(content: bytes, name: str, tensor: bytes) -> bytes:
    """A file with other bytes in place of one tensor, whose check sum fits.

    Args:
        content: The file.
        name: Name of the tensor, one of bytes.
        tensor: Its bytes.
    """
    header, data = taken_apart(content)
    found, whole = {"__metadata__": header["__metadata__"]}, b""
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        part = tensor if key == name else data[begin:end]
        shape = [len(part)] if key == name else entry["shape"]
        found[key] = {**entry, "shape": shape, "data_offsets": [len(whole), len(whole) + len(part)]}
        whole += part
    return sealed(found, json.loads(header["__metadata__"][KEY]), whole)


def bomb(rng: random.Random, content: bytes) -> bytes:
    """A few bytes that become many: as many as the metadata say, or others."""
    header, data = taken_apart(content)
    metadata = json.loads(header["__metadata__"][KEY])
    if metadata["kind"] == "kilonerf":
        zeros = compress(bytes(rng.choice((0, 1, 216, 1000, BOMB))))
        return with_tensor(content, rng.choice([name for name in header if name in (*BLOBS, PAYLOAD)]), zeros)
    if rng.random() < 0.1:
        return large_file(content, rng.choice((1, 2)))
    return compressed_file(metadata, compress(bytes(rng.choice((0, 1, 1000, BOMB)))) if rng.random() < 0.8 else data)


def large_file(content: bytes, layers: int) -> bytes:
    """A file of a few thousand bytes that truly describes a coarse trunk of the greatest width, all of zeros.

    Args:
        content: A file without skip connections.
        layers: Layers of the trunk.
    """
    metadata = json.loads(taken_apart(content)[0]["__metadata__"][KEY])
    width = MAX_WIDTH
    metadata["skips"] = []
    metadata["coarse"].update(trunk=[[width, 63, 8]] + [[width, width, 8]] * (layers - 1), density=[1, width, 8])
    fine = metadata["fine"]
    fine.update(trunk=[[1, 63, 8]], density=[1, 1, 8], head=[[1, 28, 8]], colour=[3, 1, 8])
    forms = [*metadata["coarse"]["trunk"], [1, width, 8], [1, 63, 8], [1, 1, 8], [1, 28, 8], [3, 1, 8]]
    return compressed_file(metadata, compress(bytes(sum(rows * (columns + 4) for rows, columns, _ in forms))))


def compressed_file(metadata: dict[str, Any], data: bytes) -> bytes:
    """A file of a compressed payload."""
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    return sealed({PAYLOAD: entry}, {**metadata, "storage": "lzma"}, data)


CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    changed_bytes,
    changed_header,
    changed_metadata,
    changed_metadata,
    changed_numbers,
    bomb,
)


def trial(rng: random.Random) -> str:
    """Mutates a file, reads it and renders a few rays."""
    content = rng.choice(CHANGES)(rng, rng.choice(whole_files()))
    bundle = rays(2)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.safetensors"
        path.write_bytes(content)
        try:
            network = load_exported(path)
        except FileFormatError as error:
            if not str(error).startswith(f"{path}: "):
                raise AssertionError(f"{RAW}: names no file: {error}") from error
            raise
        except ValueError as error:
            raise AssertionError(f"{RAW}: another error: {error}") from error
    outputs = network(bundle.origins, bundle.directions)
    return TAKEN if all(bool(torch.isfinite(value).all()) for value in outputs.values()) else NOT_FINITE


if __name__ == "__main__":
    main(trial, __doc__)
