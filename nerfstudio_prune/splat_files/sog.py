"""Gaussians of PlayCanvas' SOG files, which are a zip archive of `meta.json` and pictures: read, not written.

The format is that of https://github.com/playcanvas/splat-transform: pixel i of each picture belongs to Gaussian i, row
by row. Version 2 looks up scales and colours in lists of up to 256 values; version 1 has ranges of them instead.
Harmonics above degree 0 are entries of a palette.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.raster.gaussians import MAX_SH_DEGREE
from nerfstudio_prune.splat_files.limits import check_count
from nerfstudio_prune.splat_files.numbers import BYTE, logit_of_bytes, stored_gaussians
from nerfstudio_prune.splat_files.rotations import SQRT_HALF, from_smallest_three
from nerfstudio_prune.splat_files.sog_archive import Archive
from nerfstudio_prune.splat_files.sog_meta import Section, parse_meta
from nerfstudio_prune.splat_files.stored import StoredGaussians
from nerfstudio_prune.splat_files.webp import decode_webp

META, MAX_META = "meta.json", 1_000_000
"""Name, and largest size, of what a file says of itself: four lists of numbers, some 20 kB."""
SLACK = 4096
"""Pixels of a picture beyond four times the Gaussians: sides are rounded up, at most to powers of two."""
PIXEL = 8
"""Bytes in the archive that a pixel may take: twice of what it has in memory."""
LAST_CODE = 65535
"""Of a position, in two pictures of eight bits."""
FIRST_TAG = 252
"""In the fourth channel of a rotation where w is the largest component; 253 for x, and so on."""
COLUMNS, MAX_PALETTE = 64, 2**16
"""Entries of the palette in a row of its picture, and in all: an index has 16 bits."""


@dataclass(frozen=True)
class _Pictures:
    """Pictures of a file that have a pixel for each Gaussian."""

    archive: Archive
    count: int
    """Gaussians."""

    def of(self, section: Section, index: int = 0, files: int = 1) -> UInt8[np.ndarray, "gaussians 4"]:
        """The pixels of one of a section's pictures.

        Args:
            section: Which names them.
            index: Which picture.
            files: How many the section has.

        Raises:
            FileFormatError: If it is not there, too large, too small or damaged.
        """
        name = section.texts("files", files)[index]
        picture = self.decode(name, 4 * self.count + SLACK)
        pixels = picture.reshape(-1, 4)
        if len(pixels) < self.count:
            raise refuse(name, f"at least {self.count:,} pixels", f"{len(pixels):,}")
        return pixels[: self.count]

    def decode(self, name: str, most: int) -> UInt8[np.ndarray, "height width 4"]:
        """A picture of at most so many pixels."""
        return decode_webp(self.archive.read(name, PIXEL * most), most, name)


def decode_sog(content: bytes) -> StoredGaussians:
    """Gaussians of a file.

    Args:
        content: The whole file.

    Raises:
        FileFormatError: If it is none, of another version, or damaged.
    """
    archive = Archive(content)
    meta = parse_meta(archive.read(META, MAX_META))
    if "version" in meta and meta.whole("version") != 2:
        raise refuse("meta.json, version", "2, or none for version 1", f"{meta.whole('version')}")
    count = meta.whole("count") if "version" in meta else meta.section("means").first_whole("shape")
    check_count(count, len(content), "meta.json, number of Gaussians")
    pictures = _Pictures(archive, count)
    colours, opacities = _colours(meta.section("sh0"), pictures)
    scales = meta.section("scales")
    found = stored_gaussians(
        _means(meta.section("means"), pictures),
        _values(scales, pictures.of(scales)[:, :3]),
        _quats(pictures.of(meta.section("quats"))),
        colours,
        _harmonics(meta.section("shN"), pictures) if "shN" in meta else np.zeros((count, 0, 3), dtype=np.float32),
        opacities,
    )
    return replace(found, antialiased=meta.truth("antialias")) if "antialias" in meta else found


def _values(section: Section, codes: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """What codes stand for: entries of a list, or steps of a range, of each channel or of all of them."""
    if "codebook" in section:
        book = section.numbers("codebook", 1, BYTE + 1)
        if codes.size and codes.max() >= len(book):
            raise refuse(f"{section.name}, codebook", f"at least {codes.max() + 1} numbers", f"{len(book)}")
        return book[codes]
    channels = codes.shape[-1] if section.is_list("mins") else 1
    low, high = (section.numbers(end, channels, channels) for end in ("mins", "maxs"))
    with np.errstate(over="ignore", invalid="ignore"):
        return low + (high - low) * (codes / np.float32(BYTE))


def _means(section: Section, pictures: _Pictures) -> Float64[np.ndarray, "gaussians 3"]:
    """Positions: 16 bits of sign(x) log(1 + |x|), within a range of each axis."""
    low, high = (pictures.of(section, i, files=2)[:, :3].astype(np.float64) for i in (0, 1))
    first, last = (section.numbers(end, 3, 3) for end in ("mins", "maxs"))
    with np.errstate(over="ignore", invalid="ignore"):
        logarithms = first + (last - first) * ((low + 256 * high) / LAST_CODE)
        return np.sign(logarithms) * np.expm1(np.abs(logarithms))


def _quats(pixels: UInt8[np.ndarray, "gaussians 4"]) -> Float32[np.ndarray, "gaussians 4"]:
    tags = pixels[:, 3]
    if tags.min() < FIRST_TAG:
        raise refuse("quats", f"which component is the largest as {FIRST_TAG} to {BYTE}", f"{tags.min()}")
    others = (pixels[:, :3] / np.float32(BYTE) * 2 - 1) * np.float32(SQRT_HALF)
    return from_smallest_three(tags.astype(np.int64) - FIRST_TAG, others)


def _colours(
    section: Section, pictures: _Pictures
) -> tuple[Float[np.ndarray, "gaussians 3"], Float[np.ndarray, " gaussians"]]:
    """Coefficients of the constant harmonic, and logits of the opacities."""
    codes = pictures.of(section)
    if "codebook" in section:
        return _values(section, codes[:, :3]), logit_of_bytes(codes[:, 3])
    values = _values(section, codes)
    return values[:, :3], values[:, 3]


def _harmonics(section: Section, pictures: _Pictures) -> Float[np.ndarray, "gaussians coefficients 3"]:
    coefficients = {COLUMNS * ((degree + 1) ** 2 - 1): (degree + 1) ** 2 - 1 for degree in range(1, MAX_SH_DEGREE + 1)}
    name = section.texts("files", 2)[0]
    palette = pictures.decode(name, MAX_PALETTE * max(coefficients.values()))
    width = palette.shape[1]
    if width not in coefficients:
        raise refuse(name, f"a width of {', '.join(map(str, coefficients))}, for degree 1 to 3", f"{width}")
    number = coefficients[width]
    if "bands" in section and (section.whole("bands") + 1) ** 2 - 1 != number:
        raise refuse(f"{section.name}, bands", f"the degree that {name} has", f"{section.whole('bands')}")
    codes = palette[..., :3].reshape(-1, number, 3)
    labels = pictures.of(section, 1, files=2)
    indices = labels[:, 0].astype(np.int64) + 256 * labels[:, 1].astype(np.int64)
    if indices.max() >= len(codes):
        raise refuse("shN, labels", f"indices below {len(codes):,}, the entries of {name}", f"{indices.max():,}")
    with np.errstate(over="ignore"):
        return _values(section, codes).astype(np.float32)[indices]
