"""The `.ply` file in single precision: exact, and read by others."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from support.pages import ROOT, python_blocks
from support.stored_splats import PLACEMENT, stored

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.formats import decode_any_ply, read_splats, write_splats
from nerfstudio_prune.splat_files.ply import encode_ply

NAMES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *(f"f_rest_{i}" for i in range(9)),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def header(rows: str, properties: str, kind: str = "binary_little_endian") -> bytes:
    """A header of one element."""
    columns = "".join(f"property {column}\n" for column in properties.split(", "))
    return f"ply\nformat {kind} 1.0\nelement vertex {rows}\n{columns}end_header\n".encode()


@pytest.mark.parametrize("sh_degree", range(4))
def test_comes_back_bit_for_bit(sh_degree: int, tmp_path: Path) -> None:
    """It is the format to keep; whoever goes through it must lose nothing."""
    path = tmp_path / "a.ply"
    written = stored(sh_degree=sh_degree, antialiased=sh_degree > 1, placement=PLACEMENT)
    write_splats(path, written)
    found = read_splats(path)
    assert (found.antialiased, found.placement) == (sh_degree > 1, PLACEMENT)
    for name, tensor in written.gaussians.items():
        assert (
            torch.equal(getattr(found.gaussians, name), tensor) and getattr(found.gaussians, name).dtype == tensor.dtype
        )


def test_an_independent_reader_finds_the_columns() -> None:
    """Viewers look for these names in this order, and for the harmonics channel by channel."""
    written = stored(sh_degree=1).gaussians
    vertex = PlyData.read(io.BytesIO(encode_ply(stored(sh_degree=1))))["vertex"]
    assert tuple(p.name for p in vertex.properties) == NAMES
    assert np.array_equal(vertex["y"], written.means[:, 1].numpy())
    assert np.array_equal(vertex["f_rest_4"], written.features_rest[:, 1, 1].numpy())
    assert np.array_equal(vertex["f_rest_2"], written.features_rest[:, 2, 0].numpy())
    assert np.array_equal(vertex["rot_0"], written.quats[:, 0].numpy()) and not vertex["nx"].any()


def test_any_order_and_type_of_columns() -> None:
    """Programs differ in order, precision and what else a row holds. The numbers are made by hand."""
    columns = (
        "double opacity, uchar flag, float rot_3, float rot_2, float rot_1, float rot_0, double z, double y, double x, "
        "float scale_2, float scale_1, float scale_0, float f_dc_0, float f_dc_1, short f_dc_2"
    )
    types = {"double": "<f8", "uchar": "u1", "float": "<f4", "short": "<i2"}
    kinds = [(column, types[column.split()[0]]) for column in columns.split(", ")]
    row = np.array((0.5, 7, 4, 3, 2, 1, 30, 20, 10, -3, -2, -1, 0.25, 0.5, 2), dtype=kinds)
    text = header("1", columns).replace(b"\n", b"\r\n")
    found = decode_any_ply(text + row.tobytes()).gaussians
    assert found.means.tolist() == [[10, 20, 30]] and found.quats.tolist() == [[1, 2, 3, 4]]
    assert found.scales.tolist() == [[-1, -2, -3]] and found.features_dc.tolist() == [[0.25, 0.5, 2]]
    assert found.opacities.tolist() == [[0.5]] and found.sh_degree == 0


def test_ends_of_the_ranges_of_other_programs() -> None:
    """Opacities of 0 and 1 have infinite logits, and flat Gaussians an infinite logarithm: programs write both. What is
    rendered stays the same within 1e-6."""
    written = stored(3, 0)
    written.gaussians.opacities[:2, 0] = torch.tensor([torch.inf, -torch.inf])
    written.gaussians.scales[0, 1] = -torch.inf
    found = decode_any_ply(encode_ply(written)).gaussians
    opacities = found.opacities.sigmoid()[:, 0]
    assert torch.isfinite(found.opacities).all() and opacities[0] > 1 - 1e-6 and opacities[1] < 1e-6
    assert found.scales[0, 1].exp() < 1e-8 and torch.equal(found.scales[1:], written.gaussians.scales[1:])


def test_numbers_beyond_single_precision() -> None:
    """Finite in the file, they would be infinite in the scene."""
    rows = np.ones((2, 14))
    rows[1, 3] = 1e300
    columns = (f"double {name}" for name in NAMES if not name.startswith(("n", "f_rest")))
    with pytest.raises(FileFormatError, match="features_dc: expected finite numbers, got 1 of 6 that are not"):
        decode_any_ply(header("2", ", ".join(columns)) + rows.tobytes())


COLUMNS = "float x, float y, float z"
WHOLE = encode_ply(stored(4, 1, placement=PLACEMENT, antialiased=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header: expected 'ply' in the first line"),
        (b"solid a\n" + WHOLE, "header: expected 'ply' in the first line"),
        (b"ply\nformat binary_little_endian 1.0\n" + b"comment x\n" * 9000 + WHOLE[4:], "'end_header' within 64,000"),
        (header("1", COLUMNS, "ascii"), "expected format binary_little_endian 1.0, got 'ascii 1.0'"),
        (header("1", COLUMNS, "binary_big_endian"), "got 'binary_big_endian 1.0'"),
        (header("1", "list uchar int x"), "element 'vertex': expected no lists"),
        (header("1", "float x, float x"), "element 'vertex': expected a type and a new name of a property"),
        (header("1", "half x"), "element 'vertex': expected a type and a new name of a property"),
        (header("-1", COLUMNS), "a number of rows after 'element', got 'vertex -1'"),
        (header("999999999999", COLUMNS), "element 'vertex': expected at most 16,000,000 rows, got 999,999,999,999"),
        (header("16000000", COLUMNS), "rows: expected a file of 192,000"),
        (header("1", ", ".join(f"float p{i}" for i in range(300))), "at most 256 properties"),
        (header("1", COLUMNS).replace(b"vertex", b"face") + bytes(12), "element vertex: expected at least one"),
        (header("0", COLUMNS), "element vertex: expected at least one Gaussian, got none"),
        (header("1", COLUMNS) + bytes(12), "expected properties scale_0, scale_1, scale_2, got none named scale_0"),
        (WHOLE[:-1], f"rows: expected a file of {len(WHOLE):,} bytes, as the header says, got {len(WHOLE) - 1:,}"),
        (WHOLE + b"\n", f"got {len(WHOLE) + 1:,}"),
        (WHOLE.replace(b"f_rest_8", b"f_other8"), "expected 0, 9, 24, 45 columns f_rest_…, for degree 0 to 3, got 8"),
        (WHOLE.replace(b"f_rest_8", b"f_rest_9"), "none named f_rest_8"),
        (WHOLE.replace(b"antialiased true", b"antialiased trve"), "comment antialiased: expected true or false"),
        (WHOLE.replace(b"placement 1.0", b"placement 1,0"), "comment placement: expected twelve numbers"),
        (WHOLE[:-160] + b"\xff" * 160, "means: expected finite numbers, got 3 of 12 that are not"),
        (WHOLE.replace(b"element vertex 4", b"elemen vertex 44"), "expected format, comment, element or property"),
    ],
    ids=range(23),
)  # fmt: skip
def test_files_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    """A person has to learn from one line which file it is, which part of it, and what is wrong with it."""
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_splats(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_the_page_s_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads files from Python copies this block first."""
    monkeypatch.chdir(tmp_path)
    write_splats("lego.spz", stored(7, 2))
    (code,) = python_blocks(ROOT / "docs" / "splat-files.md")
    exec(compile(code, "splat-files.md", "exec"), {})
    assert capsys.readouterr().out == "7 2 False\n"
    assert len(read_splats("lego.ply").gaussians) == 7
