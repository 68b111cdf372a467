"""Checkpoints as Nerfstudio's own splatfacto writes them: its model, optimizers and densification, without its
rasteriser, which needs a GPU. Gradients are made up."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.optimizers import Optimizers
from torch import nn
from torch.amp.grad_scaler import GradScaler

from support.tiny_splats import NAMES, SCENE_BOX, VIEWS


class Means2d(nn.Module):
    """Stands for projected centres with their gradients, for the host's densification."""

    def __init__(self, grad: torch.Tensor) -> None:
        super().__init__()
        self.grad = self.absgrad = grad

    def retain_grad(self) -> None:
        """They are there already."""


class StockTraining:
    """A training of splatfacto that can be saved after any step. The metric network must be replaced by a fake.

    Args:
        count: Gaussians at the beginning.
        options: Options of the model.
    """

    def __init__(self, count: int = 60, **options: Any) -> None:
        self.config: Any = deepcopy(all_methods["splatfacto"])
        model = self.config.pipeline.model
        growth = {"warmup_length": 1, "refine_every": 2, "stop_split_at": 1000, "random_scale": 2.0}
        for name, value in {"num_random": count, "random_init": True, **growth, **options}.items():
            setattr(model, name, value)
        torch.manual_seed(0)
        self.model: Any = model.setup(scene_box=SCENE_BOX, num_train_data=VIEWS, metadata={})
        self.optimizers = Optimizers(self.config.optimizers, self.model.get_param_groups())
        self.step = -1

    def train(self, steps: int) -> "StockTraining":
        """Trains on made-up gradients, and densifies as the host does.

        Args:
            steps: How many steps more.
        """
        for _ in range(steps):
            self.step += 1
            self.model.step_cb(self.optimizers, self.step)
            self.optimizers.zero_grad_all()
            torch.stack([p.square().sum() for p in self.model.gauss_params.values()]).sum().backward()
            self.optimizers.optimizer_step_all()
            self.optimizers.scheduler_step_all(self.step)
            count = self.model.num_points
            self.model.info = {
                "means2d": Means2d(torch.rand(1, count, 2) * 4e-4),
                "radii": torch.full((1, count), 5),
                **{"width": 16, "height": 16, "n_cameras": 1, "gaussian_ids": None},
            }
            self.model.step_post_backward(self.step)
        return self

    def checkpoint(self, old_names: bool = False) -> dict[str, Any]:
        """What the host's trainer would save.

        Args:
            old_names: Whether tensors are named as in early versions.
        """
        names = {f"gauss_params.{name}": name for name in NAMES} if old_names else {}
        state = self.model.state_dict()
        return {
            "step": self.step,
            "pipeline": {f"_model.{names.get(key, key)}": value.clone() for key, value in state.items()},
            "optimizers": {name: deepcopy(o.state_dict()) for name, o in self.optimizers.optimizers.items()},
            "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
            "scalers": GradScaler("cuda", enabled=False).state_dict(),
        }

    def save(self, folder: Path, **options: Any) -> Path:
        """Saves a checkpoint into a folder, which is made.

        Args:
            folder: `nerfstudio_models` of a run.
            options: See `checkpoint`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.checkpoint(**options), folder / f"step-{self.step:09d}.ckpt")
        return folder
