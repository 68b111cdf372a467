"""Packed formats: how far numbers move, what their ranges cannot hold, and that small files cannot grow."""

import gzip
import io
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.stored_splats import PLACEMENT, largest_deviations, stored

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.compressed_ply import encode_compressed_ply
from nerfstudio_prune.splat_files.formats import decode_any_ply, read_splats, write_splats
from nerfstudio_prune.splat_files.limits import FREE_GAUSSIANS
from nerfstudio_prune.splat_files.spz import decode_spz, encode_spz
from nerfstudio_prune.splat_files.spz_codes import fractional_bits
from nerfstudio_prune.splat_files.spz_header import SpzHeader, write_start
from nerfstudio_prune.splat_files.stored import StoredGaussians

BOUNDS = {
    ".compressed.ply": {
        "means": 0.5 / 1023 * 4,
        "scales": 0.5 / 1023 * 2,
        "quats": 1.2e-3,
        "features_dc": 0.5 / 255 * 8,
        "features_rest": 0.5 / 256 * 8,
        "opacities": 0.5 / 255,
    },
    ".spz": {
        "means": 0.5 / 4096,
        "scales": 0.5 / 16,
        "quats": 2.5e-3,
        "features_dc": 0.5 / 255 / 0.15,
        "features_rest": 8.5 / 128,
        "opacities": 0.5 / 255,
    },
}
"""Half a step of each kind of number, for those drawn here: means within 4, logarithms of scales and colours within 2
and 8 of each other in a chunk."""
WRITERS: dict[str, tuple[Callable[[StoredGaussians], bytes], Callable[[bytes], StoredGaussians]]] = {
    ".compressed.ply": (encode_compressed_ply, decode_any_ply),
    ".spz": (encode_spz, decode_spz),
}


@pytest.mark.parametrize("sh_degree", range(4))
@pytest.mark.parametrize("suffix", BOUNDS)
def test_numbers_move_by_half_a_step(suffix: str, sh_degree: int, tmp_path: Path) -> None:
    """More would be a wrong sign, order or range; the order of the Gaussians is that which the writer tells. Two
    chunks, the second one not full."""
    path = tmp_path / f"a{suffix}"
    given = stored(300, sh_degree, antialiased=True, placement=PLACEMENT)
    written, found = write_splats(path, given), read_splats(path)
    deviations = largest_deviations(written.gaussians, found.gaussians)
    assert {name: value for name, value in deviations.items() if value > BOUNDS[suffix][name] * 1.001} == {}
    assert sh_degree == 0 or deviations["features_rest"] > 0, "nothing was packed"
    assert found.antialiased is True and found.gaussians.sh_degree == sh_degree
    assert found.placement == (PLACEMENT if suffix == ".compressed.ply" else None)
    assert sorted(written.gaussians.means[:, 0].tolist()) == sorted(given.gaussians.means[:, 0].tolist())


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_same_gaussians_give_the_same_file(suffix: str) -> None:
    """A time in the header of gzip would make two files of one scene differ."""
    encode, _ = WRITERS[suffix]
    assert encode(stored()) == encode(stored())


@pytest.mark.parametrize("suffix", WRITERS)
def test_ends_of_the_ranges(suffix: str) -> None:
    """What has no code goes to the nearest one that there is, not around to the other end; a quaternion of any length,
    or of none, is a rotation; and all that comes back is finite."""
    encode, decode = WRITERS[suffix]
    given = stored(6, 1)
    g = given.gaussians
    quats = [[0, 0, 0, 0], [1e-30, 1e-30, 0, 0], [0, 3e30, 0, -3e30], [-1, -1, -1, -1], [0, 0, 0, -5], [0, 0, 1e-9, 0]]
    g.quats[:] = torch.tensor(quats)
    g.opacities[:, 0] = torch.tensor([-100.0, 100.0, 0.0, -10.0, 10.0, 1.0])
    g.scales[0], g.scales[1] = -60.0, 60.0
    g.features_rest[0], g.features_rest[1] = 100.0, -100.0
    found = decode(encode(given)).gaussians
    g.quats[:] = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, -1], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0]])
    deviations = largest_deviations(g, found)
    assert deviations["quats"] < 2.5e-3 and deviations["opacities"] < 0.5 / 255 + 1e-6
    assert all(torch.isfinite(tensor).all() for _, tensor in found.items())
    assert (found.scales[0] < -9.9).all() and (found.scales[1] > 5.9).all()
    assert (found.features_rest[0] > 0.9).all() and (found.features_rest[1] < -0.9).all()


