"""Mutated files of Gaussians of all formats, read, and written in all others.

Bytes are flipped, cut, doubled and put in anywhere. Or a file is taken apart, and what lies behind check sums and
compression is changed: lines of headers, values of `meta.json`, numbers, pictures, tables of streams. Or a few bytes
become very many.

    python tests/stress/splat_formats.py --count 40000
"""

import gzip
import io
import json
import random
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from PIL import Image
from support.fuzz import NOT_FINITE, ODD_PLAIN, RAW, TAKEN, Mutator, Trial, main
from support.sog_by_hand import picture, put_together, taken_apart
from support.stored_splats import PLACEMENT, stored

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.formats import FORMATS, read_splats, write_splats
from nerfstudio_prune.splat_files.spz import WIDE_SIZE

GOLDEN = Path(__file__).parents[1] / "splat_files" / "golden"
BOMB = 10**7
"""Zeros that a few bytes become."""
COUNTS = (0, 1, 39, 41, 300, 262_144, 262_145, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
WORDS = (
    *(
        b"0",
        b"1",
        b"-1",
        b"41",
        b"262144",
        b"16000000",
        b"99999999999999999999",
        b"list",
        b"uchar",
        b"double",
        b"float",
    ),
    *(b"vertex", b"chunk", b"sh", b"x", b"f_rest_0", b"ascii", b"element", b"property", b"comment", b"", b"\xff"),
)
"""In place of words of a header."""

Change = Callable[[random.Random, bytes], bytes]


@cache
def whole_files(suffix: str) -> tuple[bytes, ...]:
    """Files of a format, as they are written: here, and by others."""
    found = [path.read_bytes() for path in sorted(GOLDEN.glob(f"*{suffix}")) if ".expected" not in path.name]
    encode = FORMATS[suffix].write
    if encode is not None:
        found += [encode(stored(40, degree, placement=PLACEMENT, antialiased=True)) for degree in range(4)]
    if suffix == ".ply":
        found = [content for content in found if b"element chunk" not in content]
    return tuple(found)


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, cut off, put in, taken out, doubled or replaced."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(min(len(found), rng.choice((40, 2000, len(found)))))
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
            found[at : at + 4] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 0x7F800000, 0x7FC00000, at)).to_bytes(
                4, "little"
            )
        if not found:
            break
    return bytes(found)


def changed_lines(rng: random.Random, content: bytes) -> bytes:
    """A `.ply` with other words and lines in its header."""
    end = content.index(b"end_header\n")
    lines = content[:end].split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0:
            del lines[i]
        elif kind == 1:
            lines.insert(i, lines[j])
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
        else:
            words = lines[i].split(b" ")
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            lines[i] = b" ".join(words)
        if not lines:
            break
    return b"\n".join(lines) + content[end:]


def changed_rows(rng: random.Random, content: bytes) -> bytes:
    """A `.ply` with other numbers."""
    end = content.index(b"end_header\n") + 11
    found = bytearray(content)
    for _ in range(rng.choice((1, 4, 100))):
        at = rng.randrange(end, len(found))
        found[at] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(found)


