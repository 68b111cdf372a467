"""Files of independent programs are read as those read them. `golden/README.md` says which."""

import gzip
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
import torch
from support.splats_by_hand import drawn
from support.stored_splats import largest_deviations

from nerfstudio_prune.splat_files.compressed_ply import encode_compressed_ply
from nerfstudio_prune.splat_files.formats import read_splats
from nerfstudio_prune.splat_files.ply_header import parse_header, read_rows
from nerfstudio_prune.splat_files.spz import encode_spz

GOLDEN = Path(__file__).parent / "golden"
SH_C0 = 0.28209479177387814
READ = {
    "packed_3.compressed.ply": None,
    "packed_chunks.compressed.ply": None,
    "sog_3.sog": None,
    "sog_old.sog": None,
    "spz_1.spz": False,
    "spz_2.spz": True,
    "spz_3.spz": True,
    "spz_4.spz": True,
    "spz_axes.spz": True,
    "spz_coarse.spz": False,
}
"""File -> whether it says that opacities are antialiased ones."""


@pytest.mark.parametrize(("name", "antialiased"), READ.items())
def test_read_as_another_program_reads_them(name: str, antialiased: Optional[bool]) -> None:
    """A reader that is only held against its own writer can have any sign, order or offset wrong in both."""
    if name == "spz_4.spz":
        pytest.importorskip("zstandard", reason="version 4 of SPZ is compressed by zstd")
    found = read_splats(GOLDEN / name)
    expected = read_splats(GOLDEN / f"{name.partition('.')[0]}.expected.ply").gaussians
    assert found.antialiased is antialiased and found.placement is None
    assert found.gaussians.sh_degree == expected.sh_degree > 0 or name == "packed_chunks.compressed.ply"
    assert max(largest_deviations(found.gaussians, expected).values()) < 2e-6


def test_what_nerfstudio_exports() -> None:
    """The file that users of the host have; all of its numbers, bit for bit."""
    found = read_splats(GOLDEN / "ns_export_3.ply")
    for name, tensor in drawn(20, 3, seed=11).items():
        assert torch.equal(getattr(found.gaussians, name), tensor), name
    assert found.antialiased is None


def test_what_nerfstudio_exports_as_colours() -> None:
    """`--ply-color-mode rgb` writes bytes instead of harmonics; the colour that they show is kept. The model was of
    degree 0, whose colours the host takes through a sigmoid and rounds down."""
    found, made = read_splats(GOLDEN / "ns_export_rgb.ply").gaussians, drawn(20, 0, seed=11)
    assert torch.equal(found.means, made.means) and found.sh_degree == 0
    shown = (torch.sigmoid(made.features_dc) * 255).floor() / 255
    assert torch.allclose(0.5 + SH_C0 * found.features_dc, shown, atol=1e-6)


@pytest.mark.parametrize("name", ["packed_3.compressed.ply", "packed_chunks.compressed.ply"])
def test_compressed_ply_is_packed_as_by_its_makers(name: str) -> None:
    """What they wrote, read and written again, has the same elements, the same packed numbers and, but for the last
    bits of colours, the same ranges: rounding and order of the bits are theirs."""
    contents = (GOLDEN / name).read_bytes(), encode_compressed_ply(read_splats(GOLDEN / name))
    headers = [parse_header(content) for content in contents]
    assert list(headers[0].elements.values()) == list(headers[1].elements.values())
    theirs, ours = map(read_rows, contents, headers)
    for element, rows in theirs.items():
        for column in rows.dtype.names:
            assert np.allclose(ours[element][column], rows[column], rtol=0, atol=1e-6 if element == "chunk" else 0)


def test_spz_is_packed_as_by_its_makers() -> None:
    """The same for SPZ, once it is unpacked: gzip may be of any strength."""
    content = (GOLDEN / "spz_coarse.spz").read_bytes()
    assert gzip.decompress(encode_spz(read_splats(GOLDEN / "spz_coarse.spz"))) == gzip.decompress(content)
