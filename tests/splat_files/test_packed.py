"""The packed file: what is read is what was written, within what its steps allow, and nothing in it is trusted."""

import base64
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.pages import ROOT, python_blocks
from support.splats_by_hand import camera, drawn, picture

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.raster.cpu import CpuRasterizer
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.channels import frame_of, from_channels, to_channels
from nerfstudio_prune.splat_files.evidence import Evidence, assumed_evidence
from nerfstudio_prune.splat_files.packed import decode_packed, encode_packed, read_packed
from nerfstudio_prune.splat_files.packed_container import Section, section_sizes, take_apart
from nerfstudio_prune.splat_files.sensitivities import evidence_from_views
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians

WHITE = torch.ones(3)
PLACEMENT = Placement(((1.0, 0.0, 0.0, 0.5), (0.0, 0.0, -1.0, 0.0), (0.0, 1.0, 0.0, 2.0)), 0.25)


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """In dB."""
    return float(-10 * (first - second).square().mean().log10())


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_round_trip(degree: int, count: int) -> None:
    """The smaller the budget, the larger the file and the closer the picture; flags, placement and degree stay."""
    gaussians, view = drawn(count, degree), camera([0, 0, 0], 32)
    true, sizes, qualities = picture(gaussians, view, WHITE), [], []
    for budget in (1e-5, 1e-8, 1e-15):
        content = encode_packed(StoredGaussians(gaussians, True, PLACEMENT), budget=budget)
        found = decode_packed(content)
        assert len(found.gaussians) == count and found.gaussians.sh_degree == degree
        assert found.antialiased is True and found.placement == PLACEMENT
        assert all(values.dtype == torch.float32 for _, values in found.gaussians.items())
        sizes.append(len(content))
        qualities.append(psnr(picture(found.gaussians, view, WHITE), true))
    assert qualities == sorted(qualities) and qualities[-1] > 60
    assert sizes == sorted(sizes)
    assert encode_packed(StoredGaussians(gaussians, True, PLACEMENT), budget=1e-15) == content


def test_nothing_is_known() -> None:
    """What a file does not say is None, and not a guess."""
    found = decode_packed(encode_packed(StoredGaussians(drawn(5))))
    assert found.antialiased is None and found.placement is None


def test_without_rounding_channels_are_the_same_scene() -> None:
    """Transforms of colours, sizes and rotations lose nothing that a picture shows."""
    gaussians, view = drawn(200, 3), camera([0, 0, 0], 32)
    frame = frame_of(gaussians, assumed_evidence(gaussians))
    back = from_channels(gaussians.means.double().numpy(), to_channels(gaussians, frame), frame)
    assert psnr(picture(back, view, WHITE), picture(gaussians, view, WHITE)) > 80


def test_numbers_that_pictures_see_are_rounded_finely() -> None:
    """The point of the whole file: a Gaussian with 256 times the evidence has errors 16 times smaller."""
    gaussians = drawn(400, 1)
    factor = np.where(np.arange(400) < 150, 256.0, 1.0) * 1e-6
    names = ("rotations", "opacities", "colors")
    seen = Evidence(
        positions=np.ones(400), scales=np.repeat(factor[:, None], 3, 1), smallest_scale=1e-4,
        **{name: factor for name in names},
    )  # fmt: skip
    found = decode_packed(encode_packed(StoredGaussians(gaussians), evidence=seen, budget=1e-9)).gaussians
    nearest = torch.cdist(gaussians.means, found.means).argmin(dim=1)
    assert len(set(nearest.tolist())) == 400
    for name in ("features_dc", "opacities"):
        errors = (getattr(found.select(nearest), name) - getattr(gaussians, name)).square().mean(dim=1)
        assert 12 < float(errors[150:].mean() / errors[:150].mean()) ** 0.5 < 20


