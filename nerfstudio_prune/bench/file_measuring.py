"""Stores a finished run in every form of its job, and measures what is read back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.bench.file_jobs import FileRun, SplatFileRun, TinyFileRun
from nerfstudio_prune.data.view_quality import decibels, quality_of
from nerfstudio_prune.records.file_schema import FileRecord, FileUnit, StoredForm
from nerfstudio_prune.records.schema import Clock, Quality, ViewQuality

AnyFileRun = FileRun | TinyFileRun | SplatFileRun
Picture = Float[Tensor, "height width 3"]
Show = Callable[[Cameras], Picture]
"""A view -> what is shown of it, in [0, 1]."""


@dataclass(frozen=True, eq=False)
class TrueView:
    """A test view, on the device of what is measured."""

    index: int
    """Its index among the test views."""
    camera: Cameras
    truth: Picture
    pixels: Optional[Bool[Tensor, "height width"]]
    """The pixels that count. None: all."""


@dataclass(frozen=True)
class Written:
    """A file that was written."""

    path: Path
    options: Mapping[str, Any]
    """Of the command that writes such a file."""
    seconds: float
    """To make it, with what several files have in common."""


class OpenedRun(Protocol):
    """A finished run that can be stored."""

    unit: FileUnit
    units: int
    """How many of them it has."""
    plain_bytes: int
    """Of all of its numbers as float32."""
    checkpoint: Path
    clock: Clock
    """What seconds are told by."""
    views: Sequence[TrueView]
    """Test views to be measured on."""

    def show(self, camera: Cameras) -> Picture:
        """What the checkpoint shows of a view."""
        ...

    def write(self, label: str, folder: Path) -> Written:
        """Writes a file of one form, as the user's command does."""
        ...

    def read(self, path: Path) -> Show:
        """Reads a file as a user does."""
        ...


def measure_files(
    job: AnyFileRun,
    opened: OpenedRun,
    folder: Path,
    said: Mapping[str, Any],
    advance: Callable[[float], None] = lambda done: None,
) -> FileRecord:
    """Writes a file of each form, reads it back and renders test views with it, empty space included.

    Args:
        job: What to store.
        opened: The run.
        folder: Folder of the benchmark; the files stay in its work folder.
        said: What the record says of where the run comes from, by field.
        advance: Is told which share is done, in [0, 1].
    """
    torch.set_float32_matmul_precision("highest")
    checkpoint, own = _measured(opened.views, opened.show)
    forms = []
    for i, label in enumerate(job.labels, 1):
        advance(i / (len(job.labels) + 1))
        written = opened.write(label, folder / "work" / "files" / job.name)
        quality, shown = _measured(opened.views, opened.read(written.path))
        size = written.path.stat().st_size
        forms.append(StoredForm(label, dict(written.options), size, quality, _agreement(shown, own), written.seconds))
    return FileRecord(
        **said,
        arm=job.arm,
        role=job.role,
        run=job.run,
        unit=opened.unit,
        units=opened.units,
        plain_bytes=opened.plain_bytes,
        checkpoint_bytes=opened.checkpoint.stat().st_size,
        checkpoint=checkpoint,
        forms=forms,
        clock=opened.clock,
    )


@torch.no_grad()
def _measured(views: Sequence[TrueView], show: Show) -> tuple[Quality, list[Picture]]:
    found, pictures = [], []
    for view in views:
        pictures.append(show(view.camera))
        quality = quality_of(pictures[-1], view.truth, view.pixels)
        if quality.ssim is None:
            height, width, _ = view.truth.shape
            raise ValueError(f"test view {view.index}: too small for SSIM, got {width} x {height} pixels")
        found.append(ViewQuality(view.index, quality.psnr, quality.ssim))
    return Quality.of(found), pictures


def _agreement(shown: Sequence[Picture], own: Sequence[Picture]) -> Optional[float]:
    """PSNR between pictures, in dB; None if they are equal."""
    squares = sum(float((a - b).double().square().sum()) for a, b in zip(shown, own, strict=True))
    return decibels(squares / sum(picture.numel() for picture in own)) if squares else None


def files_in_words(record: FileRecord) -> str:
    """What came out, in a few words.

    Args:
        record: Files of a run.
    """
    sizes = [f"{form.label} {form.bytes / 1e3:,.0f} kB {form.quality.psnr:.2f}" for form in record.forms]
    return f"checkpoint {record.checkpoint.psnr:.2f} dB; {', '.join(sizes)} dB"
