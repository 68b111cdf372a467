"""Points that Gaussians start from are read where the data has them: no question, no warning, no file written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.utils.colmap_parsing_utils import Point3D, write_points3D_binary, write_points3D_text
from rich.prompt import Confirm
from support.pictures import blender_scene, scene

from nerfstudio_prune.data.points import COLMAP, GREY, RGB, XYZ, colmap_points, without_questions

TURN = [[0.0, 1.0, 0.0, 0.5], [1.0, 0.0, 0.0, -0.25], [0.0, 0.0, -1.0, 2.0]]
PLY = "ply\nformat ascii 1.0\nelement vertex {count}\n{properties}end_header\n{lines}"


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question ends the test."""

    def ask(*args: Any, **kwargs: Any) -> bool:
        raise AssertionError("asked on the terminal")

    monkeypatch.setattr(Confirm, "ask", ask)


def some_points(count: int = 5) -> dict[int, Point3D]:
    """Points as COLMAP has them."""
    values = np.random.default_rng(0).normal(size=(count, 3))
    none = np.zeros(0, dtype=int)
    return {
        i + 1: Point3D(i + 1, xyz=xyz, rgb=np.array([i, 2 * i, 255]), error=0.5, image_ids=none, point2D_idxs=none)
        for i, xyz in enumerate(values)
    }


def colmap_model(folder: Path, write: Any = write_points3D_binary, name: str = "points3D.bin") -> Path:
    """COLMAP's points beside pictures."""
    (folder / COLMAP).mkdir(parents=True)
    write(some_points(), folder / COLMAP / name)
    return folder / COLMAP / name


def ply(path: Path, lines: list[str], colours: bool = True, count: int = -1) -> Path:
    """A `.ply` file in text."""
    names = [f"property float {axis}" for axis in "xyz"]
    names += [f"property uint8 {colour}" for colour in ("red", "green", "blue")] if colours else []
    properties = "".join(f"{name}\n" for name in names)
    many = count if count >= 0 else len(lines)
    path.write_text(PLY.format(count=many, properties=properties, lines="".join(f"{line}\n" for line in lines)))
    return path


def metadata(config: Any) -> dict[str, Any]:
    """What a parser gives with points."""
    parser = without_questions(config.setup())
    outputs = parser.get_dataparser_outputs("train")
    return {**outputs.metadata, **colmap_points(parser, outputs)}


def photographs(folder: Path, **options: Any) -> NerfstudioDataParserConfig:
    """A parser that is to load points."""
    return NerfstudioDataParserConfig(data=folder, load_3D_points=True, scale_factor=0.5, **options)


