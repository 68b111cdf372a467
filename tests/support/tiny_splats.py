"""Tiny runs of Gaussians: Nerfstudio's own Trainer, in this process, on a few views of 16x16 pixels."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from torch import Tensor

from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine.host import reset_host, seed_host
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig
from nerfstudio_prune.splats.model import SplatPruneModel, SplatPruneModelConfig

NEVER = 1_000_000
STEPS = 20
"""Of a run. Gaussians grow at the ends of steps 4 and 6, and are settled from the end of step 9 on."""
SETTLED = 9
SEEDS = 200
VIEWS = 4
"""For training."""
SCENE_BOX = SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))
NAMES = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
TINY_MODEL: dict[str, Any] = {
    "schedule_steps": 10_000,
    "warmup_length": 1000,
    "refine_every": 2,
    "reset_alpha_every": 4,
    "stop_split_at": 4000,
    "stop_screen_size_at": 3000,
    "sh_degree_interval": 1000,
    "num_downscales": 0,
    "num_random": SEEDS,
    "densify_grad_thresh": 0.0005,
    "cull_alpha_thresh": 0.005,
}
"""What goes by the step; a run of 20 steps takes a five hundredth of most of it."""


def tiny_config(folder: Path, cache: Path, name: str = "run", method: str = "splat-prune", **prune: Any) -> Any:
    """A run of 20 steps; `prune` sets options of pruning.

    Args:
        folder: Where the run is saved.
        cache: Cache folder of the demo scene.
        name: Name of the run's folder.
        method: Registered method to start from.
        prune: Options under `--pipeline.prune`; those within as `distil__steps`.
    """
    config: Any = deepcopy(all_methods[method])
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.max_num_iterations, config.logging.local_writer.enable = STEPS, False
    config.output_dir, config.experiment_name, config.timestamp = folder, "tiny", name
    config.steps_per_save = config.steps_per_eval_batch = NEVER
    config.steps_per_eval_image = config.steps_per_eval_all_images = NEVER
    config.pipeline.datamanager.dataparser = DemoDataParserConfig(
        data=cache, image_size=16, num_train_views=VIEWS, num_val_views=2, num_test_views=2, supersampling=1
    )
    for key, value in TINY_MODEL.items():
        setattr(config.pipeline.model, key, value)
    for key, value in {"num_eval_views": 1, **prune}.items():
        owner, (*path, option) = config.pipeline.prune, key.split("__")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, option, value)
    return config


def saving(config: Any, every: int = 1) -> Any:
    """The same run, that keeps a checkpoint of every few steps."""
    config.steps_per_save, config.save_only_latest_checkpoint = every, False
    return config


def start(config: Any, same_noise: bool = False) -> Any:
    """Sets up the trainer as `ns-train` does; without its `config.yml`.

    Args:
        config: Configuration of the run.
        same_noise: Take random state and view of every step from the step's number, so that two runs that pass the
            same step see the same batch whatever happened before.
    """
    reset_host()
    seed_host(config.machine.seed)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup(test_mode="val")
    if same_noise:

        def before(step: int) -> None:
            seed_host(1000 + step)
            trainer.pipeline.datamanager.train_unseen_cameras = [step % VIEWS, 0]

        trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before))
    return trainer


def train(config: Any, same_noise: bool = False) -> Any:
    """Sets up a trainer, passes through its training and gives it back."""
    trainer = start(config, same_noise)
    trainer.train()
    return trainer


def tiny_model(count: int = 30, **options: Any) -> SplatPruneModel:
    """A model outside of any run, of as many Gaussians at random."""
    return SplatPruneModelConfig(**{**TINY_MODEL, "num_random": count, "random_scale": 2.0, **options}).setup(
        scene_box=SCENE_BOX, num_train_data=VIEWS
    )


def counts(trainer: Any) -> list[tuple[int, int, int]]:
    """Step, Gaussians and degree after each event that happened."""
    done = trainer.pipeline.model.prune_state.succeeded
    return [(event.step, event.after.parts["gaussians"], event.after.parts["sh_degree"]) for event in done]


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that later steps cannot reach."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def moments(trainer: Any) -> dict[str, dict[str, Any]]:
    """Copy of what each of the six optimizers keeps of its tensor; empty where it keeps nothing."""
    found = {}
    for name in NAMES:
        (parameter,) = trainer.optimizers.optimizers[name].param_groups[0]["params"]
        state = trainer.optimizers.optimizers[name].state.get(parameter, {})
        found[name] = {key: value.clone() if torch.is_tensor(value) else value for key, value in state.items()}
    return found


def saved_moments(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same of a checkpoint."""
    return {name: dict(checkpoint["optimizers"][name]["state"].get(0, {})) for name in NAMES}


def check_whole(trainer: Any) -> None:
    """Fails unless model, optimizers, their moments and the host's lists are those of one set of tensors."""
    model, optimizers = trainer.pipeline.model, trainer.optimizers
    check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())
    sizes = {len(parameter) for parameter in model.gauss_params.values()}
    sizes |= {len(tensor) for tensor in model.running.values()}
    assert sizes == {model.num_points}


@torch.no_grad()
def pictures(model: SplatPruneModel, trainer: Any, cameras: Optional[Cameras] = None) -> Tensor:
    """Views as a model shows them in evaluation; None: the training views of a run."""
    was_training = model.training
    model.eval()
    shown: Any = trainer.pipeline.datamanager.train_dataset.cameras if cameras is None else cameras
    found = [model.get_outputs(shown[view : view + 1])["rgb"] for view in range(len(shown))]
    model.train(was_training)
    return torch.stack(found)
