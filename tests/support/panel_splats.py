"""Tiny runs of Gaussians: Nerfstudio's own Trainer, in this process, on a few views of 24x24 pixels."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from nerfstudio.configs.method_configs import all_methods

from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig
from support.tiny_run import NEVER


def make_splat_config(folder: Path, cache: Path, name: str = "run", steps: int = 12, **prune: Any) -> Any:
    """A run of a few steps with a thousand Gaussians; `prune` sets options of pruning.

    Args:
        folder: Where the run is saved.
        cache: Cache folder of the demo scene.
        name: Name of the run's folder.
        steps: How long it is; growth is over after half of it.
        prune: Options under `--pipeline.prune`.
    """
    config: Any = deepcopy(all_methods["splat-prune-demo"])
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.max_num_iterations = steps
    config.output_dir, config.experiment_name, config.timestamp = folder, "tiny", name
    config.steps_per_save = config.steps_per_eval_batch = NEVER
    config.steps_per_eval_image = config.steps_per_eval_all_images = NEVER
    config.pipeline.datamanager.dataparser = DemoDataParserConfig(
        data=cache, image_size=24, num_train_views=4, num_val_views=2, num_test_views=2, supersampling=1
    )
    for key, value in {"rounds": 2, "num_eval_views": 1, **prune}.items():
        setattr(config.pipeline.prune, key, value)
    return config


def splat_cut(
    strategy: str = "rank", score: str | None = "removal", rounds: float | None = 2, ratio: float = 0.5
) -> dict[str, Any]:
    """What a person chooses on the panel's form."""
    return {"strategy": strategy, "score": score, "rounds": rounds, "pruning_ratio": ratio}
