"""SOG files from anyone: archive, `meta.json` and pictures are each told when they are wrong, and none grows."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.sog_by_hand import picture, put_together, taken_apart

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.formats import read_splats
from nerfstudio_prune.splat_files.sog import decode_sog
from nerfstudio_prune.splat_files.webp import webp_size

GOLDEN = Path(__file__).parent / "golden"
META, PICTURES = taken_apart((GOLDEN / "sog_3.sog").read_bytes())
OLD_META, OLD_PICTURES = taken_apart((GOLDEN / "sog_old.sog").read_bytes())


def changed(section: str = "", meta: Any = META, **values: Any) -> dict[str, Any]:
    """What the file says of itself, with other values in a section; without those that are None."""
    whole = {key: dict(value) if isinstance(value, dict) else value for key, value in meta.items()}
    part = whole[section] if section else whole
    part.update(values)
    for key in [key for key, value in values.items() if value is None]:
        del part[key]
    return whole


def with_picture(**pictures: bytes) -> bytes:
    """The file with other pictures."""
    return put_together(META, {**PICTURES, **{f"{name}.webp": content for name, content in pictures.items()}})


def test_harmonics_and_antialiasing_may_be_missing() -> None:
    """A file of degree 0 has no palette; one that says how opacities were trained is believed."""
    found = decode_sog(put_together(changed(shN=None, antialias=True), PICTURES, zipfile.ZIP_DEFLATED))
    assert found.gaussians.sh_degree == 0 and found.antialiased is True
    assert torch.equal(found.gaussians.means, read_splats(GOLDEN / "sog_3.sog").gaussians.means)


def test_lists_may_be_shorter() -> None:
    """A list of two values is enough where no code is larger."""
    pictures = {**PICTURES, "scales.webp": picture(8, 4, value=1)}
    found = decode_sog(put_together(changed("scales", codebook=[-5.0, -2.0]), pictures)).gaussians
    assert (found.scales == -2).all()


@pytest.mark.parametrize(("lossless", "options"), [(True, {}), (False, {}), (True, {"icc_profile": b"x" * 100})])
def test_sizes_of_the_three_kinds_of_pictures(lossless: bool, options: dict[str, Any]) -> None:
    """They are read by hand, before a decoder is let at the file."""
    content = picture(37, 1234, lossless=lossless, **options)
    assert webp_size(content, "a") == (37, 1234)
    opaque = io.BytesIO()
    Image.new("RGB", (5, 300)).save(opaque, "WEBP", lossless=lossless)
    assert webp_size(opaque.getvalue(), "a") == (5, 300)


def moving() -> bytes:
    """An animation of two pictures."""
    found = io.BytesIO()
    frames = [Image.new("RGBA", (8, 4), colour) for colour in ("red", "blue")]
    frames[0].save(found, "WEBP", save_all=True, append_images=frames[1:])
    return found.getvalue()


def encrypted() -> bytes:
    """An archive whose members say that they are encrypted."""
    content = bytearray(put_together(META, PICTURES))
    at = content.index(b"PK\1\2")
    content[at + 8] |= 1
    return bytes(content)


def stretched() -> bytes:
    """A picture of 8 x 4 whose frame says it has the largest size."""
    content = bytearray(picture(8, 4, icc_profile=b"x" * 100))
    content[24:30] = b"\xff\x3f\0" * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "archive: expected a zip archive"),
        (put_together(META, PICTURES)[:-40], "archive: expected a zip archive"),
        (put_together(META, {str(i): b"" for i in range(70)}), "archive: expected at most 64 members"),
        (put_together(META, PICTURES, zipfile.ZIP_LZMA), "'meta.json': expected a member that is stored or deflated"),
        (encrypted(), "'meta.json': expected a member that is stored or deflated"),
        (put_together(b"x" * 10**7, PICTURES, zipfile.ZIP_DEFLATED), "'meta.json': expected at most 1,000,000 bytes"),
        (put_together(b"[" * 10**5, PICTURES), "meta.json: expected JSON"),
        (put_together(b'{"version": 2, "count": NaN}', PICTURES), "meta.json: expected JSON"),
        (put_together([META], PICTURES), "meta.json: expected an object"),
        (put_together(changed(version=3), PICTURES), "meta.json, version: expected 2, or none for version 1, got 3"),
        (put_together(changed(count=24.0), PICTURES), "meta.json, count: expected a whole number, got 24.0"),
        (
            put_together(changed(count=10**9), PICTURES),
            "number of Gaussians: expected 1 to 262,144 Gaussians in a file",
        ),
        (put_together(changed(count=100), PICTURES), "sh0.webp: expected at least 100 pixels, got 32"),
        (put_together(changed(means=None), PICTURES), "meta.json, means: expected an object, got None"),
        (
            put_together(changed("means", mins=[0, 0]), PICTURES),
            "meta.json, means, mins: expected 3 numbers, got [0, 0]",
        ),
        (put_together(changed("means", maxs=[0, 0, 10**4]), PICTURES), "means: expected finite numbers, got"),
        (put_together(changed("scales", codebook=[1e300] * 256), PICTURES), "scales: expected finite numbers, got"),
        (put_together(changed("means", files=["a"]), PICTURES), "meta.json, means, files: expected 2 names of files"),
        (put_together(changed("quats", files=["../a"]), PICTURES), "archive: expected a member '../a', got none"),
        (put_together(changed("scales", codebook=[1.0]), PICTURES), "scales, codebook: expected at least"),
        (
            put_together(changed("scales", codebook=[1.0] * 257), PICTURES),
            "scales, codebook: expected 1 to 256 numbers",
        ),
        (
            put_together(changed("shN", bands=2), PICTURES),
            "shN, bands: expected the degree that shN_centroids.webp has",
        ),
        (put_together(changed(antialias=1), PICTURES), "meta.json, antialias: expected true or false, got 1"),
        (
            put_together(changed("means", OLD_META, shape=[]), OLD_PICTURES),
            "means, shape: expected whole numbers, got []",
        ),
        (put_together(changed("sh0", OLD_META, mins=[0] * 3), OLD_PICTURES), "sh0, mins: expected 4 numbers"),
        (
            with_picture(means_l=b"x" * 40),
            "means_l.webp: expected a WebP picture, got 40 bytes that begin with b'xxxx'",
        ),
        (
            with_picture(scales=PICTURES["scales.webp"][:-20]),
            "scales.webp: expected a WebP picture, got one that cannot",
        ),
        (
            with_picture(sh0=picture(16383, 16383)),
            "expected a picture of at most 4,192 pixels, got one of 16,383 x 16,383",
        ),
        (
            with_picture(sh0=stretched()),
            "sh0.webp: expected a picture of at most 4,192 pixels, got one of 16,384 x 16,384",
        ),
        (with_picture(sh0=moving()), "sh0.webp: expected a single picture, got an animation"),
        (with_picture(quats=picture(8, 4, value=251)), "quats: expected which component is the largest as 252 to 255"),
        (
            with_picture(shN_labels=picture(8, 4)),
            "shN, labels: expected indices below 64, the entries of shN_centroids",
        ),
        (with_picture(shN_centroids=picture(961, 1)), "expected a width of 192, 512, 960, for degree 1 to 3, got 961"),
        (with_picture(shN_centroids=picture(960, 1100)), "at most 983,040 pixels"),
    ],
    ids=range(34),
)
def test_files_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    """A picture of 268 million pixels takes 300 bytes in a file; JSON may nest without end; names of members may lead
    out of a folder. Each is one line, before anything is taken for it."""
    path = tmp_path / "a.sog"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_splats(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_a_member_that_says_it_is_smaller_than_it_is() -> None:
    """The table of an archive says what its maker wanted; what follows it must be cut off, or refused."""
    content = bytearray(
        put_together(changed("quats", files=["a"]), {**PICTURES, "a": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    )
    struct.pack_into("<I", content, content.rindex(b"PK\1\2") + 24, 40)
    with pytest.raises(FileFormatError, match=r"a'?: expected a"):
        decode_sog(bytes(content))
