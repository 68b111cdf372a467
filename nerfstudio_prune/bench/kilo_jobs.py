"""Jobs of the suite of tiny networks, as data. Carries nothing out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional

from nerfstudio_prune.bench.jobs import SuiteJob
from nerfstudio_prune.records.kilo_schema import KiloRole

FOLDER = "kilo-runs"


@dataclass(frozen=True)
class KiloRun(SuiteJob):
    """One training run: tiny networks of a teacher, or a control."""

    folder: ClassVar[str] = FOLDER
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: KiloRole
    teacher: str
    """Run that is learnt from, or trained on."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `kilonerf`, by dotted path."""
    beside: Optional[str] = None
    """Run whose time a teacher is trained on for."""
    rates: Optional[tuple[float, float]] = None
    """Where a teacher is trained on: first and last learning rate, as shares of that at which its training began."""

    @property
    def name(self) -> str:
        """Unique within a suite."""
        return f"{self.arm}-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return (self.teacher,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Its teacher, and the run whose time it takes."""
        return (*self.sources, *([self.beside] if self.beside else []))

    @property
    def told_steps(self) -> str:
        """What its steps follow from."""
        return "both phases" if self.beside is None else "equal time"

    def sizes(self, scale: Any) -> dict[str, Any]:
        """Views that quality is measured on."""
        return {"views": scale.views}


@dataclass(frozen=True)
class KiloSpeed(SuiteJob):
    """Pictures of tiny networks, of dense ones in the same cells, and of the host's own model, in turns."""

    folder: ClassVar[str] = FOLDER
    seed: int
    teacher: str
    students: tuple[str, ...]
    """Runs of tiny networks; dense networks are looked at in the cells of the first one."""
    width: int = 256
    """Trunk width of a dense network in these cells, beside the teacher's own."""
    samples: tuple[int, int] = (64, 128)
    """Samples of a ray of the host's model: of the coarse field, and added."""
    rounds: int = 5
    """Pictures of each kind."""
    stock_rows: int = 20
    """Of a picture by the host's model every so manieth row of pixels is rendered, and the time multiplied."""
    enlarged: int = 2
    """How much larger the second size of a picture is, along each side."""

    @property
    def name(self) -> str:
        """Unique within a suite."""
        return f"kilo-speed-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return (self.teacher, *self.students)


STUDENT = "student"
"""Arm of the networks as they are by default."""
SMALL: Mapping[str, Any] = {
    "pipeline.grid.resolution": 4,
    "pipeline.grid.hidden_width": 8,
    "pipeline.occupancy.refine": 2,
    # After a few steps a teacher is fog, of which nothing is solid.
    "pipeline.occupancy.alpha_threshold": 1e-4,
    "pipeline.finetune.tighten_threshold": 1e-4,
    "pipeline.occupancy.visible_only": False,
    "pipeline.distil.steps": 3,
    "pipeline.finetune.steps": 3,
}
"""Options of the scale `smoke`."""
OPTIONS: Mapping[str, Mapping[str, Any]] = {"smoke": SMALL}
"""Name of the scale -> options of all of its runs."""


def kilo_jobs(seed: int, scale: str, teacher: str, sizes: bool) -> list[KiloRun | KiloSpeed]:
    """What is made of one teacher, the important ones first, each behind what it needs.

    Args:
        seed: Seed.
        scale: Name of the scale.
        teacher: Run that is learnt from.
        sizes: Whether other sizes and budgets are tried as well.
    """

    def student(arm: str, **options: Any) -> KiloRun:
        given = {f"pipeline.{name.replace('__', '.')}": value for name, value in options.items()}
        return KiloRun(arm, seed, "student", teacher, {**OPTIONS.get(scale, {}), **given})

    best = student(STUDENT)
    scratch = student("scratch", distil__steps=0)
    half = student("narrow-0.5", grid__narrow_to=0.5)
    jobs: list[KiloRun | KiloSpeed] = [
        best,
        KiloRun(scratch.arm, seed, "scratch", teacher, scratch.options),
        KiloRun("teacher-on", seed, "teacher-on", teacher, beside=best.name, rates=(0.1, 0.1)),
        KiloRun("teacher-on-again", seed, "teacher-on", teacher, beside=best.name, rates=(0.5, 0.05)),
        half,
        KiloSpeed(seed, teacher, (best.name, half.name)),
    ]
    if not sizes:
        return jobs
    jobs += [student(f"cells-{cells}", grid__resolution=cells) for cells in (8, 12, 24)]
    jobs += [student(f"width-{width}", grid__hidden_width=width) for width in (16, 64)]
    budgets = [student(f"budget-{mb:g}mb", **_without_sizes(scale, mb)) for mb in (2.0, 1.0, 0.5)]
    return [*jobs, *budgets, student("loose", finetune__tighten_threshold=0.0)]


def _without_sizes(scale: str, mb: float) -> dict[str, Any]:
    """Options of a budget, which cells and widths follow from."""
    fixed = OPTIONS.get(scale, {})
    given = {"grid__resolution": None, "grid__hidden_width": None} if "pipeline.grid.resolution" in fixed else {}
    return {**given, "grid__target_mb": mb}


def of_pruned_teacher(seed: int, scale: str, teacher: str) -> KiloRun:
    """Networks of a teacher that was pruned.

    Args:
        seed: Seed.
        scale: Name of the scale.
        teacher: The pruned run.
    """
    return KiloRun("of-pruned-teacher", seed, "student", teacher, OPTIONS.get(scale, {}))
