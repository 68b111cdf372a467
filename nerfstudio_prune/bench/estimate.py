"""Estimated times of runs, from what is recorded already or from the number of operations."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_prune.bench.setup import get_option, run_options
from nerfstudio_prune.bench.suites import Run, Scale, SpeedRun
from nerfstudio_prune.records.schema import RunRecord, read_record

TRAIN_MACS_PER_SECOND = {"cpu": 15e9, "cuda": 3e12}
"""Guess for a machine without records: multiply-accumulates of the forward pass per second of training."""
EVALUATION_SHARE = 0.25
"""Guess: time of measuring quality as a share of training."""


def estimate_seconds(
    jobs: Sequence[Run | SpeedRun], scale: Scale, method: str, folder: Path
) -> tuple[dict[str, float], str]:
    """Wall-clock time of each job.

    Args:
        jobs: What is to be run.
        scale: Sizes.
        method: Nerfstudio method.
        folder: Folder of records; those of runs on this kind of device say how fast it is.

    Returns:
        Name of the job -> seconds, and where the speed comes from.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    records: list[Any] = [read_record(path) for path in sorted(folder.glob("runs/*.json"))]
    records = [r for r in records if isinstance(r, RunRecord) and r.machine.device_type == device and r.curve]
    if records:
        speed = median(r.rays_per_sec * r.end.sizes.macs_per_ray for r in records)
        share = median(r.seconds.evaluate / r.seconds.train for r in records)
        origin = f"speed of {len(records)} recorded runs"
    else:
        speed, share, origin = TRAIN_MACS_PER_SECOND[device], EVALUATION_SHARE, "a guess until a run is recorded"
    dense = macs_per_ray(run_options(Run("", 0, "dense", 1), scale, method), method)
    rays = run_options(Run("", 0, "dense", 1), scale, method).get("pipeline.datamanager.train_num_rays_per_batch")
    rays = rays or get_option(all_methods[method], "pipeline.datamanager.train_num_rays_per_batch")
    seconds = {}
    for job in jobs:
        ratio = job.pruning_ratio or 0.0
        masked = isinstance(job, Run) and (job.role in ("masked", "edges") or job.procedure == "torch-prune")
        kept = 1.0 if masked else (1 - ratio) ** 2
        if isinstance(job, SpeedRun):
            steps = (2 + scale.speed_blocks) * scale.speed_steps
            seconds[job.name] = steps * rays * dense * (1 + kept) / speed * 1.5
        else:
            # For equal time: the dense steps before the cut, in time.
            steps = job.steps if job.steps is not None else scale.start_steps * (1 / kept - 1) * 0.6
            seconds[job.name] = steps * rays * dense * kept / speed * (1 + share)
    return seconds, origin


def macs_per_ray(options: dict[str, Any], method: str) -> int:
    """Multiply-accumulates per ray of the dense network with the given options."""
    pipeline: Any = all_methods[method].pipeline
    prefix = "pipeline.model."
    own = {path.removeprefix(prefix): value for path, value in options.items() if path.startswith(prefix)}
    config = type(pipeline.model)(**{**vars(pipeline.model), **own})
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    return sum(macs for _, macs in config.setup(scene_box=box, num_train_data=1).layer_costs().values())
