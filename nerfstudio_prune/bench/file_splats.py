"""Finished Gaussians as files of `ns-prune pack` and `ns-prune convert`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional

import torch
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_prune.bench.file_jobs import CONVERTED, PACKED, SPLAT_FORMS
from nerfstudio_prune.bench.file_measuring import Picture, Show, TrueView, Written
from nerfstudio_prune.bench.machine import clock_of
from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.engine.saved_run import read_config
from nerfstudio_prune.gaussians.budget import uncompressed_bytes
from nerfstudio_prune.pack.command import Pack
from nerfstudio_prune.pack.contents import content_of, stored_gaussians
from nerfstudio_prune.pack.quality import packed_model, picture_of, truth_of
from nerfstudio_prune.pack.run_views import RunViews
from nerfstudio_prune.records.file_schema import FileUnit
from nerfstudio_prune.records.schema import Clock
from nerfstudio_prune.splat_files.formats import read_splats, write_splats
from nerfstudio_prune.splat_files.packed_container import SUFFIX
from nerfstudio_prune.splats.saved_run import load_run

WHOLE, *OTHERS = CONVERTED
"""The form that holds all numbers as they are, and those that `ns-prune convert` makes of it."""


class SplatFiles:
    """Gaussians.

    Args:
        config: The run's config.yml.
        wanted: Test views to be measured on, evenly spaced; None: all.
    """

    unit: FileUnit = "Gaussians"

    def __init__(self, config: Path, wanted: Optional[int]) -> None:
        self.run = load_run(read_config(config), config)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self.run.model.to(device)
        self._of_run = RunViews(self.run.config, None, device)
        self._of_run.set_behind(model)
        self.model = model.with_gaussians(model.gaussians)
        self.units, self.checkpoint = len(model.gaussians), self.run.checkpoint
        self.plain_bytes = uncompressed_bytes(self.units, model.gaussians.sh_degree)
        clock, self._now = clock_of(device)
        self.clock: Clock = clock
        self.views: Sequence[TrueView] = [
            TrueView(photo.index, photo.camera, truth_of(model, photo), photo.pixels)
            for photo in self._of_run.photos("eval", wanted)
        ]

    def show(self, camera: Cameras) -> Picture:
        """What the checkpoint shows of a view."""
        return picture_of(self.model, camera)

    def write(self, label: str, folder: Path) -> Written:
        """Writes a file of one form; the whole one stands before those that are made of it."""
        begin = self._now()
        path = _WRITERS[label](self, label, folder)
        return Written(path, SPLAT_FORMS[label], self._now() - begin)

    def read(self, path: Path) -> Show:
        """Reads a file."""
        shown = packed_model(self.model, read_splats(path).gaussians)
        return lambda camera: picture_of(shown, camera)

    def _export(self, label: str, folder: Path) -> Path:
        path = folder / f"splat{label}"
        write_splats(path, stored_gaussians(self.run))
        return path

    def _convert(self, label: str, folder: Path) -> Path:
        path = folder / f"splat{label}"
        write_splats(path, read_splats(folder / f"splat{WHOLE}"))
        return path

    def _pack(self, label: str, folder: Path) -> Path:
        path = folder / f"{label}{SUFFIX}"
        write_file(path, content_of(self.run, Pack(self.run.config_file, path, **PACKED[label]), self._of_run))
        return path


_WRITERS: Mapping[str, Callable[[SplatFiles, str, Path], Path]] = {
    WHOLE: SplatFiles._export,
    **dict.fromkeys(OTHERS, SplatFiles._convert),
    **dict.fromkeys(PACKED, SplatFiles._pack),
}
"""Label -> what writes such a file."""
