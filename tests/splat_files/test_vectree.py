"""The layout of LightGaussian: octree, codebook and half precision against brute force, and as a whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.splats_by_hand import drawn

from nerfstudio_prune.exchange.compression import compress
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.morton import morton_codes
from nerfstudio_prune.splat_files.octree import decode_octree, encode_octree
from nerfstudio_prune.splat_files.packed import decode_packed, encode_paper
from nerfstudio_prune.splat_files.packed_container import section_sizes
from nerfstudio_prune.splat_files.planes import decode_planes, encode_planes
from nerfstudio_prune.splat_files.stored import StoredGaussians
from nerfstudio_prune.splat_files.vector_quantizer import assign_codes, build_codebook
from nerfstudio_prune.splat_files.vectree import code_bits

RNG = np.random.default_rng(0)


def test_octree_by_hand() -> None:
    """Two levels: the root has parts 0 and 7; part 0 has its part 3, part 7 its parts 0 and 1, the latter twice."""
    codes = np.array([0o03, 0o70, 0o71, 0o71])
    content, counts = encode_octree(codes, 2)
    assert list(content) == [0b1000_0001, 0b0000_1000, 0b0000_0011] and counts.tolist() == [1, 1, 2]
    assert decode_octree(content, 2, 3, "octree").tolist() == [0o03, 0o70, 0o71]


@pytest.mark.parametrize("bits", [1, 12, 20])
def test_octree_loses_nothing(bits: int) -> None:
    """Whatever the depth, also where many points share a leaf."""
    codes = np.sort(morton_codes(RNG.integers(0, 2**bits, (500, 3))))
    content, counts = encode_octree(codes, bits)
    assert (np.repeat(decode_octree(content, bits, 500, "octree"), counts) == codes).all()


def test_octree_of_the_issue_is_smaller_than_floats() -> None:
    """The public code of the paper has none, and its positions are as large as before; here both are compressed."""
    places = RNG.random((5000, 3), dtype=np.float32)
    nodes = compress(encode_octree(np.sort(morton_codes((places * 2**16).astype(np.int64))), 16)[0])
    assert len(nodes) < 0.6 * len(compress(places.tobytes()))


def test_damaged_octrees() -> None:
    """Empty nodes, too many leaves, bytes that are missing or left over."""
    content, _ = encode_octree(np.array([0, 1, 77, 511]), 3)
    for damaged, most in ((content[:-1], 4), (content + b"\1", 4), (b"\0" + content[1:], 4), (content, 3)):
        with pytest.raises(FileFormatError, match="octree: expected"):
            decode_octree(damaged, 3, most, "octree")


def test_planes() -> None:
    """Half precision, its largest number for what is beyond; all low bytes stand before all high ones."""
    values = np.array([[1.0, -2.5], [1e6, 1e-7], [0.1, 3.0]])
    content = encode_planes(values)
    expected = values.clip(-65504, 65504).astype(np.float16)
    assert (decode_planes(content, 2, "shapes") == expected).all()
    assert content[:6] == expected.T.tobytes()[::2]
    with pytest.raises(FileFormatError, match="shapes: expected finite"):
        decode_planes(b"\0\0" * 2 + b"\x7c\x7c" * 2, 2, "shapes")


def test_codebook_finds_clusters() -> None:
    """Each code is the weighted mean of the vectors that it serves, and a vector's code is the nearest one."""
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    sizes = [50, 30, 40, 60]
    near = torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(0))
    of = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    vectors, weights = centers[of] + near, torch.rand(len(of), generator=torch.Generator().manual_seed(1))
    for seed in range(3):
        codes = build_codebook(vectors, weights, 6, seed)
        own = assign_codes(vectors, codes)
        assert torch.equal(own, torch.cdist(vectors.double(), codes.double()).argmin(dim=1))
        counts = weights.double() + 1e-3 * weights.double().mean()
        for code in range(6):
            served = own == code
            mean = (vectors[served].double() * counts[served, None]).sum(0) / counts[served].sum()
            assert codes[code].tolist() == pytest.approx(mean.tolist(), abs=0.3)
        assert torch.equal(codes, codes.half().float())
        assert torch.equal(codes, build_codebook(vectors, weights, 6, seed))


def test_no_code_serves_nobody() -> None:
    """Where most vectors are the same, most first codes are, too: they go to the vectors that are served worst, however
    little these count."""
    vectors = torch.cat([torch.zeros(1000, 2), torch.tensor([[5.0, 0.0], [0.0, 9.0], [-7.0, 1.0]])])
    weights = torch.cat([torch.ones(1000), torch.full((3,), 1e-6)])
    codes = build_codebook(vectors, weights, 4)
    assert sorted(codes.tolist()) == sorted(vectors.unique(dim=0).tolist())


@pytest.mark.parametrize("degree", [0, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 400])
def test_round_trip_of_the_layout(count: int, degree: int) -> None:
    """Shapes of all, and harmonics of the two fifths that count most, are those of half precision; the others have one
    of few; centres are within half a cell."""
    gaussians = drawn(count, degree)
    significance = np.arange(count, dtype=np.float64)
    content = encode_paper(StoredGaussians(gaussians, True), significance)
    found = decode_packed(content)
    assert found.antialiased is True and encode_paper(StoredGaussians(gaussians, True), significance) == content
    nearest = torch.cdist(gaussians.means.double(), found.gaussians.means.double()).argmin(dim=1)
    own = found.gaussians.select(nearest)
    extent = float((gaussians.means.amax(0) - gaussians.means.amin(0)).max()) if count > 1 else 1.0
    assert float((own.means - gaussians.means).abs().max()) <= extent * 2**-15
    for name in ("scales", "quats", "opacities"):
        assert torch.equal(getattr(own, name), getattr(gaussians, name).half().float())
    coded = int(0.6 * count)
    assert torch.equal(own.features_rest[coded:], gaussians.features_rest[coded:].half().float())
    assert len(own.features_dc[:coded].unique(dim=0)) <= 2 ** code_bits(coded)
    if coded > 1:
        error = (own.features_dc[:coded] - gaussians.features_dc[:coded]).square().mean()
        assert error < 0.9 * gaussians.features_dc[:coded].var()


def test_sizes_of_codes() -> None:
    """A power of two that at least eight vectors share, at most the paper's 8,192; in the file as many bits each."""
    assert [code_bits(vectors) for vectors in (0, 1, 15, 16, 3268, 10**6)] == [0, 0, 0, 1, 8, 13]
    sizes = section_sizes(encode_paper(StoredGaussians(drawn(1000, 1)), np.ones(1000)))
    assert abs(sizes["codes"] - 600 * 6 / 8) < 60


def test_what_the_layout_cannot_hold() -> None:
    """Scores of another number of Gaussians, or none at all, would choose at random."""
    gaussians = drawn(5, 1)
    for bad in (np.ones(6), np.full(5, np.nan), -np.ones(5)):
        with pytest.raises(ValueError, match="significance must be finite"):
            encode_paper(StoredGaussians(gaussians), bad)
    with pytest.raises(ValueError, match="position_bits must be in"):
        encode_paper(StoredGaussians(gaussians), np.ones(5), 21)
    huge = replace(gaussians, scales=gaussians.scales + 1e9, opacities=gaussians.opacities * 1e9)
    found = decode_packed(encode_paper(StoredGaussians(huge), np.ones(5))).gaussians
    assert all(bool(torch.isfinite(values).all()) for _, values in found.items())