def unpacked_spz(content: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """What can be changed in an SPZ file, and how it is packed again."""
    return (content, bytes) if content.startswith(b"NGSP") else (gzip.decompress(content), gzip.compress)


def changed_stream(rng: random.Random, content: bytes) -> bytes:
    """An SPZ file with other bytes behind the check sum."""
    unpacked, pack = unpacked_spz(content)
    return pack(changed_bytes(rng, unpacked))


def changed_spz_header(rng: random.Random, content: bytes) -> bytes:
    """An SPZ file that says something else of itself, as long as it should be or not, with records of vendors."""
    unpacked, pack = unpacked_spz(content)
    found = bytearray(unpacked)
    kind = rng.randrange(6)
    if kind == 0:
        struct.pack_into("<I", found, 4, rng.choice((0, 1, 2, 3, 4, 5, 2**32 - 1)))
    elif kind == 1:
        struct.pack_into("<I", found, 8, rng.choice(COUNTS))
    elif kind == 2:
        found[rng.choice((12, 13, 14, 15))] = rng.choice((0, 1, 2, 3, 4, 5, 30, 31, 255))
    elif kind == 3:
        found[14] |= 2
        for _ in range(rng.randrange(4)):
            record = rng.choice((0xADBE0003, 0xADBE0002, 7)), rng.choice((0, 4, 4, 12, 2**32 - 1)), rng.randrange(18)
            found += struct.pack("<III", *record)
    elif kind == 4:
        count = rng.choice((1, 40, 1000, 262_144, 10**6))
        struct.pack_into("<I", found, 8, count)
        del found[16:]
        found += bytes(min(count * rng.choice((19, 20, 29, 44, 65)), BOMB))
    else:
        at = rng.randrange(16, min(len(found), WIDE_SIZE + 96) - 8)
        struct.pack_into("<Q", found, at, rng.choice((0, 1, 32, 10**6, 2**32, 2**63, 2**64 - 1)))
    return pack(bytes(found))


def changed_meta(rng: random.Random, content: bytes) -> bytes:
    """A SOG file that says something else of itself."""
    meta, pictures = taken_apart(content)
    mutator = Mutator(rng, [*ODD_PLAIN, *COUNTS], gentle=rng.random() < 0.6)
    text = json.dumps(mutator.mutated(meta, rng.choice((1, 1, 2, 5))), default=str).encode()
    return put_together(text, pictures, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def changed_members(rng: random.Random, content: bytes) -> bytes:
    """A SOG file with other pictures, fewer members, or another compression."""
    meta, pictures = taken_apart(content)
    name, other = rng.choice(list(pictures)), rng.choice(list(pictures))
    kind = rng.randrange(6)
    if kind == 0:
        pictures[name] = changed_bytes(rng, pictures[name])
    elif kind == 1:
        pictures[name] = pictures[other]
    elif kind == 2:
        sides = rng.choice(((8, 8), (1, 64), (960, 1), (960, 1024), (2048, 2048), (16383, 1), (16383, 600)))
        pictures[name] = picture(*sides, value=rng.choice((0, 252, 255)))
    elif kind == 3:
        del pictures[name]
    elif kind == 4:
        pictures[name] = bytes(rng.choice((0, 10, 1000, BOMB)))
    else:
        found = io.BytesIO()
        frames = [Image.effect_noise((8, 8), 50).convert("RGBA") for _ in range(3)]
        frames[0].save(found, rng.choice(("WEBP", "GIF", "PNG", "TIFF")), save_all=True, append_images=frames[1:])
        pictures[name] = found.getvalue()
    return put_together(meta, pictures, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)))


CHANGES: dict[str, Sequence[Change]] = {
    ".ply": (changed_bytes, changed_lines, changed_lines, changed_rows),
    ".compressed.ply": (changed_bytes, changed_lines, changed_lines, changed_rows),
    ".spz": (changed_bytes, changed_stream, changed_stream, changed_spz_header, changed_spz_header),
    ".sog": (changed_bytes, changed_meta, changed_meta, changed_members, changed_members),
}


def trial_of(suffix: str, rng: random.Random) -> str:
    """Mutates a file of a format, reads it and, now and then, writes it in the others."""
    change = rng.choice(CHANGES[suffix])
    content = change(rng, rng.choice(whole_files(suffix)))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"a{suffix}"
        path.write_bytes(content)
        try:
            found = read_splats(path)
        except FileFormatError as error:
            if not str(error).startswith(f"{path}: ") or len(str(error)) > 1000:
                raise AssertionError(f"{RAW}: no clear error of this file: {error}") from error
            raise
        except ValueError as error:
            raise AssertionError(f"{RAW}: another error: {error}") from error
        again = [found]
        if len(found.gaussians) < 1000:
            for other in (suffix for suffix, form in FORMATS.items() if form.write is not None):
                write_splats(Path(name) / f"b{other}", found)
                again.append(read_splats(Path(name) / f"b{other}"))
    finite = all(bool(torch.isfinite(tensor).all()) for part in again for _, tensor in part.gaussians.items())
    return TAKEN if finite and {len(part.gaussians) for part in again} == {len(found.gaussians)} else NOT_FINITE


TRIALS: dict[str, Trial] = {suffix: partial(trial_of, suffix) for suffix in CHANGES}
"""Format -> what tries one of its files."""


def trial(rng: random.Random) -> str:
    """Tries a file of any format."""
    return TRIALS[rng.choice(list(TRIALS))](rng)


if __name__ == "__main__":
    main(trial, __doc__)