def everything(folder: Path) -> dict[Path, bytes]:
    """All files of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("write", "name"), [(write_points3D_binary, "points3D.bin"), (write_points3D_text, "points3D.txt")]
)
@pytest.mark.parametrize("applied", [TURN, None])
def test_colmap_points_are_where_the_host_would_put_them(tmp_path: Path, write: Any, name: str, applied: Any) -> None:
    """The host turns them with the frames, writes them into a file of the data, asks before, and turns and scales what
    it reads there as it does the cameras. Here the data stays as it is."""
    folder = scene(tmp_path, applied_transform=applied)
    colmap_model(folder, write, name)
    before = everything(folder)
    found = metadata(photographs(folder))
    assert everything(folder) == before
    turn = torch.tensor(applied or [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]])
    points = torch.tensor(np.array([point.xyz for point in some_points().values()]), dtype=torch.float32)
    lines = [" ".join(map(str, xyz)) for xyz in (points @ turn[:, :3].T + turn[:, 3]).tolist()]
    ply(folder / "sparse_pc.ply", lines, colours=False)
    (folder / COLMAP / name).unlink()
    named = metadata(photographs(scene(folder, applied_transform=turn.tolist(), ply_file_path="sparse_pc.ply")))
    assert torch.allclose(found[XYZ], named[XYZ], atol=1e-5)
    assert found[RGB].tolist() == [[i, 2 * i, 255] for i in range(5)] and found[RGB].dtype == torch.uint8


def test_points_move_with_the_cameras(tmp_path: Path) -> None:
    """Cameras are centred, turned and scaled; a point in front of a camera must stay in front of it."""
    folder = scene(tmp_path)
    ply(folder / "a.ply", ["0 0 0 10 20 30", "4 0 0 0 0 255"])
    parser = photographs(scene(folder, ply_file_path="a.ply"), orientation_method="none", center_method="none")
    parser.auto_scale_poses = False
    found = metadata(parser)
    assert found[XYZ].tolist() == [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]] and found[XYZ].dtype == torch.float32
    assert found[RGB].tolist() == [[10, 20, 30], [0, 0, 255]]


def test_points_without_colours_are_grey(tmp_path: Path) -> None:
    """The host gives no colours for them, and its model fails on the first use of them."""
    ply(tmp_path / "a.ply", ["1 2 3"], colours=False)
    found = metadata(photographs(scene(tmp_path, ply_file_path="a.ply")))
    assert found[RGB].tolist() == [[GREY] * 3]


def test_points_of_a_blender_scene(tmp_path: Path) -> None:
    """Its cameras are scaled and not moved, and so are the points. A binary file, as programs write them."""
    header = PLY.format(count=2, properties="".join(f"property float {axis}\n" for axis in "xyz"), lines="")
    values = np.arange(6, dtype="<f4").tobytes()
    folder = blender_scene(tmp_path, {"train": 2})
    (folder / "a.ply").write_bytes(header.replace("ascii", "binary_little_endian").encode() + values)
    found = metadata(BlenderDataParserConfig(data=folder, ply_path=Path("a.ply"), scale_factor=2.0))
    assert found[XYZ].tolist() == [[0, 2, 4], [6, 8, 10]]


@pytest.mark.parametrize(
    ("break_it", "parts"),
    [
        (lambda p: None, ["a.ply", "not there"]),
        (lambda p: p.write_text("nothing of the kind"), ["a.ply", "cannot be read"]),
        (lambda p: p.write_bytes(b""), ["a.ply"]),
        (lambda p: ply(p, []), ["a.ply"]),
        (lambda p: ply(p, ["1 2 3 4 5 6"], count=7), ["a.ply", "it ends after 1 of 7 points"]),
        (lambda p: ply(p, ["1 nan 3 4 5 6", "1 2 3 4 5 6"]), ["a.ply", "must be finite, and 1 of 2 are not"]),
        (lambda p: p.mkdir(), ["a.ply", "cannot be read"]),
    ],
)
def test_file_that_gives_no_points(tmp_path: Path, break_it: Any, parts: list[str]) -> None:
    """The host starts at random, without a word, where a named file is missing or broken."""
    break_it(tmp_path / "a.ply")
    with pytest.raises(ValueError) as caught:
        metadata(photographs(scene(tmp_path, ply_file_path="a.ply")))
    for part in (str(tmp_path), "--load-3D-points False", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("break_it", "part"),
    [
        (lambda p: p.unlink(), "has no points3D.bin and no points3D.txt"),
        (lambda p: p.write_bytes(p.read_bytes()[:-3]), "points3D.bin cannot be read"),
        (lambda p: p.write_bytes(b"\0" * 8), "points3D.bin hold no point"),
    ],
)
def test_colmap_model_without_points(tmp_path: Path, break_it: Any, part: str) -> None:
    """A reconstruction that is there and cannot be read is a mistake, and no data set without points."""
    folder = scene(tmp_path)
    break_it(colmap_model(folder))
    with pytest.raises(ValueError) as caught:
        metadata(photographs(folder))
    assert part in str(caught.value) and str(folder) in str(caught.value)


def test_no_points_is_no_matter(tmp_path: Path, capsys: Any) -> None:
    """The host warns of random points in a cube; there will be none."""
    assert XYZ not in metadata(photographs(scene(tmp_path)))
    assert "Warning" not in capsys.readouterr().out
    colmap_model(tmp_path).write_bytes(b"broken")
    assert XYZ not in metadata(NerfstudioDataParserConfig(data=tmp_path))  # not asked for