ODD = {
    "all in one place": lambda g: replace(g, means=torch.ones_like(g.means)),
    "far away": lambda g: replace(g, means=g.means * 1e6 + 1e8),
    "one far away": lambda g: replace(g, means=torch.cat([g.means[:-1], g.means[-1:] + 1e7])),
    "no rotation": lambda g: replace(g, quats=torch.zeros_like(g.quats)),
    "flat, and huge": lambda g: replace(g, scales=torch.cat([g.scales[:, :1] - 200, g.scales[:, 1:] + 30], 1)),
    "opaque and empty": lambda g: replace(g, opacities=g.opacities.sign() * 1e20),
    "bright": lambda g: replace(g, features_dc=g.features_dc * 1e20),
    "no colours": lambda g: replace(g, features_dc=g.features_dc * 0, features_rest=g.features_rest * 0),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_scenes(name: str) -> None:
    """Whatever a training came to can be written, and is finite when it is read."""
    gaussians: Gaussians = ODD[name](drawn(60, 2))
    found = decode_packed(encode_packed(StoredGaussians(gaussians))).gaussians
    assert all(bool(torch.isfinite(values).all()) for _, values in found.items())
    order = torch.cdist(gaussians.means.double(), found.means.double()).argmin(dim=1)
    extent = float((gaussians.means.amax(0) - gaussians.means.amin(0)).max()) + 1e-6
    places = gaussians.means.abs().max() * 2**-22
    assert float((found.means[order] - gaussians.means).abs().max()) <= 0.05 * extent + float(places)


def test_what_cannot_be_written() -> None:
    """One clear error, before anything is made."""
    gaussians = drawn(5, 1)
    bad = gaussians.opacities.clone()
    bad[3] = float("nan")
    with pytest.raises(ValueError, match="opacities: expected finite numbers"):
        encode_packed(StoredGaussians(replace(gaussians, opacities=bad)))
    with pytest.raises(ValueError, match=r"1 to .* Gaussians, got 0"):
        encode_packed(StoredGaussians(gaussians.select(torch.arange(0))))
    with pytest.raises(ValueError, match="position_bits must be in"):
        encode_packed(StoredGaussians(gaussians), position_bits=21)
    with pytest.raises(ValueError, match="budget must be finite and above 0"):
        encode_packed(StoredGaussians(gaussians), budget=0.0)
    with pytest.raises(ValueError, match="evidence must be"):
        encode_packed(StoredGaussians(gaussians), evidence=assumed_evidence(drawn(6, 1)))
    with pytest.raises(ValueError, match="means: expected coordinates"):
        encode_packed(StoredGaussians(replace(gaussians, means=gaussians.means * 1e12)))


CONTENT = encode_packed(StoredGaussians(drawn(100, 2), False, PLACEMENT), budget=1e-9)


def test_every_byte_is_guarded(tmp_path: Path) -> None:
    """A flipped bit anywhere is told of, with the file and the section."""
    path, names = tmp_path / "a.gsvt", [section.label for section in Section]
    for at in range(0, len(CONTENT), 7):
        damaged = bytearray(CONTENT)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError) as error:
            read_packed(path)
        file, section, _ = str(error.value).split(": ", 2)
        assert file == str(path) and section in ("header", "sections", *names)


def sealed(content: bytes, at: int, new: bytes) -> bytes:
    """A file with other bytes in its header, whose check sum fits."""
    end = 14 + 10 * content[13]
    head = bytearray(content[:end])
    head[at : at + len(new)] = new
    return bytes(head) + struct.pack("<I", zlib.crc32(head)) + content[end + 4 :]


@pytest.mark.parametrize(
    ("at", "new", "message"),
    [
        (0, b"GSVX", "a file that begins with"),
        (4, b"\x02\x00", "version 1, .* got 2"),
        (6, b"\x07", "a layout of"),
        (7, b"\xf0", "flags that are known"),
        (8, b"\xff\xff\xff\x00", "1 to .* Gaussians in a file of"),
        (8, b"\0\0\0\0", "1 to .* Gaussians in a file of"),
        (12, b"\x04", "degree 0 to 3, got 4"),
        (12, b"\x01", "frame: expected .* bytes"),
        (14, b"\x0f", "sections that are known"),
    ],
)
def test_headers_that_lie(at: int, new: bytes, message: str, tmp_path: Path) -> None:
    """Each value of the header is held against what there can be, also where its check sum fits."""
    path = tmp_path / "a.gsvt"
    path.write_bytes(sealed(CONTENT, at, new))
    with pytest.raises(FileFormatError, match=message):
        read_packed(path)


