"""Renderings beside each other: truth, prediction, error map and an enlarged crop."""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import matplotlib as mpl
import numpy as np
from PIL import Image

from nerfstudio_prune.core.files import check_file
from nerfstudio_prune.records.schema import RecordError, RunRecord
from nerfstudio_prune.report.markup import code, table
from nerfstudio_prune.report.stats import NOTHING, number
from nerfstudio_prune.report.study import Arm, Entry, Study, file_name

TRUTH = "truth"
ERROR_SCALE = 0.5
"""Mean absolute error of the colours that the last colour of the map stands for."""
ERROR_COLOURS = "inferno"
SHOWN_WIDTH = 160
"""Pixels of a picture on the page."""
STORED_WIDTH = 260
"""Larger pictures are reduced to it, so that a page stays small; crops are not."""
READ_WIDTH = 2048
"""Still larger ones are reduced when they are read."""
MAX_PIXELS = 16_000_000
"""More are no rendering of a view; four megabytes of a file can hold a thousand times as many."""
MAX_BYTES = 64_000_000
CROP = 0.3
"""Height and width of the crop as a share of the view's."""
ROLES = ("dense", "pruned", "masked", "small")
HEADERS = ("arm, PSNR of this view", "right after", "end", "error at the end", "enlarged")


@dataclass
class Gallery:
    """A table of pictures and the files that it needs."""

    text: str
    """Markdown."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Name below `images/` -> PNG."""


@dataclass
class _Row:
    arm: Arm
    run: RunRecord
    pictures: dict[str, np.ndarray]
    """Stage -> [height, width, 3], bytes: a page may need very many pictures at once."""
    psnr: Optional[float]
    """Of this view at the end, in dB."""


def gallery(study: Study) -> Optional[Gallery]:
    """Pictures of the lowest seed; None if no picture is there.

    Raises:
        RecordError: If a picture that is there cannot be read, or does not fit the truth; names the files.
    """
    rows = [row for arm in study.arms if arm.first.role in ROLES and (row := _row(arm)) is not None]
    if not rows:
        return None
    crop = _crop(rows)
    result = Gallery("")
    cells: list[list[str]] = []
    shown: Optional[np.ndarray] = None
    truths = 0
    for row in rows:
        truth = row.pictures[TRUTH]
        if shown is None or not np.array_equal(shown, truth):
            # Another view than that of the rows above.
            shown, truths = truth, truths + 1
            pictures = {"truth": truth, "truth enlarged": truth[crop]}
            whole, enlarged = _links(pictures, f"{study.slug}-{truths}", result.files)
            cells.append(["truth", NOTHING, whole, NOTHING, enlarged])
        quality = "" if row.psnr is None else f", {number(row.psnr, 2)} dB"
        end = row.pictures.get("end")
        pictures = {
            "right after": row.pictures.get("right after"),
            "end": end,
            "error": None if end is None else error_map(end, truth),
            "end enlarged": None if end is None else end[crop],
        }
        stem = f"{study.slug}-{file_name(row.run.name, row.run.name)}"
        cells.append([code(row.arm.name) + quality, *_links(pictures, stem, result.files)])
    result.text = table(HEADERS, cells, text_columns=len(HEADERS))
    return result


def _row(arm: Arm) -> Optional[_Row]:
    entry = arm.entries[0]
    for view, names in entry.record.images.items():
        pictures = dict(_pictures(entry, names))
        if TRUTH in pictures and len(pictures) > 1:
            for name, picture in pictures.items():
                if picture.shape != pictures[TRUTH].shape:
                    raise RecordError(f"{entry.path}: picture {names[name]} has another size than the truth")
            psnr = {str(quality.view): quality.psnr for quality in entry.record.end.quality.views}.get(view)
            return _Row(arm, entry.record, pictures, psnr)
    return None


def _pictures(entry: Entry, names: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    for stage, name in names.items():
        path = entry.root / name
        # A record of someone else must not be able to put other files into the report.
        if Path(name).is_absolute() or not _is_inside(path, entry.root):
            raise RecordError(f"{entry.path}: picture {name!r} lies outside of the folder of the records")
        if path.is_file():
            try:
                yield stage, read_picture(path)
            except Exception as error:  # decoders of broken pictures raise anything
                raise RecordError(f"{path}: cannot be read as a picture: {error}") from error


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links that go round, or a name that cannot be one
        return False


def read_picture(path: Path) -> np.ndarray:
    """Reads a rendering; a very large one is reduced, which a page could not show either.

    Args:
        path: A PNG or JPEG file.

    Returns:
        Bytes, [height, width, 3].

    Raises:
        OSError: If it cannot be read, or is too large.
        ValueError: If it has too many pixels. Decoders may raise anything else for a broken one.
    """
    check_file(path, MAX_BYTES)
    # Other formats run other programs, or hold many pictures. Opening reads the header only.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=("PNG", "JPEG"))
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,}")
        picture = image.convert("RGB")
    if picture.width > READ_WIDTH:
        height = max(1, round(picture.height * READ_WIDTH / picture.width))
        picture = picture.resize((READ_WIDTH, height), Image.Resampling.BOX)
    return np.asarray(picture)


def _error(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the three colours, of 1."""
    return np.abs(picture / 255 - truth / 255).mean(axis=-1)


def error_map(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the three colours as a colour, bytes, [height, width, 3]."""
    error = _error(picture, truth)
    colours = np.asarray(mpl.colormaps[ERROR_COLOURS](np.clip(error / ERROR_SCALE, 0, 1)))[..., :3]
    return (colours * 255).round().astype(np.uint8)


def _crop(rows: list[_Row]) -> tuple[slice, slice]:
    """The window with the largest mean error over all networks: where they have something to show."""
    shape = rows[0].pictures[TRUTH].shape
    pictures = [row.pictures for row in rows if "end" in row.pictures and row.pictures[TRUTH].shape == shape]
    error = sum((_error(p["end"], p[TRUTH]) for p in pictures), np.zeros(shape[:2]))
    height, width = (max(4, round(CROP * size)) for size in shape[:2])
    height, width = min(height, shape[0]), min(width, shape[1])
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def _links(pictures: dict[str, Optional[np.ndarray]], stem: str, files: dict[str, bytes]) -> list[str]:
    """Adds pictures to the files and gives what shows them."""
    cells = []
    for label, picture in pictures.items():
        if picture is None or 0 in picture.shape:
            cells.append(NOTHING)
            continue
        name = f"{stem}-{label.replace(' ', '-')}.png"
        while name in files:
            name = f"other-{name}"
        files[name] = png(picture)
        cells.append(f'<img src="images/{name}" alt="{label}" width="{SHOWN_WIDTH}">')
    return cells


def png(picture: np.ndarray) -> bytes:
    """An image of bytes as PNG, reduced if it is large."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.width > STORED_WIDTH:
        image = image.resize((STORED_WIDTH, round(image.height * STORED_WIDTH / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
