"""`ns-prune convert`: from any format to any, with what it cost told from the file that was read back."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.stored_splats import PLACEMENT, stored

from nerfstudio_prune.cli import parse
from nerfstudio_prune.convert.deviations import deviations_of, rotation_between
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.formats import read_splats, write_splats

SOG = Path(__file__).parents[1] / "splat_files" / "golden" / "sog_3.sog"


def convert(source: Path, output: Path) -> None:
    """The command, as it is typed."""
    parse(["convert", str(source), str(output)]).main()


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who converts a scene has to see what it saves, what it costs, and what the format cannot say."""
    source, output = tmp_path / "a.ply", tmp_path / "new" / "b.spz"
    write_splats(source, stored(40, 2, placement=PLACEMENT, antialiased=True))
    convert(source, output)
    text = capsys.readouterr().out
    cells = ([cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines())
    rows = {first: rest for first, *rest in cells}
    sizes = [path.stat().st_size for path in (source, output)]
    assert rows["bytes"] == [f"{size:,}" for size in sizes]
    assert rows["bytes per Gaussian"] == [f"{size / 40:.2f}" for size in sizes]
    assert rows["Gaussians"] == ["40", "40"] and rows["degree of the harmonics"] == ["2", "2"]
    assert rows["antialiased"] == ["yes", "yes"]
    assert rows["place in the data"] == ["scale 0.7, and a transform", "not said"]
    assert 0 < float(rows["position"][0]) < 3**0.5 / 8192 * 1.01
    assert {"scale", "rotation", "opacity", "colour", "harmonics"} <= rows.keys()
    assert "SPZ has no place for transform and scale from the space of the data: they are lost." in text


def test_between_all_formats(tmp_path: Path) -> None:
    """Each reader leads to each writer; the way back to where it came from loses nothing more."""
    convert(SOG, tmp_path / "a.ply")
    convert(tmp_path / "a.ply", tmp_path / "b.compressed.ply")
    convert(tmp_path / "b.compressed.ply", tmp_path / "c.spz")
    convert(tmp_path / "c.spz", tmp_path / "d.ply")
    convert(tmp_path / "d.ply", tmp_path / "e.spz")
    first, last = (read_splats(tmp_path / name) for name in ("c.spz", "e.spz"))
    assert all(d.largest < 1e-6 for d in deviations_of(first.gaussians, last.gaussians))
    assert len(last.gaussians) == 24 and last.gaussians.sh_degree == 3


def test_nothing_is_lost_to_a_mistake(tmp_path: Path) -> None:
    """The source stays as it was: under its own name, through a link, and where the output cannot be written."""
    source, link = tmp_path / "a.ply", tmp_path / "link.compressed.ply"
    write_splats(source, stored())
    before = source.read_bytes()
    link.symlink_to(source)
    for output in (source, link):
        with pytest.raises(ValueError, match=r"is the file to read; give another name"):
            convert(source, output)
    with pytest.raises(FileFormatError, match=r"c\.sog: files of SOG are only read"):
        convert(source, tmp_path / "c.sog")
    with pytest.raises(FileFormatError, match=r"c\.txt: expected a name that ends with"):
        convert(source, tmp_path / "c.txt")
    with pytest.raises(FileFormatError, match=r"none\.ply: cannot be read"):
        convert(tmp_path / "none.ply", tmp_path / "c.ply")
    assert source.read_bytes() == before and sorted(tmp_path.iterdir()) == [source, link]


WITHOUT_NERFSTUDIO = """
import sys
for name in ("nerfstudio", "gsplat", "viser", "safetensors", "numba", "torchvision"):
    sys.modules[name] = None
from nerfstudio_prune.cli import parse
parse(sys.argv[1:]).main()
"""


def test_no_nerfstudio_is_needed(tmp_path: Path) -> None:
    """Files are passed on to people who do not train; what converts them must not ask for what trains."""
    words = ["convert", str(SOG), str(tmp_path / "a.spz")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NERFSTUDIO, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(read_splats(tmp_path / "a.spz").gaussians) == 24


def test_deviations_by_hand() -> None:
    """Numbers in the units that the table names: a scale doubled is 100 %, a quarter turn 90 degrees."""
    before = stored(2, 1).gaussians
    after = before.clone()
    before.quats[:] = torch.tensor([1.0, 0, 0, 0])
    after.quats[:] = torch.tensor([[-2.0, 0, 0, 0], [0.5**0.5, 0, 0.5**0.5, 0]])
    after.means[0] += torch.tensor([3.0, 0, -4.0])
    after.scales[1, 2] -= torch.log(torch.tensor(2.0))
    before.opacities[:], after.opacities[:] = 0.0, torch.tensor([[0.0], [100.0]])
    after.features_dc[0, 0] += 1
    after.features_rest[1, 2, 0] += 0.5
    found = {d.name: (d.largest, d.mean) for d in deviations_of(before, after)}
    expected = {
        "position": (5, 2.5),
        "scale": (100, 100 / 6),
        "rotation": (90, 45),
        "opacity": (0.5, 0.25),
        "colour": (0.28209, 0.28209 / 6),
        "harmonics": (0.5, 0.5 / 18),
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-4, abs=1e-5), name
    assert deviations_of(before, before.with_sh_degree(0))[-1].largest == float(before.features_rest.abs().max())
    with pytest.raises(ValueError, match="expected 2 Gaussians, found 1"):
        deviations_of(before, before.select(torch.tensor([0])))


def test_small_angles_are_seen() -> None:
    """In single precision, and by the arc cosine, a thousandth of a degree is nothing."""
    half = torch.deg2rad(torch.tensor([0.0005], dtype=torch.float64))
    turned = torch.stack([half.cos(), half.sin(), half * 0, half * 0], dim=1)
    assert float(rotation_between(torch.tensor([[1.0, 0, 0, 0]]), turned)) == pytest.approx(0.001, rel=1e-4)
