"""LightGaussian's VecTree (arXiv 2311.17245, section 3.4): centres by an octree, harmonics of the Gaussians that count
least by a codebook, and everything else in half precision. Built to the paper, for comparison."""

import struct
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.adaptive_frame import LARGEST, MAX_EXPONENT
from nerfstudio_prune.splat_files.channels import MAX_LOG, MAX_LOGIT
from nerfstudio_prune.splat_files.morton import MAX_BITS, cells_of, morton_codes
from nerfstudio_prune.splat_files.octree import decode_octree, encode_octree
from nerfstudio_prune.splat_files.packed_container import Header, Section, Sections
from nerfstudio_prune.splat_files.places import in_order
from nerfstudio_prune.splat_files.planes import decode_planes, encode_planes
from nerfstudio_prune.splat_files.steps import grid_of
from nerfstudio_prune.splat_files.vector_quantizer import assign_codes, build_codebook

CODED = 0.6
"""Share of the Gaussians whose harmonics are by the codebook: those of least significance."""
VECTORS_OF_A_CODE = 8
"""The codebook is the largest power of two with as many vectors for each of its codes, up to the paper's."""
MAX_CODE_BITS = 13
"""The paper's 8,192 codes."""
SHAPE_COLUMNS = 8
_FRAME = struct.Struct("<3fbBIIIB")


def encode_vectree(
    gaussians: Gaussians, significance: Float[ndarray, " gaussians"], position_bits: int
) -> Mapping[Section, tuple[bool, bytes]]:
    """The sections, with whether each is compressed already.

    Args:
        gaussians: On the CPU, finite.
        significance: Global significance of each, at least 0.
        position_bits: Levels of the octree, in [1, 20].
    """
    means = gaussians.means.double().numpy()
    grid = grid_of(means, position_bits)
    cells = np.floor(np.ldexp(means - grid.corner, -grid.exponent)).astype(np.int64).clip(0, (1 << grid.bits) - 1)
    order = in_order(cells)
    own, weights = gaussians.select(torch.from_numpy(order)), significance[order]
    nodes, counts = encode_octree(morton_codes(cells[order]), grid.bits)
    harmonics = _harmonics(own)
    number = int(CODED * len(order))
    coded = np.zeros(len(order), bool)
    coded[np.argsort(weights, kind="stable")[:number]] = True
    bits = code_bits(number)
    vectors = torch.from_numpy(harmonics[coded])
    found: dict[Section, tuple[bool, bytes]] = {}
    if number:
        codes = build_codebook(vectors, torch.from_numpy(weights[coded]), 1 << bits)
        indices = assign_codes(vectors, codes).numpy()
        found[Section.CODEBOOK] = False, encode_planes(codes.double().numpy())
        found[Section.CODES] = False, np.packbits(indices[:, None] >> np.arange(bits) & 1).tobytes()
    shapes = torch.cat([own.scales, own.quats, own.opacities], dim=1).double().numpy()
    head = _FRAME.pack(*grid.corner, grid.exponent, grid.bits, len(nodes), len(counts), number, bits)
    return found | {
        Section.FRAME: (False, head),
        Section.OCTREE: (False, nodes),
        Section.COUNTS: (False, counts.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()),
        Section.CODED: (False, np.packbits(coded).tobytes()),
        Section.SHAPES: (False, encode_planes(shapes)),
        Section.HARMONICS: (False, encode_planes(harmonics[~coded])),
    }


