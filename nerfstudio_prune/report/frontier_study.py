"""Finished runs of all kinds beside each other, with their files: one scene, scale, device and schedule of networks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Optional

from nerfstudio_prune.records.file_schema import FileUnit
from nerfstudio_prune.records.files import FRONTIER_FOLDERS, read_record, record_files
from nerfstudio_prune.records.frontier_schema import Family, FrontierArm, FrontierRecord
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.file_study import FileStudy
from nerfstudio_prune.report.splat_study import LARGEST
from nerfstudio_prune.report.stats import Stat

UNITS: Mapping[Family, FileUnit] = {
    "stock": "parameters",
    "network": "parameters",
    "tiny networks": "parameters",
    "Gaussians": "Gaussians",
}
"""What a run of a family is made of."""


@dataclass(frozen=True)
class FrontierRow:
    """A run over the seeds."""

    label: str
    family: Family
    arms: Sequence[FrontierArm]
    """By seed."""

    @property
    def title(self) -> str:
        """What it is, for readers who do not see the family."""
        return f"NeRF, {self.label}" if self.family == "network" else self.label

    def stat(self, value: Callable[[FrontierArm], Optional[float]]) -> Stat:
        """A quantity over the seeds."""
        return Stat.of(value(arm) for arm in self.arms)

    @property
    def psnr(self) -> Stat:
        """On test views, in dB."""
        return self.stat(lambda arm: None if arm.quality is None else arm.quality.psnr)

    @property
    def frame(self) -> Stat:
        """Seconds of a picture, medians of the rounds."""
        return self.stat(lambda arm: median(arm.frame_seconds))

    @property
    def train(self) -> Stat:
        """Seconds of the training."""
        return self.stat(lambda arm: arm.train_seconds)


@dataclass(frozen=True)
class FilePoint:
    """One form of a run as a file, over the seeds."""

    row: FrontierRow
    label: str
    bytes: Stat
    psnr: Stat
    loss: Stat
    """Of PSNR against the run's own checkpoint, seed by seed, in dB; below 0 it shows less."""


@dataclass
class FrontierStudy:
    """What may be compared."""

    scene: str
    scale: str
    device: str
    schedule: str
    """How networks were trained."""
    records: list[FrontierRecord] = field(default_factory=list)
    """By seed."""

    @property
    def title(self) -> str:
        """For headings and captions."""
        return ", ".join((self.scene, f"scale {self.scale}", f"networks: {self.schedule}", self.device))

    def rows(self) -> list[FrontierRow]:
        """Every run, the host's model first."""
        arms: dict[str, list[FrontierArm]] = {}
        for record in self.records:
            for arm in record.arms:
                arms.setdefault(arm.label, []).append(arm)
        return [FrontierRow(label, found[0].family, found) for label, found in arms.items()]

    def files(self, studies: Sequence[FileStudy]) -> Iterator[FilePoint]:
        """What of these runs was stored.

        Args:
            studies: Files of all kinds.
        """
        own = [study for study in studies if self._has(study)]
        for row in self.rows():
            unit = UNITS[row.family]
            runs = {arm.run for arm in row.arms if arm.run is not None}
            arms = [arm for study in own if study.unit == unit for arm in study.arms.values()]
            found = [run for arm in arms for run in arm.runs if run.run in runs]
            for label in dict.fromkeys(form.label for run in found for form in run.forms):
                forms = [(run, form) for run in found for form in run.forms if form.label == label]
                sizes, values = Stat.of(f.bytes for _, f in forms), Stat.of(f.quality.psnr for _, f in forms)
                loss = Stat.of(f.quality.psnr - run.checkpoint.psnr for run, f in forms)
                yield FilePoint(row, label, sizes, values, loss)

    def _has(self, files: FileStudy) -> bool:
        """Whether files are of runs of this study: runs of other folders have the same names."""
        same = (files.scene, files.scale, files.device) == (self.scene, self.scale, self.device)
        # Its schedule is that of the networks.
        return same and (files.unit == "Gaussians" or files.schedule == self.schedule)


def collect_frontier(folder: Path) -> list[FrontierStudy]:
    """Reads all records of runs beside each other below a folder and puts them together; there may be none.

    Raises:
        RecordError: If one cannot be read, or two are in conflict; names the files.
    """
    studies: dict[tuple[str, ...], FrontierStudy] = {}
    seen: dict[tuple[Any, ...], Path] = {}
    for path in record_files(folder, FRONTIER_FOLDERS):
        record = read_record(path)
        if not isinstance(record, FrontierRecord):
            raise RecordError(f"{path}: a record of another kind in a folder for runs of all kinds")
        key = (record.scene, record.scale, record.machine.key, record.schedule)
        if (*key, record.seed) in seen:
            raise RecordError(f"{path}: the same seed on the same device as {seen[(*key, record.seed)]}; keep one")
        seen[(*key, record.seed)] = path
        _check(record, path)
        studies.setdefault(key, FrontierStudy(*key)).records.append(record)
    for study in studies.values():
        study.records.sort(key=lambda record: record.seed)
    return [studies[key] for key in sorted(studies)]


def _check(record: FrontierRecord, path: Path) -> None:
    if len({arm.label for arm in record.arms}) < len(record.arms):
        raise RecordError(f"{path}: two runs of one label")
    for arm in record.arms:
        if min(arm.frame_seconds) <= 0:
            raise RecordError(f"{path}: {arm.label}: times that are not above 0")
        if arm.quality is not None and max(abs(arm.quality.psnr), abs(arm.quality.ssim)) > LARGEST:
            raise RecordError(f"{path}: {arm.label}: a quality beyond ±{LARGEST:,}")