def test_steps_of_spz_positions() -> None:
    """Twelve bits behind the point as everywhere; more for tiny Gaussians, which would visibly jump; fewer for far
    ones, which would come back on the other side."""
    near, far = np.array([[1.0, -2.0, 0.5]]), np.array([[3000.0, 0.0, 0.0]])
    coarse, fine = np.log(np.full((1, 3), 0.1)), np.log(np.full((1, 3), 1e-4))
    assert fractional_bits(near, coarse) == 12
    assert fractional_bits(near, fine) == 17  # a tenth of 1e-4 is 2^-16.6
    assert fractional_bits(far, fine) == 11
    assert fractional_bits(np.array([[4096.0, 0, 0]]), fine) == 10 and fractional_bits(near * 0, fine) == 17
    for distance in (8.3, 4095.9, -4096.0, 8388606.0):
        given = stored(2, 0)
        given.gaussians.means[0, 0] = distance
        assert (
            abs(float(decode_spz(encode_spz(given)).gaussians.means[0, 0]) - distance) <= max(1, abs(distance)) * 1e-4
        )
    given.gaussians.means[0, 0] = 1e7
    with pytest.raises(FileFormatError, match="positions: expected at most 8,388,606 units"):
        encode_spz(given)


def spz_1(means: np.ndarray, **header: int) -> bytes:
    """A file of version 1, by hand: positions in half precision, the rest zeros or halves."""
    count = len(means)
    values = {"version": 1, "count": count, "degree": 0, "bits": 0, "flags": 0, **header}
    head = struct.pack("<4sIIBBBB", b"NGSP", *values.values(), 0)
    return gzip.compress(head + means.astype("<f2").tobytes() + bytes([128] * count * (1 + 3 + 3 + 3)))


def test_spz_of_version_1_by_hand() -> None:
    """y and z change their signs: SPZ has its axes right, up and back, a `.ply` right, down and front."""
    found = decode_spz(spz_1(np.array([[1.0, 2.0, -3.0], [0.5, 0.0, 4.0]]))).gaussians
    assert found.means.tolist() == [[1, -2, 3], [0.5, 0, -4]]
    assert torch.allclose(found.scales, torch.tensor(-2.0)) and found.sh_degree == 0


NOTHING = np.zeros((1, 3))
PACKED = encode_spz(stored(3, 1))
UNPACKED = gzip.decompress(PACKED)
COORDINATES = struct.pack("<III", 0xADBE0003, 4, 12)


def spz_4(count: int, table: int = 32, streams: int = 5, length: int = 9) -> bytes:
    """The front of a file of version 4, by hand."""
    head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, count, 0, 12, 0, streams, table)
    return head + struct.pack("<QQ", 10, length) * 5 + bytes(50)


class StoredStreams:
    """Stands for `zstandard`, which few have: its streams hold what they are to become."""

    class ZstdError(Exception):
        """What the package raises."""

    class ZstdDecompressor:
        """Decompresses nothing, and takes streams that begin with an x for damaged ones."""

        def __init__(self, max_window_size: int) -> None:
            assert max_window_size <= 2**23

        def stream_reader(self, content: bytes, read_across_frames: bool) -> io.BytesIO:
            """A reader of a stream."""
            if content.startswith(b"x"):
                raise StoredStreams.ZstdError("not zstd")
            return io.BytesIO(content)


