"""Records of small files, put together into what may be compared: one scene, scale, device, schedule and unit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.records.file_schema import FileRecord, FileUnit, StoredForm
from nerfstudio_prune.records.files import FILE_FOLDERS, read_record, record_files
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.repeated import Repeated
from nerfstudio_prune.report.splat_study import LARGEST
from nerfstudio_prune.report.stats import Stat

ROLES = ("dense", "pruned")
"""Controls first."""
PLY = ".ply"
"""Form of Gaussians that holds all numbers as they are, as the host exports them."""


class FileArm(Repeated[FileRecord]):
    """Runs that differ in the seed only, each with its files."""

    @property
    def labels(self) -> list[str]:
        """Forms that at least one seed has, in the order of the records."""
        return list(dict.fromkeys(form.label for run in self.runs for form in run.forms))


@dataclass(frozen=True)
class FileRow:
    """One form of an arm."""

    arm: FileArm
    label: str
    dense: Optional[FileArm]
    """The runs that were not pruned; None where they have no record."""

    @property
    def forms(self) -> list[StoredForm]:
        """This form, of the seeds that have it."""
        return [form for run in self.arm.runs if (form := form_of(run, self.label)) is not None]

    def stat(self, value: Callable[[FileRecord, StoredForm], Optional[float]]) -> Stat:
        """A quantity over the seeds that have this form."""
        pairs = [(run, form_of(run, self.label)) for run in self.arm.runs]
        return Stat.of(value(run, form) for run, form in pairs if form is not None)

    @property
    def psnr(self) -> Stat:
        """Of the file, in dB."""
        return self.stat(lambda _, form: form.quality.psnr)

    @property
    def bytes(self) -> Stat:
        """Of the file."""
        return self.stat(lambda _, form: form.bytes)

    @property
    def each(self) -> Stat:
        """Bytes of the file for each parameter or Gaussian."""
        return self.stat(lambda run, form: form.bytes / run.units)

    @property
    def loss(self) -> Stat:
        """PSNR less that of its checkpoint, in dB."""
        return self.stat(lambda run, form: form.quality.psnr - run.checkpoint.psnr)

    @property
    def against_dense(self) -> Stat:
        """PSNR less that of the dense checkpoint of the same seed, in dB."""
        return self.stat(lambda run, form: self._beside(run, lambda dense: form.quality.psnr - dense.checkpoint.psnr))

    @property
    def share(self) -> Stat:
        """Bytes over those of the dense run of the same seed before anything was made smaller, see `WHOLE`."""

        def over(form: StoredForm, dense: FileRecord) -> Optional[float]:
            whole = WHOLE[dense.unit](dense)
            return None if whole is None else form.bytes / whole

        return self.stat(lambda run, form: self._beside(run, lambda dense: over(form, dense)))

    def _beside(self, run: FileRecord, value: Callable[[FileRecord], Optional[float]]) -> Optional[float]:
        dense = next((other for other in self.dense.runs if other.seed == run.seed), None) if self.dense else None
        return None if dense is None else value(dense)


@dataclass
class FileStudy:
    """What may be compared."""

    scene: str
    scale: str
    device: str
    schedule: str
    unit: FileUnit
    arms: dict[str, FileArm] = field(default_factory=dict)
    """Name -> runs, controls first, the largest first."""

    @property
    def title(self) -> str:
        """For headings and captions."""
        return ", ".join((self.scene, f"scale {self.scale}", *([self.schedule] if self.schedule else []), self.device))

    @property
    def dense(self) -> Optional[FileArm]:
        """The runs that were not pruned."""
        return next((arm for arm in self.arms.values() if arm.first.role == "dense"), None)

    def rows(self) -> list[list[FileRow]]:
        """The forms of each arm."""
        return [[FileRow(arm, label, self.dense) for label in arm.labels] for arm in self.arms.values()]


def form_of(run: FileRecord, label: str) -> Optional[StoredForm]:
    """The form of a run that has a label; None if there is none."""
    return next((form for form in run.forms if form.label == label), None)


def _ply(run: FileRecord) -> Optional[float]:
    form = form_of(run, PLY)
    return None if form is None else form.bytes


WHOLE: Mapping[FileUnit, Callable[[FileRecord], Optional[float]]] = {
    "parameters": lambda run: run.plain_bytes,
    "Gaussians": _ply,
}
"""Unit -> bytes that others are a share of: all numbers as float32, or the `.ply`; None where it was not written."""


def collect_files(folder: Path) -> list[FileStudy]:
    """Reads all records of small files below a folder and puts them together; there may be none.

    Raises:
        RecordError: If one cannot be read, or two are in conflict; names the files.
    """
    studies: dict[tuple[Any, ...], FileStudy] = {}
    seen: dict[tuple[Any, ...], Path] = {}
    for path in record_files(folder, FILE_FOLDERS):
        record = read_record(path)
        if not isinstance(record, FileRecord):
            raise RecordError(f"{path}: a record of another kind in a folder for those of small files")
        key = (record.scene, record.scale, record.machine.key, record.schedule, record.unit)
        if (*key, record.name) in seen:
            raise RecordError(f"{path}: the same run on the same device as {seen[(*key, record.name)]}; keep one")
        seen[(*key, record.name)] = path
        _take(studies.setdefault(key, FileStudy(*key)), record, path)
    for study in studies.values():
        for arm in study.arms.values():
            arm.runs.sort(key=lambda run: run.seed)
        ordered = sorted(study.arms.items(), key=lambda item: _place(item[1]))
        study.arms = dict(ordered)
    return [studies[key] for key in sorted(studies)]


def _place(arm: FileArm) -> tuple[Any, ...]:
    return ROLES.index(arm.first.role), -arm.first.plain_bytes, arm.name


def _take(study: FileStudy, record: FileRecord, path: Path) -> None:
    qualities = [record.checkpoint, *(form.quality for form in record.forms)]
    values = [value for quality in qualities for value in (quality.psnr, quality.ssim)]
    values += [form.agreement for form in record.forms if form.agreement is not None]
    if any(abs(value) > LARGEST for value in values):
        raise RecordError(f"{path}: a quality beyond ±{LARGEST:,}")
    labels = [form.label for form in record.forms]
    if len(set(labels)) < len(labels):
        raise RecordError(f"{path}: two forms of one label")
    dense = study.dense
    if record.role == "dense" and dense is not None and dense.name != record.arm:
        raise RecordError(f"{path}: a second arm that was not pruned, beside {dense.name}")
    if record.arm not in study.arms:
        study.arms[record.arm] = FileArm([record])
        return
    arm = study.arms[record.arm]
    if arm.first.role != record.role:
        raise RecordError(f"{path}: role differs from that of {arm.first.name}, a run of the same arm")
    if record.seed in {run.seed for run in arm.runs}:
        raise RecordError(f"{path}: a second run of arm {record.arm!r} and seed {record.seed}")
    arm.runs.append(record)
