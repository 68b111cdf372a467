"""Another program on the same model: files as the host writes them, and no failure where the program is missing."""

import os
from pathlib import Path

import pytest
import torch

from nerfstudio_prune.bench import splat_peers
from nerfstudio_prune.bench.runs import JobSkipped
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.splat_peers import measure_splat_peer, read_ply, write_ply
from nerfstudio_prune.bench.splat_suite import SPLAT_SCALES, SplatPeer
from nerfstudio_prune.raster.gaussians import Gaussians


def some(count: int = 7, coefficients: int = 8) -> Gaussians:
    """Gaussians with quaternions of length 1."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "means": (3,),
        "scales": (3,),
        "quats": (4,),
        "features_dc": (3,),
        "features_rest": (coefficients, 3),
        "opacities": (1,),
    }
    values = {name: torch.randn(count, *shape, generator=generator) for name, shape in shapes.items()}
    values["quats"] /= values["quats"].norm(dim=1, keepdim=True)
    return Gaussians.of(values)


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
def test_round_trip(coefficients: int, tmp_path: Path) -> None:
    """What the file changed would be taken for what the program does."""
    path, scene = tmp_path / "a.ply", some(coefficients=coefficients)
    write_ply(scene, path)
    for (name, read), (_, written) in zip(read_ply(path).items(), scene.items(), strict=True):
        torch.testing.assert_close(read, written, rtol=0, atol=1e-6, msg=name)


def test_coefficients_go_colour_by_colour(tmp_path: Path) -> None:
    """All readers expect those of red first, then green, then blue."""
    path, scene = tmp_path / "a.ply", some(1, 3)
    write_ply(scene, path)
    head, _, body = path.read_bytes().partition(b"end_header\n")
    values = torch.frombuffer(bytearray(body), dtype=torch.float32)
    names = [line.split()[-1] for line in head.decode().splitlines() if line.startswith("property")]
    assert values[names.index("f_rest_1")] == scene.features_rest[0, 1, 0]
    assert values[names.index("f_rest_3")] == scene.features_rest[0, 0, 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"f_dc_1", b"f_xx_1"), (b"property float opacity", b"property uchar opacity"), (b"vertex 7", b"vertex 8")],
)
def test_other_files_are_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    """A file of another layout would be rendered as noise, and the program blamed for it."""
    path = tmp_path / "a.ply"
    write_ply(some(), path)
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=r"a\.ply: expected a binary"):
        read_ply(path)


def test_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few machines have Node: the suite goes on, and says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    scene = Scene("x", "splat-prune", None, "")
    with pytest.raises(JobSkipped, match="npm install"):
        measure_splat_peer(SplatPeer(0, "dense-start-s0"), SPLAT_SCALES["smoke"], scene, tmp_path, tmp_path, {})


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for the program")
def test_failing_program(tmp_path: Path) -> None:
    """What it said last is what a person needs to see."""
    program = tmp_path / "splat-transform"
    program.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n", "utf-8")
    program.chmod(0o755)
    with pytest.raises(RuntimeError, match="out of memory"):
        splat_peers._run(str(program), "-v")