def as_version_4(content: bytes, records: bytes = b"") -> bytes:
    """A file of version 3 as one of version 4 whose streams are stored as they are."""
    unpacked = gzip.decompress(content)
    streams, at = [], 16
    for length in SpzHeader(3, 3, 1, 12, False).lengths().values():
        streams.append(unpacked[at : at + length])
        at += length
    table = b"".join(struct.pack("<QQ", len(stream), len(stream)) for stream in streams)
    head = b"NGSP" + struct.pack("<I", 4) + unpacked[8:14] + bytes([2 * bool(records), len(streams)])
    return head + struct.pack("<I12x", 32 + len(records)) + records + table + b"".join(streams)


def test_spz_of_version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as in version 3, in streams of their own behind a table, with records in front of it; what the
    streams hold is the package's. Without it the person learns what to install."""
    monkeypatch.setitem(sys.modules, "zstandard", StoredStreams)
    expected = decode_spz(PACKED).gaussians
    found = decode_spz(as_version_4(PACKED)).gaussians
    assert largest_deviations(expected, found) == dict.fromkeys(largest_deviations(expected, found), 0.0)
    mirrored = decode_spz(as_version_4(PACKED, struct.pack("<III", 0xADBE0003, 4, 6))).gaussians
    assert torch.equal(
        mirrored.means, expected.means * torch.tensor([1.0, -1.0, -1.0])
    )  # as in a .ply: not turned over
    content = as_version_4(PACKED)
    with pytest.raises(FileFormatError, match=r"streams: expected .* as the table says"):
        decode_spz(content + b"x")
    with pytest.raises(FileFormatError, match="positions: expected a zstd stream, got one that cannot be decoded"):
        decode_spz(content[:128] + b"x" + content[129:])
    shorter = content[:32] + struct.pack("<Q", 26) + content[40:128] + content[129:]
    with pytest.raises(FileFormatError, match="positions: expected 27 bytes when decompressed, got 26"):
        decode_spz(shorter)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(FileFormatError, match="header, version: expected the Python package zstandard"):
        decode_spz(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header: expected an SPZ file"),
        (b"PK\3\4", "header: expected an SPZ file"),
        (PACKED[:-9], "gzip stream: expected a gzip stream with its end, got one that is cut off"),
        (
            PACKED[:40] + bytes([PACKED[40] ^ 8]) + PACKED[41:],
            "gzip stream: expected a gzip stream, got one that cannot",
        ),
        (PACKED + b"x", "gzip stream: expected nothing behind the gzip stream, got 1 bytes"),
        (gzip.compress(b"NGSP"), "header: expected 16 bytes, got 4"),
        (gzip.compress(b"NGSQ" + UNPACKED[4:]), "header: expected NGSP at its beginning"),
        (spz_1(NOTHING, version=5), "header, version: expected 1 or 2 or 3 in a file that begins like this one, got 5"),
        (spz_1(NOTHING, degree=4), "header, degree of the harmonics: expected 0 to 3, got 4"),
        (spz_1(NOTHING, version=2, bits=40), "header, bits behind the point: expected 0 to 30, got 40"),
        (spz_1(NOTHING, count=0), "header, number: expected 1 to 262,144 Gaussians in a file of"),
        (spz_1(NOTHING, count=2**32 - 1), "header, number: expected 1 to 262,144 Gaussians in a file of"),
        (spz_1(NOTHING, count=7), "streams: expected 128 bytes, as the header says, got 32"),
        (spz_1(NOTHING * np.nan), "means: expected finite numbers, got 3 of 3 that are not"),
        (gzip.compress(UNPACKED + b"\0"), "streams: expected"),
        (gzip.compress(UNPACKED[:14] + b"\2\0" + UNPACKED[16:] + b"\0"), "extensions: expected records of at least 8"),
        (
            gzip.compress(UNPACKED[:14] + b"\2\0" + UNPACKED[16:] + COORDINATES[:-1]),
            "extensions: expected a record of at",
        ),
        (
            gzip.compress(UNPACKED[:14] + b"\2\0" + UNPACKED[16:] + COORDINATES),
            "extensions, coordinate system: expected",
        ),
        (gzip.compress(bytes(10**8)), "gzip stream: expected at most"),
        (b"NGSP" + (9).to_bytes(4, "little") + bytes(24), "header, version: expected 4 in a file that begins like"),
        (spz_4(1)[:20], "header: expected 32 bytes, got 20"),
        (spz_4(1, table=10**9), "table of streams: expected 5 streams, in the file, got 5 from byte 1,000,000,000 on"),
        (spz_4(1, streams=6), "table of streams: expected 5 streams, in the file, got 6"),
        (spz_4(1, length=10), "positions: expected 9 bytes, packed in at most 50, got 10 bytes, packed in 10"),
        (spz_4(10**6), "header, number: expected 1 to 262,144 Gaussians"),
    ],
    ids=range(25),
)
def test_spz_files_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    """Each is told by its section, and 100 MB of zeros in 100 kB are not unpacked."""
    path = tmp_path / "a.spz"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_splats(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_a_small_file_that_is_many_gaussians() -> None:
    """As many alike may be in it as fit in memory whatever the file; one more is not believed."""
    header = SpzHeader(2, FREE_GAUSSIANS, 0, 12, False)
    content = gzip.compress(write_start(header) + bytes(sum(header.lengths().values())))
    assert len(content) < 10_000
    assert len(decode_spz(content).gaussians) == FREE_GAUSSIANS
    header = replace(header, count=FREE_GAUSSIANS + 1)
    with pytest.raises(FileFormatError, match="header, number"):
        decode_spz(gzip.compress(write_start(header) + bytes(sum(header.lengths().values()))))


COMPRESSED = encode_compressed_ply(stored(300, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            COMPRESSED.replace(b"element chunk 2\n", b"element chunk 1\n")[:-72],
            "chunk: expected 2 rows for 300 Gaussians, got 1",
        ),
        (
            COMPRESSED.replace(b"uint packed_scale", b"float packed_scale"),
            "expected a property packed_scale of type uint",
        ),
        (COMPRESSED.replace(b"packed_color", b"packed_colour"), "expected a property packed_color of type uint"),
        (COMPRESSED.replace(b"float max_y", b"float max_w"), "element chunk: expected properties max_x, max_y, max_z"),
        (COMPRESSED.replace(b"f_rest_8", b"g_rest_8"), "element sh: expected 0, 9, 24, 45 columns"),
        (COMPRESSED.replace(b"uchar f_rest_8", b"char f_rest_8"), "element sh: expected 300 rows of type uchar"),
        (COMPRESSED[:-1], "rows: expected a file of"),
    ],
    ids=range(7),
)
def test_compressed_ply_files_that_are_none(content: bytes, message: str) -> None:
    """The same for the compressed `.ply`."""
    with pytest.raises(FileFormatError) as caught:
        decode_any_ply(content)
    assert message in str(caught.value)


