"""Suites of runs of all kinds as data: their files, and what puts them beside each other."""

from dataclasses import dataclass, field, replace
from typing import Any

from nerfstudio_prune.bench.file_jobs import SPLAT, FileRun, SplatFileRun, TinyFileRun, splat_file_jobs
from nerfstudio_prune.bench.frontier_jobs import FrontierRun
from nerfstudio_prune.bench.kilo_jobs import STUDENT, KiloRun, kilo_jobs
from nerfstudio_prune.bench.splat_suite import SplatJob, SplatRun, SplatScale, preset_runs, splats
from nerfstudio_prune.bench.suites import Job, Scale, stored_networks
from nerfstudio_prune.splats.presets import PresetName

DENSE = ("dense-start", "dense")
"""Arms of the dense Gaussians: up to the cut of other runs, and to the end."""
PRESETS: tuple[PresetName, ...] = ("best", "tiny")
"""Presets of Gaussians that are stored."""
TINY, GAUSSIANS = "tiny networks", "Gaussians"
"""Labels beside all others; that of Gaussians is followed by an arm."""


@dataclass(frozen=True)
class JointSuite:
    """Jobs of all kinds; each stands behind what it needs."""

    networks: list[Job]
    """Those with networks, tiny ones included."""
    gaussians: list[SplatJob]
    comparisons: list[FrontierRun] = field(default_factory=list)
    """Those with both."""

    @property
    def jobs(self) -> list[Any]:
        """All of them."""
        return [*self.networks, *self.gaussians, *self.comparisons]

    def stored(self, kind: type, seed: int) -> dict[str, str]:
        """Runs that are stored: arm of the files -> run.

        Args:
            kind: Kind of the jobs that store them.
            seed: Seed.
        """
        return {job.arm: job.run for job in self.jobs if type(job) is kind and job.seed == seed}


def files(scale: Scale, splat_scale: SplatScale) -> JointSuite:
    """Networks, tiny networks and Gaussians, dense and by presets, and files of them in every form.

    Runs have the names that they have in other suites, so that in one folder none is made twice.

    Args:
        scale: Sizes of networks.
        splat_scale: Those of Gaussians; seeds are those of networks.
    """
    splat_scale = replace(splat_scale, seeds=scale.seeds)
    dense = [job for job in splats(splat_scale) if isinstance(job, SplatRun) and job.arm in DENSE]
    suite = JointSuite(stored_networks(scale), [*dense])
    for seed in scale.seeds:
        student = _student(seed, scale.name, suite.stored(FileRun, seed)["dense"])
        suite.networks.extend([student, TinyFileRun(student.arm, seed, "pruned", student.name)])
        pruned = preset_runs(seed, splat_scale, PRESETS)
        of_arm = {"dense": f"dense-s{seed}", **{name: run.name for name, run in zip(PRESETS, pruned, strict=True)}}
        suite.gaussians.extend([*pruned, *splat_file_jobs(seed, of_arm)])
    return suite


def everything(scale: Scale, splat_scale: SplatScale) -> JointSuite:
    """The same runs and files, and all runs beside each other.

    Args:
        scale: Sizes of networks.
        splat_scale: Those of Gaussians; seeds are those of networks.
    """
    suite = files(scale, splat_scale)
    for seed in scale.seeds:
        gaussians = suite.stored(SplatFileRun, seed)
        suite.comparisons.append(
            FrontierRun(
                seed,
                networks=suite.stored(FileRun, seed),
                tiny={TINY: suite.stored(TinyFileRun, seed)[STUDENT]},
                gaussians={f"{GAUSSIANS}, {arm.removeprefix(SPLAT)}": run for arm, run in gaussians.items()},
            )
        )
    return suite


def _student(seed: int, scale: str, teacher: str) -> KiloRun:
    """Tiny networks as they are by default."""
    jobs = kilo_jobs(seed, scale, teacher, sizes=False)
    return next(job for job in jobs if isinstance(job, KiloRun) and job.arm == STUDENT)


JOINT_SUITES = {"files": files, "frontier-all": everything}
"""Name -> suite."""
