"""Tiny runs of KiloNeRF: teachers that show something solid, and configurations of students, on views of 24x24 pixels.

A training of a few hundred steps leaves haze that fills the box. These teachers are fitted to densities instead, and
saved as the host saves a run.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.configs.method_configs import all_methods
from torch import Tensor
from torch.nn.functional import normalize

from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig
from support.saved_run import save_run
from support.tiny_run import NEVER, make_config, shrink, tiny_model, widths

DISTIL, FINETUNE = 6, 6
"""Steps of each phase."""
SIZE: dict[str, Any] = {
    "base_mlp_num_layers": 3,
    "base_mlp_layer_width": 48,
    "head_mlp_num_layers": 1,
    "head_mlp_layer_width": 16,
    "skip_connections": (),
    "num_coarse_samples": 24,
    "num_importance_samples": 24,
    "position_max_freq_exp": 1.0,
}
"""Of a teacher."""
BOX = 3.0
"""Half a side of the space that it is fitted in."""


@dataclass
class Teacher:
    """A saved run."""

    config_file: Path
    """Its config.yml."""
    model: PruneModel
    """Its model."""


def solid(points: Tensor) -> tuple[Tensor, Tensor]:
    """The demo scene, roughly: a plate with a ball, a cube and a cone on it, each of one colour.

    Args:
        points: Places.

    Returns:
        Density and colour.
    """
    x, y, z = points.unbind(dim=1)
    radius = torch.hypot(x, y)
    parts = (
        ((radius < 1.18) & ((z + 0.45).abs() < 0.1), (0.6, 0.6, 0.55)),
        ((points - torch.tensor([0.5, -0.42, 0.05])).norm(dim=1) < 0.4, (0.25, 0.42, 0.72)),
        ((points - torch.tensor([-0.5, -0.38, -0.05])).abs().amax(dim=1) < 0.3, (0.7, 0.5, 0.2)),
        ((torch.hypot(x + 0.3, y - 0.55) < 0.36 * (0.8 - z) / 1.15) & (z > -0.35) & (z < 0.8), (0.4, 0.6, 0.5)),
    )
    density, colour = torch.zeros(len(points)), torch.full((len(points), 3), 0.5)
    for inside, rgb in parts:
        density = torch.where(inside, 40.0, density)
        colour = torch.where(inside[:, None], torch.tensor(rgb), colour)
    return density, colour


def fit(
    model: PruneModel,
    steps: int = 400,
    points: int = 2048,
    scene: Callable[..., Any] = solid,
    sides: tuple[float, float] = (BOX, 1.2),
) -> PruneModel:
    """Fits the fine field to a scene.

    Args:
        model: The model.
        steps: Steps of Adam.
        points: Points of a step, half of them where the scene is.
        scene: Points -> density and colour.
        sides: Half a side of the space that it is fitted in, and of the part where the things are.
    """
    field, generator = model.field_fine, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * 0.05 ** (step / steps)
        wide = (2 * torch.rand(points // 2, 3, generator=generator) - 1) * sides[0]
        many = (2 * torch.rand(4 * points, 3, generator=generator) - 1) * sides[1]
        # As many within the things as elsewhere near them.
        order = scene(many)[0].sign().argsort(descending=True, stable=True)
        quarter = points // 4
        places = torch.cat([wide, many[order[:quarter]], many[order[-quarter:]]])
        density, rgb = scene(places)
        own, colour = field.values_at(places, normalize(torch.randn(points, 1, 3, generator=generator), dim=-1))
        # Outside over a whole unit of length, so that a little haze counts.
        step_size = torch.where(density > 0, 0.1, 1.0)
        error = (torch.exp(-own * step_size) - torch.exp(-density * step_size)).square()
        loss = error.mean() + ((colour[:, 0] - rgb).square().sum(dim=1) * (density > 0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def data_of(config: Any, cache: Path) -> None:
    """Lets a run have enough views that what they show is solid.

    Args:
        config: Configuration of the run.
        cache: Cache folder of the demo scene.
    """
    config.pipeline.datamanager.dataparser = DemoDataParserConfig(
        data=cache, image_size=24, num_train_views=12, num_val_views=2, num_test_views=2, supersampling=1
    )


def save_teacher(folder: Path, cache: Path, model: PruneModel, **options: Any) -> Teacher:
    """Saves a model as a run of `nerf-prune`.

    Args:
        folder: Where.
        cache: Cache folder of the demo scene.
        model: A model of `SIZE`, or one that was cut since.
        options: Further options of the model.
    """
    config = make_config(folder, cache, "teacher")
    data_of(config, cache)
    for name, value in {**SIZE, **options}.items():
        setattr(config.pipeline.model, name, value)
    return Teacher(save_run(folder, model, config), model)


def dense_teacher(folder: Path, cache: Path) -> Teacher:
    """A run that was not pruned.

    Args:
        folder: Where it is saved.
        cache: Cache folder of the demo scene.
    """
    torch.manual_seed(0)
    return save_teacher(folder, cache, fit(tiny_model(**SIZE)))


CONTRACTED: dict[str, Any] = {
    "use_scene_contraction": True,
    "coarse_sampler": "piecewise",
    "collider_params": {"near_plane": 0.05, "far_plane": 1000.0},
    "background_color": "last_sample",
}
"""Of a teacher of an unbounded scene, as of `nerf-prune-real`."""


def contracted_teacher(folder: Path, cache: Path) -> Teacher:
    """A run that sees the same things in contracted space.

    Args:
        folder: Where it is saved.
        cache: Cache folder of the demo scene.
    """
    torch.manual_seed(0)
    model = tiny_model(**SIZE, **CONTRACTED)
    # Nearly all of them lie where the ball is the world at half its size; a cube of this size is within the ball.
    fit(model, scene=lambda points: solid(2 * points), sides=(0.57, 0.57))
    return save_teacher(folder, cache, model, **CONTRACTED)


def pruned_teacher(folder: Path, cache: Path) -> Teacher:
    """A run of which each layer has lost another number of neurons.

    Args:
        folder: Where it is saved.
        cache: Cache folder of the demo scene.
    """
    torch.manual_seed(0)
    model = tiny_model(**SIZE)
    targets = {name: width - 1 - i for i, (name, width) in enumerate(widths(model).items())}
    return save_teacher(folder, cache, fit(shrink(model, targets), steps=150))


def stock_teacher(folder: Path) -> Teacher:
    """A run of the host's own `vanilla-nerf`, with the metric network that it saves.

    Args:
        folder: Where it is saved.
    """
    torch.manual_seed(0)
    model = tiny_model(**STOCK)
    head: Any = model.field_fine.field_output_density.net
    with torch.no_grad():
        # Fitting so large a field takes long: a tenth of space is dense here, and the rest is empty.
        places = 2 * BOX * torch.rand(2000, 3) - BOX
        found = model.field_fine._embedding(places) @ head.weight.T
        scale = 20 / found.std()
        head.bias.fill_(float(-scale * found.quantile(0.9)))
        head.weight.mul_(scale)
    path = save_run(folder, model, deepcopy(all_methods["vanilla-nerf"]))
    checkpoint = folder / "nerfstudio_models" / "step-000000009.ckpt"
    saved = torch.load(checkpoint)
    del saved["pipeline"]["_model._extra_state"]
    saved["pipeline"]["_model.lpips.net.weight"] = torch.zeros(2)
    torch.save(saved, checkpoint)
    return Teacher(path, model)


STOCK: dict[str, Any] = {
    "base_mlp_num_layers": 8,
    "base_mlp_layer_width": 256,
    "head_mlp_layer_width": 128,
    "skip_connections": (4,),
}
"""Sizes of the host's method."""


