"""Files of odd kinds and sizes in the places that `ns-prune report` reads and writes; a refused report changes nothing.

python tests/stress/special_files.py --count 10000
"""

import os
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from PIL import Image
from support.fuzz import HALF, TAKEN, main
from support.record_factory import dense, run, save

from nerfstudio_prune.report import document
from nerfstudio_prune.report.command import Report
from nerfstudio_prune.report.images import gallery
from nerfstudio_prune.report.study import Study

README = "# Title\n\n<!-- ns-prune report: claims begin -->\nold\n<!-- ns-prune report: claims end -->\n"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**12)


def large_picture(path: Path) -> None:
    path.write_bytes(picture_of_gigabytes())


@cache
def picture_of_gigabytes() -> bytes:
    """Some kilobytes that take gigabytes as numbers."""
    buffer = BytesIO()
    Image.new("1", (13_000, 13_000)).save(buffer, format="PNG")
    return buffer.getvalue()


def odd_picture(mode: str, size: tuple[int, int], kind: str = "PNG") -> Callable[[Path], None]:
    return lambda path: Image.new(mode, size).save(path, format=kind)


MAKERS: tuple[Callable[[Path], Any], ...] = (
    *(pipe, unix_socket, sparse, large_picture, Path.mkdir, lambda path: path.unlink(missing_ok=True)),
    *(
        (lambda path, to=to: path.symlink_to(to))
        for to in ("/dev/zero", "/dev/null", "nowhere", "/etc", "/proc/self/mem")
    ),
    *(
        (lambda path, c=c: path.write_bytes(c))
        for c in (b"", b"\0" * 100, b"\xff\xfe", b"\x89PNG\r\n\x1a\n", b"[" * 10**5)
    ),
    lambda path: path.symlink_to(path.name),
    *(
        odd_picture("I;16", (64, 48)),
        odd_picture("P", (64, 48)),
        odd_picture("RGBA", (64, 48)),
        odd_picture("L", (1, 1)),
    ),
    *(odd_picture("CMYK", (64, 48), "JPEG"), odd_picture("RGB", (64, 48), "GIF"), odd_picture("L", (4000, 3))),
)
"""Makers of what takes the place of a file."""
READ = (
    *("records/runs/dense-s1.json", "records/runs/other.json", "records/runs", "records/speed", "records"),
    *("records/images/truth.png", "records/images/dense-s1/end.png", "README.md"),
)
WRITTEN = ("out", "out/report.md", "out/index.html", "out/images", "out/images/x.png", "out/.part-x")


@cache
def drawn_from() -> tempfile.TemporaryDirectory[str]:
    """A folder that every trial begins with; it goes when the process ends."""
    made = tempfile.TemporaryDirectory(prefix="special-files-")
    folder = Path(made.name)
    save([dense(), run()], folder / "records", images=True)
    (folder / "README.md").write_text(README)
    return made


def content(folder: Path) -> dict[str, Any]:
    """Every regular file below a folder, the large ones by their size."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): path.stat().st_size if path.stat().st_size > 10**7 else path.read_bytes() for path in files}


def pictures_only(studies: Sequence[Study], *others: Sequence[Any]) -> dict[str, bytes]:
    """A report without tables and plots."""
    galleries = [made for study in studies if (made := gallery(study)) is not None]
    images = {f"images/{name}": content for made in galleries for name, content in made.files.items()}
    return {**images, "images/x.png": b"", "report.md": b"new", "index.html": b"new"}


def trial(rng: random.Random) -> str:
    """Puts something into one of the places and makes a report."""
    # Plots and the page take seconds, and read no files.
    inner, document.render = document.render, pictures_only
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        folder = Path(name)
        shutil.copytree(drawn_from().name, folder, dirs_exist_ok=True)
        for _ in range(rng.choice((1, 1, 2))):
            place = folder / rng.choice((*READ, *WRITTEN))
            if any(parent.exists() and not parent.is_dir() for parent in place.parents):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            rng.choice(MAKERS)(place)
        before = content(folder)
        try:
            Report(folder / "records", folder / "out", (folder / "README.md",)).main()
        except Exception:
            if content(folder) != before:
                return HALF
            raise
        finally:
            document.render = inner
    return TAKEN


if __name__ == "__main__":
    main(trial, __doc__)
