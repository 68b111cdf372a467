"""The suite of everything as data: runs of all kinds, their files, and what puts them beside each other."""

from dataclasses import dataclass, replace
from typing import Any

from nerfstudio_prune.bench.file_jobs import FileRun
from nerfstudio_prune.bench.frontier_jobs import FrontierRun
from nerfstudio_prune.bench.kilo_jobs import STUDENT, KiloRun, kilo_jobs
from nerfstudio_prune.bench.splat_suite import SplatRun, SplatScale, splats
from nerfstudio_prune.bench.suites import Scale, files

GAUSSIANS = {"Gaussians": "dense", "Gaussians, 34 %": "removal-6-34", "Gaussians, 20 %": "removal-6-20"}
"""Label -> arm of the suite of Gaussians."""
TINY = "tiny networks"
"""Label of them."""


@dataclass(frozen=True)
class Everything:
    """All jobs, and which of them are of which kind."""

    jobs: list[Any]
    """Each behind what it needs."""
    networks: frozenset[str]
    """Names of those of networks."""
    gaussians: frozenset[str]
    """Names of those of Gaussians."""


def everything(scale: Scale, splat_scale: SplatScale) -> Everything:
    """Runs of the other suites by their names, so that in one folder none is made twice.

    Args:
        scale: Sizes of networks.
        splat_scale: Those of Gaussians; seeds are those of networks.
    """
    networks = files(scale)
    wanted = {"dense-start", *GAUSSIANS.values()}
    splat_suite = splats(replace(splat_scale, seeds=scale.seeds))
    gaussians = [job for job in splat_suite if isinstance(job, SplatRun) and job.arm in wanted]
    students, comparisons = [], []
    for seed in scale.seeds:
        stored = {job.arm: job.run for job in networks if isinstance(job, FileRun) and job.seed == seed}
        student = _student(seed, scale.name, stored["dense"])
        students.append(student)
        comparisons.append(
            FrontierRun(
                seed,
                networks=stored,
                tiny={TINY: student.name},
                gaussians={label: f"{arm}-s{seed}" for label, arm in GAUSSIANS.items()},
            )
        )
    return Everything(
        [*networks, *students, *gaussians, *comparisons],
        frozenset(job.name for job in (*networks, *students)),
        frozenset(job.name for job in gaussians),
    )


def _student(seed: int, scale: str, teacher: str) -> KiloRun:
    """Tiny networks as they are by default."""
    jobs = kilo_jobs(seed, scale, teacher, sizes=False)
    return next(job for job in jobs if isinstance(job, KiloRun) and job.arm == STUDENT)