def make_kilo(folder: Path, cache: Path, name: str = "run", teacher: Optional[Path] = None, **options: Any) -> Any:
    """A run of a few steps.

    Args:
        folder: Where the run is saved.
        cache: Cache folder of the demo scene.
        name: Name of the run's folder.
        teacher: Option `teacher`.
        options: Options as `group__name`, in place of those of a tiny run.
    """
    config: Any = deepcopy(all_methods["kilonerf"])
    config.machine.device_type, config.vis = "cpu", "tensorboard"
    config.output_dir, config.experiment_name, config.timestamp = folder, "tiny", name
    config.steps_per_save = config.steps_per_eval_batch = NEVER
    config.steps_per_eval_image = config.steps_per_eval_all_images = NEVER
    data_of(config, cache)
    data = config.pipeline.datamanager
    data.train_num_rays_per_batch = data.eval_num_rays_per_batch = 128
    config.pipeline.teacher = teacher
    sizes = {"grid__hidden_width": 16, "distil__steps": DISTIL, "finetune__steps": FINETUNE}
    for key, value in {**sizes, **options}.items():
        group, _, option = key.partition("__")
        setattr(getattr(config.pipeline, group) if option else config.pipeline, option or group, value)
    return config


def psnr(pipeline: Any) -> float:
    """Mean PSNR of the evaluation views, in dB."""
    return float(pipeline.get_average_eval_image_metrics()["psnr"])


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights of a run's networks."""
    return {name: p.detach().clone() for name, p in trainer.pipeline.model.networks.named_parameters()}