def test_ranges_that_are_not_finite() -> None:
    """They lie in the file as they are, unlike the rest."""
    at = COMPRESSED.index(b"end_header\n") + 11
    with pytest.raises(FileFormatError, match="means: expected finite numbers, got 256 of 900"):
        decode_any_ply(COMPRESSED[:at] + b"\xff" * 4 + COMPRESSED[at + 4 :])


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    """A wrong name or a full disk leaves nothing behind."""
    with pytest.raises(FileFormatError, match=r"a\.obj: expected a name that ends with \.gsvt, \.compressed\.ply"):
        write_splats(tmp_path / "a.obj", stored())
    with pytest.raises(
        FileFormatError, match=r"a\.sog: files of SOG are only read; \.gsvt, \.compressed\.ply, \.ply, \.spz"
    ):
        write_splats(tmp_path / "a.sog", stored())
    none = Gaussians.of({name: tensor[:0] for name, tensor in stored().gaussians.items()})
    with pytest.raises(FileFormatError, match=r"a\.ply: expected 1 to 16,000,000 Gaussians, got 0"):
        write_splats(tmp_path / "a.ply", replace(stored(), gaussians=none))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.ply").mkdir()
    with pytest.raises(FileFormatError, match=r"a\.ply: cannot be written: .*is a folder"):
        write_splats(tmp_path / "a.ply", stored())
    with pytest.raises(FileFormatError, match=r"b\.ply: cannot be read: .*No such file"):
        read_splats(tmp_path / "b.ply")
