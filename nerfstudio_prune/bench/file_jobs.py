"""Jobs of the suite of small files, as data. Carries nothing out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nerfstudio_prune.bench.jobs import SplatSuiteJob, SuiteJob
from nerfstudio_prune.records.file_schema import FileRole

FOLDER = "file-runs"

FORMS: Mapping[str, Mapping[str, Any]] = {
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "int8": {"dtype": "int8", "compress": True},
    **{f"int{bits}": {"dtype": "intN", "bits": float(bits), "compress": True} for bits in (6, 5, 4)},
    "int4 to nearest": {"dtype": "intN", "bits": 4.0, "rounding": "nearest", "compress": True},
    **{
        f"mixed {bits:g}": {"dtype": "mixed", "bits": bits, "compress": True} for bits in (6.0, 5.0, 4.5, 4.0, 3.5, 3.0)
    },
    "mixed 4 to nearest": {"dtype": "mixed", "bits": 4.0, "rounding": "nearest", "compress": True},
}
"""Label -> options of `ns-prune export`."""
LABELS_OF_TINY = tuple(label for label in FORMS if label not in ("mixed 4.5", "mixed 3.5"))
"""Of tiny networks."""
CONVERTED: Mapping[str, Mapping[str, Any]] = {
    suffix: {"suffix": suffix} for suffix in (".ply", ".compressed.ply", ".spz")
}
"""Label -> end of the file's name, for `ns-prune convert`; the first one is what the others are made of."""
PACKED: Mapping[str, Mapping[str, Any]] = {profile: {"profile": profile} for profile in ("small", "tiny", "paper")}
"""Label -> options of `ns-prune pack`."""
SPLAT_FORMS: Mapping[str, Mapping[str, Any]] = {**CONVERTED, **PACKED}
"""Label -> options, for Gaussians."""


@dataclass(frozen=True)
class StoredRun(SuiteJob):
    """All files of one finished run."""

    folder: ClassVar[str] = FOLDER
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: FileRole
    run: str
    """Run that is stored."""

    @property
    def name(self) -> str:
        """Unique within a suite."""
        return f"files-{self.arm}-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """The run whose last checkpoint is stored."""
        return (self.run,)

    def sizes(self, scale: Any) -> dict[str, Any]:
        """Views that quality is measured on."""
        return {"views": scale.views}


@dataclass(frozen=True)
class FileRun(StoredRun):
    """Those of a large network."""

    labels: tuple[str, ...] = tuple(FORMS)
    """Which forms, of `FORMS`."""


@dataclass(frozen=True)
class TinyFileRun(StoredRun):
    """Those of tiny networks."""

    labels: tuple[str, ...] = LABELS_OF_TINY
    """Which forms, of `FORMS`."""


@dataclass(frozen=True)
class SplatFileRun(StoredRun, SplatSuiteJob):
    """Those of Gaussians."""

    labels: tuple[str, ...] = tuple(SPLAT_FORMS)
    """Which forms, of `SPLAT_FORMS`."""


ARMS: Mapping[str, FileRole] = {"dense": "dense", "best": "pruned", "tiny": "pruned"}
"""Arm -> role, of large networks and, behind `SPLAT`, of Gaussians."""
SPLAT = "splat-"
"""What arms of Gaussians begin with: those of networks have the same names."""
LABELS_OF_DENSE = ("float32", "int8", "mixed 5", "mixed 4")
"""A dense network takes the longest to render: all samples of one seed's views take a quarter of an hour in every form
that smaller ones have."""


def file_jobs(seed: int, runs: Mapping[str, str]) -> list[FileRun]:
    """What is stored of the large networks of one seed.

    Args:
        seed: Seed.
        runs: Arm -> run that is stored.
    """
    labels = {"dense": LABELS_OF_DENSE}
    return [FileRun(arm, seed, ARMS[arm], run, labels.get(arm, tuple(FORMS))) for arm, run in runs.items()]


def splat_file_jobs(seed: int, runs: Mapping[str, str]) -> list[SplatFileRun]:
    """What is stored of the Gaussians of one seed.

    Args:
        seed: Seed.
        runs: Arm -> run that is stored.
    """
    return [SplatFileRun(f"{SPLAT}{arm}", seed, ARMS[arm], run) for arm, run in runs.items()]
