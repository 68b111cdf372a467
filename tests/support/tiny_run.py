"""Tiny networks and runs: Nerfstudio's own Trainer, in this process, on a few views of 16x16 pixels."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from nerfstudio_prune.engine.host import reset_host, seed_host
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig
from nerfstudio_prune.neurons.compaction import apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.selecting import select_neurons
from nerfstudio_prune.neurons.strategies import UniformStrategy
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig

NEVER = 1_000_000
TINY_SIZE: dict[str, Any] = {
    "base_mlp_num_layers": 5,
    "base_mlp_layer_width": 16,
    "head_mlp_num_layers": 2,
    "head_mlp_layer_width": 8,
    "skip_connections": (2,),
    "num_coarse_samples": 8,
    "num_importance_samples": 8,
    "grid_resolution": 16,
}
TRUNK, HEAD = range(5), range(2)
SCENE_BOX = SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))


def tiny_model(**options: Any) -> PruneModel:
    """A model of 16-wide trunks and 8-wide heads; options replace its sizes."""
    return PruneModelConfig(**{**TINY_SIZE, **options}).setup(scene_box=SCENE_BOX, num_train_data=4)


def paper_model(**options: Any) -> PruneModel:
    """A model of the size that is the default of `nerf-prune`."""
    return PruneModelConfig(**options).setup(scene_box=SCENE_BOX, num_train_data=4)


def rays(*shape: int, seed: int = 0) -> RayBundle:
    """Rays from outside towards the scene."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(*shape, 3, generator=generator) - 0.5
    origins = torch.tensor([0.0, 0.0, 4.0]).expand(*shape, 3).contiguous()
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    return RayBundle(origins=origins, directions=directions, pixel_area=torch.full((*shape, 1), 1e-4))


def widths(model: PruneModel) -> dict[str, int]:
    """Name of each group -> its width."""
    return {group.name: group.width for group in model.neuron_groups()}


def tiny_widths(trunk: int, head: int, fields: tuple[str, ...] = ("coarse", "fine")) -> dict[str, int]:
    """Names of the tiny model's groups, written out, with the given widths."""
    found = {}
    for field in fields:
        found.update({f"field_{field}.mlp_base.layers.{i}": trunk for i in TRUNK})
        found.update({f"field_{field}.mlp_head.layers.{i}": head for i in HEAD})
    return found


def tiny_parameters(trunk: int, head: int) -> int:
    """Closed form of the parameters of both fields: 63 and 27 encoded inputs, five trunk and two head layers."""
    trunk_layers = (63 + 1) * trunk + 3 * (trunk + 1) * trunk + (63 + trunk + 1) * trunk
    heads = (trunk + 1) + (27 + trunk + 1) * head + (head + 1) * head + (head + 1) * 3
    return 2 * (trunk_layers + heads)


def shrink(model: PruneModel, targets: Mapping[str, int]) -> PruneModel:
    """Cuts a model that is not in training to given widths."""
    groups = model.neuron_groups()
    apply_compaction(prepare_compaction(groups, select_neurons(groups, targets, UniformStrategy(), None, 0)))
    model.sync_widths()
    return model


def copied_state(module: torch.nn.Module) -> dict[str, Any]:
    """A state dict that later changes of the module cannot reach."""
    return deepcopy(dict(module.state_dict()))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two nests of dicts, lists, tensors and plain values are equal bit for bit; NaN equals NaN."""
    if torch.is_tensor(a):
        return torch.is_tensor(b) and a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy(), equal_nan=True)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def form_values(
    strategy: str, score: Optional[str], refit: str, target: str, value: float, lr_factor: float = 1.0
) -> dict[str, Any]:
    """What a person chooses on the panel's form; a score of None is the strategy's own."""
    return {
        "strategy": strategy,
        "score": score,
        "refit": refit,
        "target": target,
        "value": value,
        "lr_factor": lr_factor,
    }


def make_config(folder: Path, cache: Path, name: str = "run", method: str = "nerf-prune", **prune: Any) -> Any:
    """A run of 10 steps; `prune` sets options of pruning.

    Args:
        folder: Where the run is saved.
        cache: Cache folder of the demo scene.
        name: Name of the run's folder.
        method: Registered method to start from.
        prune: Options under `--pipeline.prune`.
    """
    config: Any = deepcopy(all_methods[method])
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.max_num_iterations = 10
    config.output_dir, config.experiment_name, config.timestamp = folder, "tiny", name
    config.steps_per_save = config.steps_per_eval_batch = NEVER
    config.steps_per_eval_image = config.steps_per_eval_all_images = NEVER
    data = config.pipeline.datamanager
    data.dataparser = DemoDataParserConfig(
        data=cache, image_size=16, num_train_views=4, num_val_views=2, num_test_views=2, supersampling=1
    )
    data.train_num_rays_per_batch = data.eval_num_rays_per_batch = 32
    for key, value in TINY_SIZE.items():
        setattr(config.pipeline.model, key, value)
    for key, value in {"preset": "paper", "min_width": 2, "num_eval_rays": 64, **prune}.items():
        setattr(config.pipeline.prune, key, value)
    return config


def start(config: TrainerConfig, test_mode: Any = "val", same_noise: bool = False) -> Any:
    """Seeds and sets up the trainer as `ns-train` does.

    Args:
        config: Configuration of the run.
        test_mode: Views to evaluate on.
        same_noise: Seed the random state before every step from the step's number, so that two runs that pass the
            same step see the same batch whatever happened before.
    """
    reset_host()
    seed_host(config.machine.seed)
    config.save_config()
    trainer: Trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup(test_mode=test_mode)
    if same_noise:
        before = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
        trainer.callbacks.append(TrainingCallback(before, lambda step: seed_host(1000 + step)))
    return trainer


def train(config: TrainerConfig, **options: Any) -> Any:
    """Sets up a trainer, passes through its training and gives it back."""
    trainer = start(config, **options)
    trainer.train()
    return trainer


def after_each_step(trainer: Any, function: Any) -> None:
    """Calls `function(step)` after every step, before pruning looks at the network."""
    trainer.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], function))


def before_each_step(trainer: Any, function: Any) -> None:
    """Calls `function(step)` before every step."""
    trainer.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], function))


def checkpoint(trainer: Any, step: int) -> dict[str, Any]:
    """What a run saved at a step, read as the host reads it."""
    return torch.load(trainer.checkpoint_dir / f"step-{step:09d}.ckpt", map_location="cpu")


def resume(config: Any, trainer: Any, step: int, max_num_iterations: int) -> Any:
    """Points a configuration at a checkpoint of an earlier run."""
    config.load_dir, config.load_step, config.max_num_iterations = trainer.checkpoint_dir, step, max_num_iterations
    return config
