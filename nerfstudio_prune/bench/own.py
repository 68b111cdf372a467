"""Networks of this project of any size, ready to be timed."""

from pathlib import Path
from typing import Any

import torch

from nerfstudio_prune.bench.cost_jobs import MODEL, Samples, network_options
from nerfstudio_prune.bench.setup import NEVER, Scene, make_config, make_trainer
from nerfstudio_prune.bench.suites import Run, Scale
from nerfstudio_prune.bench.timed import TimedNetwork
from nerfstudio_prune.engine.products import Precision, comparison

STRATEGY, SKIP = "pipeline.prune.strategy", MODEL + "skip_empty_space"


def dense_run(name: str, seed: int, width: int, samples: Samples, **options: Any) -> Run:
    """A dense run that never looks where the scene is empty by itself.

    Args:
        name: Name of the job.
        seed: Seed.
        width: Neurons of a trunk layer.
        samples: Samples of a ray.
        options: Options by dotted path, in place of these.
    """
    own = {**network_options(width, samples), STRATEGY: "none", SKIP: False, **options}
    return Run(f"{name}-{width}", seed, "dense", None, options=own)


def own_network(run: Run, scale: Scale, scene: Scene, folder: Path) -> TimedNetwork:
    """The network of a run; products get the highest precision with it, for the whole process.

    Args:
        run: The run.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
    """
    return TimedNetwork(make_trainer(make_config(run, scale, scene, NEVER, folder / "work" / "runs", None)))


def own_precision(device: torch.device) -> Precision:
    """Precision of products that this project's methods choose by themselves.

    Args:
        device: Where the products are computed.
    """
    return comparison().choice if device.type == "cpu" else "highest"
