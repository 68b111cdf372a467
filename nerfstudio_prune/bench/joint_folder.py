"""Records of an output folder that holds runs of all kinds, and how those that are missing are made."""

import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from nerfstudio_prune.bench.frontier_jobs import FrontierRun
from nerfstudio_prune.bench.frontier_measuring import (
    Finished,
    measure_frontier,
    open_gaussians,
    open_network,
    open_stock,
    open_tiny,
)
from nerfstudio_prune.bench.runs import RunFolder, alone, record_of
from nerfstudio_prune.bench.splat_folder import SplatFolder
from nerfstudio_prune.records.files import write_record
from nerfstudio_prune.records.frontier_schema import FrontierRecord

FRAME_SECONDS = 30.0
"""Guess: a round of pictures, and the quality of a run."""


class JointFolder:
    """Runs of networks, of tiny ones and of Gaussians, and what puts them beside each other.

    Args:
        networks: Records of networks, tiny ones included.
        gaussians: Records of Gaussians in the same folder.
        jobs: All jobs of all kinds by name.
    """

    alone = alone

    def __init__(self, networks: RunFolder, gaussians: SplatFolder, jobs: Mapping[str, Any]) -> None:
        self.networks, self.gaussians, self.jobs = networks, gaussians, jobs
        self.path = networks.path

    def _of(self, job: Any) -> Any:
        """The folder of the kind of a job that trains or stores."""
        return self.networks if job.name in self.networks.jobs else self.gaussians

    def _file(self, job: FrontierRun) -> Path:
        return self.path / job.folder / f"{job.name}.json"

    def _digest(self, job: FrontierRun) -> str:
        """Fingerprint of a comparison's settings, those of all of its runs included."""
        parts = [self._of(self.jobs[name]).digest(self.jobs[name]) for name in job.sources]
        own = [asdict(job), self.networks.scale.views, self.networks.scene.fingerprint, parts]
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]

    def _compared(self, job: FrontierRun) -> bool:
        return record_of(self._file(job), self._digest(job)) is not None

    def done(self, job: Any) -> bool:
        """Whether a job need not be run: it is recorded, and its checkpoint is there where it is still needed."""
        comparisons = self._comparisons()
        if job.name in comparisons:
            return self._compared(job)
        if not self._of(job).done(job):
            return False
        needed = any(job.name in other.sources and not self._compared(other) for other in comparisons.values())
        return not needed or self._of(job).has_checkpoint(job)

    def _comparisons(self) -> dict[str, FrontierRun]:
        trained = {**self.networks.jobs, **self.gaussians.jobs}
        return {name: job for name, job in self.jobs.items() if name not in trained}

    def carry_out(self, job: Any, advance: Callable[[float], None]) -> Any:
        """Runs a job and writes its record; `advance` is told which share is done."""
        if job.name not in self._comparisons():
            return self._of(job).carry_out(job, advance)
        identity = {"digest": self._digest(job), "command": shlex.join(["ns-prune", *sys.argv[1:]])}
        scale, scene = self.networks.scale, self.networks.scene
        taught: Any = self.networks.jobs[next(iter(job.networks.values()))]
        record = measure_frontier(job, scale, scene, self._opened(job), taught, identity, advance)
        write_record(record, self._file(job))
        return record

    def _opened(self, job: FrontierRun) -> list[Finished]:
        """The host's model, and all runs of a comparison.

        Raises:
            FileNotFoundError: If one is missing.
        """
        networks, gaussians, path = self.networks, self.gaussians, self.path
        found = [open_stock(job, networks.scene, path)]
        for label, name in job.networks.items():
            run, record = networks.source(job, name)
            found.append(open_network(label, run, record, networks.scale, networks.scene, path))
        found += [open_tiny(label, networks.source(job, name)[1], path) for label, name in job.tiny.items()]
        for label, name in job.gaussians.items():
            record, checkpoint = gaussians.source(job, name)
            found.append(open_gaussians(label, record, checkpoint, gaussians.scale, gaussians.scene, path))
        return found

    def summary(self, record: Any) -> str:
        """What came out, in a few words."""
        return SUMMARIES.get(type(record), self._summary)(record)

    def _summary(self, record: Any) -> str:
        return (self.networks if record.name in self.networks.jobs else self.gaussians).summary(record)

    def row(self, job: Any) -> tuple[str, str]:
        """What a job goes on from, and its steps, for the plan."""
        return ", ".join(job.sources), job.told_steps

    def estimate(self, jobs: Sequence[Any]) -> tuple[dict[str, float], str]:
        """Seconds of each job, and where the speed comes from."""
        comparisons = self._comparisons()
        networks = [job for job in jobs if job.name in self.networks.jobs]
        gaussians = [job for job in jobs if job.name in self.gaussians.jobs]
        (first, origin), (second, _) = self.networks.estimate(networks), self.gaussians.estimate(gaussians)
        others = {job.name: FRAME_SECONDS * (job.rounds + len(job.sources)) for job in jobs if job.name in comparisons}
        return {**first, **second, **others}, origin


def _told(record: FrontierRecord) -> str:
    parts = []
    for arm in record.arms:
        quality = "" if arm.quality is None else f", {arm.quality.psnr:.2f} dB"
        parts.append(f"{arm.label} {1e3 * median(arm.frame_seconds):,.0f} ms{quality}")
    return "; ".join(parts)


SUMMARIES: Mapping[type, Callable[[Any], str]] = {FrontierRecord: _told}
"""Kind of record -> what came out, beside those of the other suites."""
