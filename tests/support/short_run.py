"""Trainings of a few steps, many in one process: the real pipeline with its data loaded once, a new model and new
optimizers for each, and the host's loop without its trainer."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation

from nerfstudio_prune.engine.checks import check_training
from nerfstudio_prune.engine.host import seed_host
from nerfstudio_prune.engine.optimizers import RunOptimizers
from nerfstudio_prune.nerf.checks import check_config
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from support.tiny_run import SCENE_BOX, make_config

SIZE: dict[str, Any] = {
    "base_mlp_num_layers": 3,
    "base_mlp_layer_width": 8,
    "head_mlp_num_layers": 1,
    "head_mlp_layer_width": 8,
    "skip_connections": (1,),
    "num_coarse_samples": 4,
    "num_importance_samples": 4,
}
RAYS = 16
"""Of a batch."""


@dataclass
class ShortRun:
    """What came of a training."""

    pipeline: Any
    """The pipeline; its model is this run's until the next one starts."""
    model: PruneModel
    losses: list[dict[str, float]] = field(default_factory=list)
    """Losses of each step."""
    rates: list[float] = field(default_factory=list)
    """Learning rate of each step."""

    @property
    def finite(self) -> bool:
        """Whether all weights and losses are."""
        weights = all(bool(torch.isfinite(p).all()) for p in self.model.parameters())
        return weights and all(x == x and abs(x) != float("inf") for step in self.losses for x in step.values())

    def trace(self) -> Any:
        """Everything that an option could have changed, without clocks and without the options themselves."""
        state = self.model.prune_state
        events = [
            (event.step, event.strategy, event.recovery, event.before, event.after, event.metrics_before, event.error)
            for event in state.history
        ]
        weights = {name: p.detach().tolist() for name, p in self.model.named_parameters()}
        return events, state.plan, weights, self.losses, self.rates


class ShortRuns:
    """Makes trainings on one scene.

    Args:
        folder: Where the host would save.
        cache: Cache folder of the demo scene.
        steps: Training steps of a run.
    """

    def __init__(self, folder: Path, cache: Path, steps: int = 8) -> None:
        self.config = make_config(folder, cache)
        self.config.max_num_iterations = steps
        data, model = self.config.pipeline.datamanager, self.config.pipeline.model
        data.train_num_rays_per_batch = data.eval_num_rays_per_batch = RAYS
        for name, value in SIZE.items():
            setattr(model, name, value)
        seed_host(0)
        self.pipeline: Any = self.config.pipeline.setup(device="cpu", test_mode="val")

    def start(self, prune: PruneConfig, config: Optional[Any] = None) -> tuple[ShortRun, Callable[[int], None]]:
        """Sets a run up as the host does: checks, model, optimizers, callbacks.

        Args:
            prune: Options of pruning.
            config: Options of the trainer and the model. None: those of all runs.

        Returns:
            The run, and what carries out a step of it.
        """
        used: Any = deepcopy(self.config) if config is None else config
        used.pipeline.prune = prune
        pipeline = self.pipeline
        pipeline.config = used.pipeline
        pipeline.controller = pipeline.distillation = pipeline._measure = None
        check_training(used)
        check_config(used.pipeline, trains=True)
        seed_host(0)
        model = used.pipeline.model.setup(scene_box=SCENE_BOX, num_train_data=4, metadata={})
        pipeline._model = model
        model.train()
        groups = pipeline.get_param_groups()
        optimizers = RunOptimizers(deepcopy(used.optimizers), groups, used.max_num_iterations)
        trainer: Any = SimpleNamespace(config=used, _start_step=0)
        callbacks = pipeline.get_training_callbacks(
            TrainingCallbackAttributes(optimizers=optimizers, grad_scaler=None, pipeline=pipeline, trainer=trainer)
        )
        run = ShortRun(pipeline, model)

        def train_step(step: int) -> None:
            for callback in callbacks:
                callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
            optimizers.zero_grad_all()
            _, losses, _ = pipeline.get_train_loss_dict(step)
            torch.stack(list(losses.values())).sum().backward()
            optimizers.optimizer_step_all()
            run.losses.append({name: float(loss.detach()) for name, loss in losses.items()})
            run.rates.append(float(optimizers.optimizers["fields"].param_groups[0]["lr"]))
            optimizers.scheduler_step_all(step)
            for callback in callbacks:
                callback.run_callback_at_location(step, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)

        return run, train_step

    def run(self, prune: PruneConfig) -> ShortRun:
        """A whole run."""
        run, train_step = self.start(prune)
        for step in range(self.config.max_num_iterations):
            train_step(step)
        return run