@pytest.mark.parametrize("length", [0, 3, 10, 40, len(CONTENT) // 2, len(CONTENT) - 1])
def test_cut_off(length: int) -> None:
    """At any place."""
    with pytest.raises(FileFormatError):
        decode_packed(CONTENT[:length])


def test_sections_add_up() -> None:
    """What is told of the sections is all that there is."""
    assert sum(section_sizes(CONTENT).values()) == len(CONTENT)
    assert take_apart(CONTENT)[0].count == 100


def test_file_is_as_long_as_its_gaussians() -> None:
    """A reader holds their number against the length of the file, so what takes less than a byte each is filled up."""
    many = drawn(1, 0).select(torch.zeros(5000, dtype=torch.int64))
    content = encode_packed(StoredGaussians(many), budget=1.0)
    assert len(content) >= 5000 and len(decode_packed(content).gaussians) == 5000


def test_file_of_an_earlier_version_of_this_code() -> None:
    """Bytes that were written once are read as they were then."""
    found = decode_packed(base64.b64decode(GOLDEN)).gaussians
    assert found.sh_degree == 1 and len(found) == 3
    for name, expected in GOLDEN_VALUES.items():
        assert getattr(found, name).flatten().tolist() == pytest.approx(expected, abs=1e-5)


GOLDEN = (
    "R1NWVAEAAAADAAAAAQQCAI4AAABLwCSKAwA1AAAAbkLYUQQAAwAAAKpVGZYFAA4AAAAtiwD6ce5N9vjQdz4plSa/zyoWQP0Eounx"
    "OAEAAAAAAAcm9fS/sjLnv1YB7b8AAAAAAAAAAAAAAABsrW2+/QL+/AL9/gL//AL9/gH+mjGPvvYzEjCbrbEmYKorrAetWKwSpFSu"
    "7Ts0MBAnC58nKJWySyvQOyawtjuQL2oyKqPVru47HK1oueY5sZzlOWc5WKicJbwm/zswKStmK2YrZmZmZ2ZmZmdmK2YrZmhmaS8z"
    "LStoMTNpK2hmZmZmZmcrZ2ZnZmZmZmZmZmZmZg/pgFTFfQqy4t7ho0YGTuKS"
)
GOLDEN_VALUES: dict[str, list[float]] = {
    "means": [0.33576, -0.61946, 2.56511, 0.92951, -0.21321, 2.40886, 0.30451, 0.53679, 2.78386],
    "scales": [-2.16373, -2.05624, -1.3516, -1.91373, -1.80623, -1.8516, -1.91373, -1.80623, -1.8516],
    "opacities": [1.01789, -0.98211, -0.98211],
    "features_dc": [0.58585, -2.27123, 0.25233, 0.56792, -1.32355, 0.23184, -0.99642, -0.36112, 0.24894],
}


def test_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The block of `docs/pack.md` reads a file as it says."""
    (block,) = python_blocks(ROOT / "docs" / "pack.md")
    (tmp_path / "lego.gsvt").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "read.py", "exec"), {})
    assert capsys.readouterr().out.startswith("100 2 False Placement(")


def test_evidence_is_the_squared_derivative() -> None:
    """Random signs give what all pixels' derivatives give one by one, in the mean over many draws."""
    gaussians, view = drawn(3, 1), camera([0, 0, 0], 6)
    parameters = {name: values.double().requires_grad_() for name, values in gaussians.items()}
    own = Gaussians.of(parameters)
    rendering = CpuRasterizer().render(own, view, 1)
    shown = rendering.colors + (1 - rendering.alphas) * WHITE.double()
    exact = {name: torch.zeros_like(values) for name, values in parameters.items()}
    for value in shown.flatten():
        if 0 < float(value.detach()) < 1:
            parts = torch.autograd.grad(value, list(parameters.values()), retain_graph=True)
            for name, part in zip(exact, parts, strict=True):
                exact[name] += part.detach().square()
    numbers = shown.numel()
    cpu = CpuRasterizer()
    draws = [evidence_from_views(own.detach(), [(view, None)], cpu, WHITE.double(), seed=seed) for seed in range(100)]
    for name, values in {
        "positions": exact["means"].mean(dim=1),
        "scales": exact["scales"],
        "opacities": exact["opacities"][:, 0],
        "colors": exact["features_dc"].mean(dim=1),
    }.items():
        mean = np.mean([getattr(draw, name) for draw in draws], axis=0) * numbers
        assert mean == pytest.approx(values.numpy(), rel=0.5, abs=1e-3 * float(values.max()))
    # Harmonics: constant by constant is 1, and the diagonal is that of the coefficients.
    directions = draws[0].directions
    assert directions is not None and directions.shape == (4, 4) and directions[0, 0] == 1
    assert np.linalg.eigvalsh(directions).min() > -1e-9


def test_evidence_of_no_view() -> None:
    """Nothing is made up."""
    with pytest.raises(ValueError, match="there are none"):
        evidence_from_views(drawn(3), [], CpuRasterizer(), WHITE)
