"""One look at the headers of all pictures before training: what the host would refuse late, or train wrongly."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.markup import escape
from rich.table import Table

from nerfstudio_prune.data.folders import NAMES, first_names
from nerfstudio_prune.data.pixels import THREADS

ORIENTATION, UPRIGHT = 0x0112, 1
"""EXIF tag, and its value for a picture that is shown as it is stored; 5 to 8 are turned by a quarter."""
END = {"JPEG": (b"\xff\xd9", 65536), "MPO": (b"\xff\xd9", 65536), "PNG": (b"IEND", 65536)}
"""Format -> what the end of a whole file holds, and within how many bytes: cameras append data of their own."""
MODES = ("L", "RGB", "RGBA")
"""Pillow's modes that the host trains as what they show."""
MISREAD = {
    "P": "palette: its indices would be trained as grey",
    "CMYK": "its inks would be trained as RGB and opacity",
    "1": "its white would be trained as 1 of 255",
    "LA": "grey with opacity: cannot be loaded",
    "PA": "palette with opacity: cannot be loaded",
    "I;16": "16 bit grey: its upper bits would be lost",
}
"""What the host makes of other modes."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file say."""

    width: int
    height: int
    mode: str
    orientation: int
    channels: int


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file."""

    kind: str
    """What is wrong, the same words for every file."""
    advice: str
    """What to do about it."""
    path: Path
    found: str
    """What was found and expected in this file; may be empty."""

    @property
    def text(self) -> str:
        """File and finding."""
        return f"{self.path} ({self.found})" if self.found else str(self.path)


CONVERT = "convert to 8 bit RGB: mogrify -colorspace sRGB -depth 8 -type TrueColor FILE"
COPY = "copy the file again, or take its frame out of the data set"


def check_pictures(datasets: Sequence[InputDataset]) -> None:
    """Refuses pictures and masks that do not fit their cameras or would be misread; prints a table of them.

    Reads headers, and the whole of a file only if its end is not where it should be.

    Args:
        datasets: Views of all uses; one view may have several.

    Raises:
        ValueError: If there are such files. Names them, what was found, what was expected and what to do.
    """
    paths = {path for dataset in datasets for path in _files(dataset)}
    with ThreadPoolExecutor(THREADS) as pool:
        looks = dict(zip(paths, pool.map(look, paths), strict=True))
    # A view may be used for training and evaluation both; its faults count once.
    faults = list(dict.fromkeys(f for dataset in datasets for f in _faults(dataset, looks)))
    _tell_turned([header for header in looks.values() if isinstance(header, Header)], faults)
    if not faults:
        return
    counts = Counter(fault.kind for fault in faults)
    by_kind = {kind: [fault for fault in faults if fault.kind == kind] for kind in counts}
    CONSOLE.print(_table(by_kind))
    lines = [
        f"{kind}: {first_names([fault.text for fault in some])}. What to do: {some[0].advice}"
        for kind, some in by_kind.items()
    ]
    wrong = len({fault.path for fault in faults})
    raise ValueError(f"{wrong} of {len(paths)} pictures cannot be trained as they are.\n" + "\n".join(lines))


def look(path: Path) -> Header | Fault:
    """Reads the header of a picture.

    Args:
        path: The file.
    """
    try:
        if not path.exists():
            return Fault("not there", _advice_on_missing(path), path, "")
        if not path.is_file():  # opening a pipe would wait for ever
            return Fault("not a file", COPY, path, "a folder" if path.is_dir() else "")
        with Image.open(path) as image:
            width, height = image.size
            header = Header(width, height, image.mode, _orientation(image), len(image.getbands()))
            if not _ends(path, image.format or ""):
                image.load()
    except Image.UnidentifiedImageError:
        return Fault("no picture that Pillow can read", "convert it: mogrify -format png FILE", path, _size(path))
    except Exception as error:  # Pillow's plugins raise what comes up; the host would meet the same
        return Fault("cannot be read", COPY, path, str(error))
    return header


def _advice_on_missing(path: Path) -> str:
    """Smaller copies lie in folders of their own, which a parser may take for granted."""
    if path.parent.exists() or "_" not in path.parent.name:
        return COPY
    return f"make {path.parent} with ns-process-data, or give --downscale-factor 1 behind the parser's name"


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation of a picture; upright where it cannot be read, for the host does not look at it."""
    if "exif" not in image.info:
        return UPRIGHT  # Pillow would decode the picture to look for it
    try:
        value = image.getexif().get(ORIENTATION, UPRIGHT)
    except Exception:  # damaged EXIF data does no harm to the picture
        return UPRIGHT
    return value if isinstance(value, int) else UPRIGHT


def _ends(path: Path, image_format: str) -> bool:
    """Whether a file ends as its format wants it; True where the format has no such end."""
    if image_format not in END:
        return True
    mark, within = END[image_format]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - within))
        return mark in file.read()


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes, {path.suffix or 'no suffix'}"


def _files(dataset: InputDataset) -> list[Path]:
    outputs = dataset._dataparser_outputs
    return [Path(path) for path in (*outputs.image_filenames, *(outputs.mask_filenames or ()))]


