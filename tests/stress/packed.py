"""Mutated `.gsvt` files, read as they would be from anyone.

Bytes are flipped, cut, doubled and put in anywhere; or header and sections are changed and all check sums made to fit,
which leads past them.

    python tests/stress/packed.py --count 10000
"""

import random
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from support.fuzz import NOT_FINITE, RAW, TAKEN, main
from support.splats_by_hand import drawn

from nerfstudio_prune.exchange.compression import compress
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.packed import encode_packed, encode_paper, read_packed
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians

HEAD, ENTRY = struct.Struct("<4sHBBIBB"), struct.Struct("<BBII")
PLACEMENT = Placement(((1.0, 0.0, 0.0, 0.5), (0.0, 0.0, -1.0, 0.0), (0.0, 1.0, 0.0, 2.0)), 0.25)
ODD_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 65_535, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
BOMB = 10**7
"""Zeros that a few bytes become."""


@cache
def whole_files() -> tuple[bytes, ...]:
    """Files of both layouts, several sizes and degrees, some with numbers that have no symbol of their own."""
    scenes = [drawn(1, 0), drawn(40, 1), drawn(100, 3)]
    stored = [StoredGaussians(scene, bool(i % 2), PLACEMENT if i else None) for i, scene in enumerate(scenes)]
    papers = [encode_paper(one, np.arange(len(one.gaussians), dtype=np.float64), 12) for one in stored]
    return (*papers, *(encode_packed(one, budget=budget) for one in stored for budget in (1e-5, 1e-13)))


def taken_apart(content: bytes) -> tuple[list, list[tuple[list, bytes]]]:
    """Values of the header, and those of each section with its bytes."""
    head = list(HEAD.unpack_from(content))
    begin, sections = HEAD.size + head[-1] * ENTRY.size + 4, []
    for i in range(head[-1]):
        entry = list(ENTRY.unpack_from(content, HEAD.size + i * ENTRY.size))
        sections.append((entry, content[begin : begin + entry[2]]))
        begin += entry[2]
    return head, sections


def sealed(head: list, sections: list[tuple[list, bytes]]) -> bytes:
    """A file whose lengths and check sums fit."""
    entries = b"".join(
        ENTRY.pack(entry[0] % 256, entry[1] % 256, len(part), zlib.crc32(part)) for entry, part in sections
    )
    start = HEAD.pack(*head[:-1], len(sections) % 256) + entries
    return start + struct.pack("<I", zlib.crc32(start)) + b"".join(part for _, part in sections)


def changed(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, cut off, put in, taken out or doubled."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not found:
            break
        at = rng.randrange(len(found))
        kind = rng.randrange(6)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del found[at:]
        elif kind == 2:
            found[at:at] = rng.randbytes(rng.choice((1, 2, 8, 300)))
        elif kind == 3:
            del found[at : at + rng.choice((1, 2, 4, 100))]
        elif kind == 4:
            found += found[at:]
        else:
            value = rng.choice(ODD_NUMBERS).to_bytes(4, "little")
            found[at : at + 4] = value[: rng.choice((1, 2, 4))]
    return bytes(found)


def changed_header(rng: random.Random, content: bytes) -> bytes:
    """Other numbers in the header, check sums that fit."""
    head, sections = taken_apart(content)
    sizes = {1: 2, 2: 1, 3: 1, 4: 4, 5: 1}
    for at in rng.sample(sorted(sizes), rng.choice((1, 1, 2))):
        head[at] = rng.choice((*ODD_NUMBERS, head[at] + 1, max(head[at] - 1, 0))) % 256 ** sizes[at]
    return sealed(head, sections)


def changed_sections(rng: random.Random, content: bytes) -> bytes:
    """Sections whose bytes are others, that are called otherwise, that are missing or there twice."""
    head, sections = taken_apart(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not sections:
            break
        at = rng.randrange(len(sections))
        entry, part = sections[at]
        kind = rng.randrange(8)
        if kind < 4 and part:
            sections[at] = entry, changed(rng, part)
        elif kind == 4:
            sections[at] = [rng.randrange(16), *entry[1:]], part
        elif kind == 5:
            sections[at] = [entry[0], 1 - entry[1], *entry[2:]], part
        elif kind == 6:
            del sections[at]
        else:
            sections.append((entry, part))
    return sealed(head, sections)


def changed_numbers(rng: random.Random, content: bytes) -> bytes:
    """Few bytes of one section are others: what is decoded, but says something that cannot be."""
    head, sections = taken_apart(content)
    at = rng.randrange(len(sections))
    found = bytearray(sections[at][1])
    for _ in range(rng.choice((1, 1, 4))):
        if found:
            found[rng.randrange(len(found))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    sections[at] = sections[at][0], bytes(found)
    return sealed(head, sections)


def bomb(rng: random.Random, content: bytes) -> bytes:
    """A few bytes that become many, and as many Gaussians as the length allows."""
    head, sections = taken_apart(content)
    at = rng.randrange(len(sections))
    sections[at] = [sections[at][0][0], 1, 0, 0], compress(bytes(rng.choice((0, 1, 1000, BOMB))))
    if rng.random() < 0.5:
        sections.append(([7, 0, 0, 0], bytes(rng.choice((1, 1000, 100_000)))))
        head[4] = rng.choice((head[4], len(sealed(head, sections))))
    return sealed(head, sections)


CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    changed,
    changed_header,
    changed_sections,
    changed_numbers,
    changed_numbers,
    bomb,
)


def trial(rng: random.Random) -> str:
    """Mutates a file and reads it."""
    content = rng.choice(CHANGES)(rng, rng.choice(whole_files()))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.gsvt"
        path.write_bytes(content)
        try:
            found = read_packed(path).gaussians
        except FileFormatError as error:
            if not str(error).startswith(f"{path}: "):
                raise AssertionError(f"{RAW}: names no file: {error}") from error
            raise
        except ValueError as error:
            raise AssertionError(f"{RAW}: another error: {error}") from error
    return TAKEN if all(bool(torch.isfinite(values).all()) for _, values in found.items()) else NOT_FINITE


if __name__ == "__main__":
    main(trial, __doc__)
