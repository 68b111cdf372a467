"""Jobs of the suite of small files, as data. Carries nothing out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nerfstudio_prune.bench.jobs import SuiteJob
from nerfstudio_prune.records.file_schema import FileRole

FOLDER = "file-runs"

MEANS = (6.0, 5.0, 4.5, 4.0, 3.5, 3.0)
"""Of mixed bits."""
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


@dataclass(frozen=True)
class FileRun(SuiteJob):
    """All files of one finished run of networks."""

    folder: ClassVar[str] = FOLDER
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: FileRole
    run: str
    """Run that is stored."""
    labels: tuple[str, ...] = tuple(FORMS)
    """Which forms, of `FORMS`."""

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


ARMS: Mapping[str, FileRole] = {"dense": "dense", "best": "pruned", "tiny": "pruned"}
"""Arm -> role."""
LABELS_OF_DENSE = tuple(label for label in FORMS if label not in ("mixed 4.5", "mixed 3.5", "int6"))
"""A dense network takes the longest to render."""


def file_jobs(seed: int, runs: Mapping[str, str]) -> list[FileRun]:
    """What is stored of the runs of one seed.

    Args:
        seed: Seed.
        runs: Arm -> run that is stored.
    """
    labels = {"dense": LABELS_OF_DENSE}
    return [FileRun(arm, seed, ARMS[arm], run, labels.get(arm, tuple(FORMS))) for arm, run in runs.items()]
