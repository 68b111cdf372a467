"""The small file of this project, `.gsvt`: Gaussians as bytes, and back from a file that may come from anyone."""

import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from nerfstudio_prune.core.files import read_file
from nerfstudio_prune.exchange.errors import FileFormatError, refuse
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.adaptive_decode import decode_adaptive
from nerfstudio_prune.splat_files.adaptive_encode import cells_in, encode_adaptive
from nerfstudio_prune.splat_files.evidence import Evidence, assumed_evidence, is_usable
from nerfstudio_prune.splat_files.morton import MAX_BITS
from nerfstudio_prune.splat_files.packed_container import (
    MAX_BYTES,
    MAX_COUNT,
    Flag,
    Header,
    Layout,
    Section,
    Sections,
    put_together,
    take_apart,
)
from nerfstudio_prune.splat_files.places import in_order
from nerfstudio_prune.splat_files.profiles import PAPER_BITS, PROFILES, RoundedName
from nerfstudio_prune.splat_files.steps import choose_steps
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians
from nerfstudio_prune.splat_files.vectree import decode_vectree, encode_vectree

_PLACEMENT = struct.Struct("<13f")
DECODERS: Mapping[Layout, Callable[[Header, Sections], Gaussians]] = {
    Layout.ADAPTIVE: decode_adaptive,
    Layout.VECTREE: decode_vectree,
}
"""How each layout is read."""
LARGEST_PLACE = 1e9
"""Magnitude of a coordinate of a centre."""


def encode_packed(
    stored: StoredGaussians,
    profile: RoundedName = "small",
    *,
    evidence: Evidence | None = None,
    budget: float | None = None,
    position_bits: int | None = None,
) -> bytes:
    """Gaussians as the bytes of a file; the same ones always give the same bytes.

    Args:
        stored: On the CPU, finite, at least one.
        profile: How far numbers are rounded, where no budget says so.
        evidence: What errors do to pictures. None: what can be said without views.
        budget: Mean square error of the pictures for each number, above 0; the larger, the smaller the file.
        position_bits: Centres are rounded to 2^bits cells in each direction, in [1, 20]. None: as all else.

    Raises:
        ValueError: If there is no Gaussian, or too many; a number is not finite or too large; or an argument is out of
            its range.
    """
    gaussians = stored.gaussians.detach()
    _check(gaussians, position_bits)
    known = assumed_evidence(gaussians) if evidence is None else evidence
    if not is_usable(known, len(gaussians), gaussians.sh_degree):
        raise ValueError(f"evidence must be finite, not negative, and of the {len(gaussians):,} Gaussians")
    amount = PROFILES[profile].budget if budget is None else budget
    if not (math.isfinite(amount) and amount > 0):
        raise ValueError(f"budget must be finite and above 0, got {amount}")
    sections = dict(encode_adaptive(gaussians, known, amount, position_bits))
    return _put_together(stored, Layout.ADAPTIVE, sections)


def encode_paper(
    stored: StoredGaussians, significance: Float[ndarray, " gaussians"], position_bits: int = PAPER_BITS
) -> bytes:
    """Gaussians as the bytes of a file in LightGaussian's layout; the same ones always give the same bytes.

    Args:
        stored: On the CPU, finite, at least one.
        significance: What each counts: those of least significance have their harmonics by the codebook.
        position_bits: Levels of the octree, in [1, 20].

    Raises:
        ValueError: See `encode_packed`.
    """
    gaussians = stored.gaussians.detach()
    _check(gaussians, position_bits)
    if significance.shape != (len(gaussians),) or not (np.isfinite(significance).all() and (significance >= 0).all()):
        raise ValueError(f"significance must be finite, not negative, and of the {len(gaussians):,} Gaussians")
    return _put_together(stored, Layout.VECTREE, dict(encode_vectree(gaussians, significance, position_bits)))


def packed_order(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians in the order in which `encode_packed` writes them where nothing is given.

    Args:
        gaussians: On the CPU, finite.
    """
    steps = choose_steps(gaussians, assumed_evidence(gaussians), PROFILES["small"].budget, None)
    return gaussians.select(torch.from_numpy(in_order(cells_in(gaussians, steps.grid))))


def decode_packed(content: bytes) -> StoredGaussians:
    """Gaussians of the bytes of a file.

    Args:
        content: The whole file.

    Raises:
        FileFormatError: If it is of something else, of a newer version, cut off or damaged.
    """
    header, sections = take_apart(content)
    placement = _placement(sections) if sections.has(Section.PLACEMENT) else None
    gaussians = DECODERS[header.layout](header, sections)
    sections.finish()
    for name, values in gaussians.items():
        if not bool(torch.isfinite(values).all()):
            raise refuse(name, "finite numbers", "others")
    antialiased = bool(header.flags & Flag.ANTIALIASED) if header.flags & Flag.KNOWS_ANTIALIASING else None
    return StoredGaussians(gaussians, antialiased, placement)


def read_packed(path: Path | str) -> StoredGaussians:
    """Reads a file that may come from anyone. Nothing in it is run, and nothing allocated that its length does not
    allow.

    Args:
        path: The file.

    Raises:
        FileFormatError: If it cannot be read, is of something else, of a newer version, cut off or damaged. Names the
            file, the section, what was expected and what was found.
    """
    try:
        return decode_packed(read_file(Path(path), MAX_BYTES))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error}") from error
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def _check(gaussians: Gaussians, position_bits: int | None) -> None:
    if position_bits is not None and not 1 <= position_bits <= MAX_BITS:
        raise ValueError(f"position_bits must be in [1, {MAX_BITS}], got {position_bits}")
    if not 1 <= len(gaussians) <= MAX_COUNT:
        raise ValueError(f"a file holds 1 to {MAX_COUNT:,} Gaussians, got {len(gaussians):,}")
    for name, values in gaussians.items():
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name}: expected finite numbers, got others; a run that has diverged cannot be packed")
    if float(gaussians.means.abs().max()) > LARGEST_PLACE:
        raise ValueError(f"means: expected coordinates within ±{LARGEST_PLACE:g}")


def _put_together(stored: StoredGaussians, layout: Layout, sections: dict[Section, tuple[bool, bytes]]) -> bytes:
    flags = 0
    if stored.antialiased is not None:
        flags = Flag.KNOWS_ANTIALIASING | (Flag.ANTIALIASED if stored.antialiased else 0)
    if stored.placement is not None:
        rows = (value for row in stored.placement.transform for value in row)
        sections[Section.PLACEMENT] = False, _PLACEMENT.pack(*rows, stored.placement.scale)
    header = Header(layout, int(flags), len(stored.gaussians), stored.gaussians.sh_degree)
    return put_together(header, sections)


def _placement(sections: Sections) -> Placement:
    values = _PLACEMENT.unpack(sections.take(Section.PLACEMENT, _PLACEMENT.size))
    if not all(map(math.isfinite, values)) or values[-1] <= 0:
        raise refuse(Section.PLACEMENT.label, "finite numbers and a scale above 0", "others")
    rows = tuple(values[i : i + 4] for i in (0, 4, 8))
    return Placement(rows, values[-1])  # type: ignore[arg-type]