def code_bits(vectors: int) -> int:
    """Bits of a code for a number of vectors.

    Args:
        vectors: How many the codebook serves.
    """
    return min(max(vectors // VECTORS_OF_A_CODE, 1).bit_length() - 1, MAX_CODE_BITS)


def decode_vectree(header: Header, sections: Sections) -> Gaussians:
    """The Gaussians.

    Args:
        header: What the file says of itself.
        sections: Its sections; those of this layout are taken.

    Raises:
        FileFormatError: If they are damaged.
    """
    count, columns = header.count, 3 * (header.degree + 1) ** 2
    *corner, exponent, bits, nodes, leaves, number, index_bits = _FRAME.unpack(
        sections.take(Section.FRAME, _FRAME.size)
    )
    checks = {
        "finite corners": all(abs(value) <= LARGEST for value in corner),
        f"cells of 2^-{MAX_EXPONENT} to 2^60": -MAX_EXPONENT <= exponent <= 60,
        f"1 to {MAX_BITS} levels": 1 <= bits <= MAX_BITS,
        f"as many nodes as {count:,} Gaussians can have": bits <= nodes <= bits * count,
        f"1 to {count:,} leaves": 1 <= leaves <= count,
        f"at most {count:,} vectors with a code": number <= count,
        f"codes of {code_bits(number)} bits": index_bits == code_bits(number),
    }
    for expected, holds in checks.items():
        if not holds:
            raise refuse(Section.FRAME.label, expected, "something else")
    codes = decode_octree(sections.take(Section.OCTREE, nodes), bits, leaves, Section.OCTREE.label)
    if len(codes) != leaves:
        raise refuse(Section.OCTREE.label, f"{leaves:,} leaves", f"{len(codes):,}")
    planes = np.frombuffer(sections.take(Section.COUNTS, 4 * leaves), np.uint8).reshape(4, -1)
    counts = np.ascontiguousarray(planes.T).view("<u4")[:, 0].astype(np.int64)
    if counts.min() < 1 or int(counts.sum()) != count:
        raise refuse(Section.COUNTS.label, f"{count:,} Gaussians in the leaves", f"{int(counts.sum()):,}")
    coded = _bits(sections.take(Section.CODED, -(-count // 8)), count).astype(bool)
    if int(coded.sum()) != number:
        raise refuse(Section.CODED.label, f"{number:,} Gaussians with a code", f"{int(coded.sum()):,}")
    harmonics = np.empty((count, columns))
    if number:
        stored = sections.take(Section.CODEBOOK, 2 * columns << index_bits)
        codebook = decode_planes(stored, columns, Section.CODEBOOK.label)
        stream = _bits(sections.take(Section.CODES, -(-number * index_bits // 8)), number * index_bits)
        indices = stream.reshape(number, index_bits).astype(np.int64) @ (1 << np.arange(index_bits))
        harmonics[coded] = codebook[indices]
    plain = sections.take(Section.HARMONICS, 2 * columns * (count - number))
    harmonics[~coded] = decode_planes(plain, columns, Section.HARMONICS.label)
    stored = sections.take(Section.SHAPES, 2 * SHAPE_COLUMNS * count)
    shapes = decode_planes(stored, SHAPE_COLUMNS, Section.SHAPES.label)
    means = np.ldexp(np.repeat(cells_of(codes), counts, axis=0) + 0.5, exponent) + corner
    return _gaussians(means, shapes, harmonics)


def _bits(content: bytes, count: int) -> ndarray:
    """As many bits."""
    return np.unpackbits(np.frombuffer(content, np.uint8), count=count)


def _harmonics(gaussians: Gaussians) -> Float[ndarray, "gaussians values"]:
    return torch.cat([gaussians.features_dc[:, None], gaussians.features_rest], dim=1).flatten(1).double().numpy()


def _gaussians(means: ndarray, shapes: ndarray, harmonics: ndarray) -> Gaussians:
    colors = harmonics.reshape(len(harmonics), -1, 3)
    tensors = {
        "means": means,
        "scales": shapes[:, :3].clip(-MAX_LOG, MAX_LOG),
        "quats": shapes[:, 3:7],
        "features_dc": colors[:, 0],
        "features_rest": colors[:, 1:],
        "opacities": shapes[:, 7:].clip(-MAX_LOGIT, MAX_LOGIT),
    }
    return Gaussians.of({name: torch.from_numpy(np.ascontiguousarray(t)).float() for name, t in tensors.items()})