def _faults(dataset: InputDataset, looks: Mapping[Path, Header | Fault]) -> Iterator[Fault]:
    """Faults of the views of one data set."""
    outputs = dataset._dataparser_outputs
    cameras = getattr(dataset, "stored_cameras", dataset.cameras)  # others where distortion is taken out on loading
    pictures = [Path(path) for path in outputs.image_filenames]
    masks: Sequence[Optional[Path]] = [Path(p) for p in outputs.mask_filenames or ()] or [None] * len(pictures)
    headers: dict[Path, Header] = {}
    for path, mask, height, width in zip(
        pictures, masks, cameras.height.flatten().tolist(), cameras.width.flatten().tolist(), strict=True
    ):
        seen = looks[path]
        if isinstance(seen, Fault):
            yield seen
        else:
            headers[path] = seen
            if seen.mode not in MODES:
                found = f"mode {seen.mode}; expected {', '.join(MODES)}"
                yield Fault(f"mode {seen.mode}: {MISREAD.get(seen.mode, 'would be misread')}", CONVERT, path, found)
            fault = _wrong_size(path, seen, width, height, dataset.scale_factor)
            if fault is not None:
                yield fault
        if mask is not None:
            yield from _mask_faults(mask, looks[mask], seen)
    yield from _mixture(dataset, headers)


def _wrong_size(path: Path, seen: Header, width: int, height: int, scale: float) -> Optional[Fault]:
    size = (int(seen.width * scale), int(seen.height * scale)) if scale != 1.0 else (seen.width, seen.height)
    if size == (width, height) and min(size) > 0:
        return None
    found = f"picture {size[0]}x{size[1]}, camera {width}x{height}"
    if min(size) < 1:
        kind = f"without a pixel at camera_res_scale_factor {scale:g}"
        return Fault(kind, "give a larger --pipeline.datamanager.camera-res-scale-factor", path, found)
    if seen.orientation in (5, 6, 7, 8) and size[::-1] == (width, height):
        kind, advice = (
            "stored lying, turned upright by EXIF only",
            "turn the pixels themselves: mogrify -auto-orient FILE",
        )
        return Fault(kind, advice, path, f"{found}, EXIF orientation {seen.orientation}")
    advice = (
        f"bring the picture to its camera's size, mogrify -resize {width}x{height}! FILE, or correct the camera's "
        "width, height, focal lengths and centre in the data set"
    )
    return Fault("of another size than its camera", advice, path, found)


def _mask_faults(path: Path, seen: Header | Fault, picture: Header | Fault) -> Iterator[Fault]:
    if isinstance(seen, Fault):
        yield Fault(f"mask {seen.kind}", seen.advice, path, seen.found)
        return
    if seen.channels != 1:
        found = f"mode {seen.mode}, {seen.channels} channels; expected one"
        advice = "convert to grey, white where pixels count: mogrify -alpha off -colorspace gray -depth 8 FILE"
        yield Fault("mask with more than one channel", advice, path, found)
    if isinstance(picture, Header) and (seen.width, seen.height) != (picture.width, picture.height):
        found = f"mask {seen.width}x{seen.height}, picture {picture.width}x{picture.height}"
        yield Fault("mask of another size than its picture", "make the mask anew from its picture", path, found)


def _mixture(dataset: InputDataset, headers: Mapping[Path, Header]) -> Iterator[Fault]:
    """Pictures of the rarer kind, where some have opacity and some have not and the host needs all alike."""
    if dataset._dataparser_outputs.alpha_color is not None:
        return  # opacity is blended away on loading
    kinds = [[path for path, seen in headers.items() if seen.mode in modes] for modes in (("RGBA",), ("L", "RGB"))]
    if all(kinds):
        rarer = min(kinds, key=len)
        for path in rarer:
            found = f"mode {headers[path].mode}, {len(kinds[0])} with and {len(kinds[1])} without"
            advice = "make all alike: mogrify -background white -alpha remove -alpha off FILE"
            yield Fault("some pictures with opacity and some without", advice, path, found)


def _tell_turned(headers: Sequence[Header], faults: Sequence[Fault]) -> None:
    """Says once that EXIF turns pictures that fit their cameras as they are stored: both may be meant."""
    told = sum("EXIF" in fault.kind for fault in faults)
    turned = sum(2 <= header.orientation <= 8 for header in headers) - told
    if turned > 0:
        CONSOLE.print(
            f"[yellow]{turned} pictures are to be turned by their EXIF data, which Nerfstudio does not do. They have "
            "the size of their cameras and are trained as they are stored; that is right if the cameras were found "
            "on them like that. If not: mogrify -auto-orient FILE, and find the cameras again."
        )


def _table(by_kind: Mapping[str, Sequence[Fault]]) -> Table:
    table = Table(title="Pictures that cannot be trained as they are", title_justify="left", show_lines=True)
    for name in ("what is wrong", "files", "what to do"):
        table.add_column(name, overflow="fold")
    for kind, some in by_kind.items():
        names = [f"{fault.path.parent.name}/{fault.path.name} {fault.found}".rstrip() for fault in some[:NAMES]]
        more = [f"and {len(some) - NAMES} more"] if len(some) > NAMES else []
        table.add_row(escape(kind), escape("\n".join([*names, *more])), escape(some[0].advice))
    return table
