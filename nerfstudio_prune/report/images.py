"""Renderings beside each other: truth, prediction, error map and an enlarged crop."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import matplotlib as mpl
import numpy as np
from PIL import Image

from nerfstudio_prune.records.schema import RecordError, RunRecord
from nerfstudio_prune.report.markup import code, table
from nerfstudio_prune.report.stats import NOTHING, number
from nerfstudio_prune.report.study import Arm, Entry, Study

TRUTH = "truth"
ERROR_SCALE = 0.5
"""Mean absolute error of the colours that the last colour of the map stands for."""
ERROR_COLOURS = "inferno"
SHOWN_WIDTH = 160
"""Pixels of a picture on the page."""
STORED_WIDTH = 260
"""Larger pictures are reduced to it, so that a page stays small; crops are not."""
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
    """Stage -> [height, width, 3] in [0, 1]."""
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
        stem = f"{study.slug}-{row.run.name}"
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
        if Path(name).is_absolute() or not path.resolve().is_relative_to(entry.root.resolve()):
            raise RecordError(f"{entry.path}: picture {name!r} lies outside of the folder of the records")
        if path.is_file():
            try:
                with Image.open(path) as image:
                    yield stage, np.asarray(image.convert("RGB"), dtype=np.float64) / 255
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                raise RecordError(f"{path}: cannot be read as a picture: {error}") from error


def error_map(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the three colours as a colour, [height, width, 3] in [0, 1]."""
    error = np.abs(picture - truth).mean(axis=-1)
    return np.asarray(mpl.colormaps[ERROR_COLOURS](np.clip(error / ERROR_SCALE, 0, 1)))[..., :3]


def _crop(rows: list[_Row]) -> tuple[slice, slice]:
    """The window with the largest mean error over all networks: where they have something to show."""
    shape = rows[0].pictures[TRUTH].shape
    pictures = [row.pictures for row in rows if "end" in row.pictures and row.pictures[TRUTH].shape == shape]
    error = sum((np.abs(p["end"] - p[TRUTH]).mean(axis=-1) for p in pictures), np.zeros(shape[:2]))
    height, width = (max(4, round(CROP * size)) for size in shape[:2])
    height, width = min(height, shape[0]), min(width, shape[1])
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def _links(pictures: dict[str, Optional[np.ndarray]], stem: str, files: dict[str, bytes]) -> list[str]:
    """Adds pictures to the files and gives what shows them."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in stem)
    cells = []
    for label, picture in pictures.items():
        if picture is None or 0 in picture.shape:
            cells.append(NOTHING)
            continue
        name = f"{safe}-{label.replace(' ', '-')}.png"
        while name in files:
            name = f"other-{name}"
        files[name] = png(picture)
        cells.append(f'<img src="images/{name}" alt="{label}" width="{SHOWN_WIDTH}">')
    return cells


def png(picture: np.ndarray) -> bytes:
    """An image with values in [0, 1] as PNG, reduced if it is large."""
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    if image.width > STORED_WIDTH:
        image = image.resize((STORED_WIDTH, round(image.height * STORED_WIDTH / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
