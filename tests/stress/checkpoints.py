"""Mutated checkpoints: the pruning state, the network, the optimizers, and the bytes of the file.

Every trial loads one; some go on through start, event, training and save. What is refused must have changed nothing.

    python tests/stress/checkpoints.py --count 10000
"""

import copy
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from nerfstudio.engine.optimizers import Optimizers, RAdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from support.fuzz import CLEAR, HALF, NOT_FINITE, TAKEN, Mutator, main, same
from support.tiny_run import rays, tiny_model
from torch import nn
from torch.amp.grad_scaler import GradScaler

from nerfstudio_prune.core.saved_training import (
    check_saved_optimizers,
    check_saved_scaler,
    check_saved_schedulers,
    saved_shapes,
)
from nerfstudio_prune.engine.checkpoints import TRAINING, read_checkpoint
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.resuming import take_up
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.subject import subject_of

STEPS = 4
"""Training steps before a checkpoint is saved, and after it is loaded."""
PARTS = ("state", "state", "network", "optimizers", "schedulers", "whole", "bytes")
TWO_EVENTS: dict[str, Any] = {"schedule": "iterative", "num_events": 2, "start_step": 2, "stop_step": 6}
RUNS: tuple[dict[str, Any], ...] = (
    {"strategy": "importance", **TWO_EVENTS},
    {"strategy": "edge", "edge_keep_fraction": 0.5, **TWO_EVENTS},
    {"strategy": "uniform", "recovery": "rewind", "rewind_step": 1, **TWO_EVENTS},
    {"strategy": "coreset", "recovery_warm_up": 3, "recovery_lr_factor": 2.0, "start_step": 2},
)
"""Options of the runs whose checkpoints are mutated."""


class Training:
    """A tiny run without data: rays at random, and all that a checkpoint of the host holds."""

    def __init__(self, **prune: Any) -> None:
        torch.manual_seed(0)
        self.options = PruneConfig(preset="paper", min_width=2, **prune)
        self.model = tiny_model(num_coarse_samples=2, num_importance_samples=2)
        self.pipeline = nn.Module()
        self.pipeline._model = self.model
        fields = {
            "optimizer": RAdamOptimizerConfig(lr=5e-4),
            "scheduler": ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20),
        }
        self.optimizers = Optimizers({"fields": fields}, self.model.get_param_groups())
        self.scaler = GradScaler("cpu", enabled=False)
        self.step = self.first = 0

    def content(self) -> dict[str, Any]:
        """What the host saves."""
        return {
            "step": self.step - 1,
            "pipeline": {f"_model.{key}": value for key, value in self.model.state_dict().items()},
            "optimizers": {key: value.state_dict() for key, value in self.optimizers.optimizers.items()},
            "schedulers": {key: value.state_dict() for key, value in self.optimizers.schedulers.items()},
            "scalers": self.scaler.state_dict(),
        }

    def load(self, content: dict[str, Any]) -> None:
        """Loads a checkpoint as the trainer does: all checks first."""
        shapes = saved_shapes(self.optimizers.optimizers, self.pipeline, content["pipeline"])
        check_saved_optimizers(content.get("optimizers"), self.optimizers.optimizers, shapes)
        check_saved_schedulers(content.get("schedulers"), self.optimizers.schedulers)
        check_saved_scaler(content.get("scalers"), self.scaler)
        prefix = "_model."
        self.model.load_state_dict(
            {k.removeprefix(prefix): v for k, v in content["pipeline"].items() if k.startswith(prefix)}
        )
        self.optimizers.load_optimizers(content["optimizers"])
        self.optimizers.load_schedulers(content["schedulers"])
        self.step = self.first = content["step"] + 1

    def run(self) -> None:
        """Starts, trains through what is planned, and stops."""
        run = take_up(
            self.model.prune_state,
            self.options,
            lambda options: subject_of(options.strategy, self.model, refuse),
            self.optimizers,
            seed=1,
            first_step=self.step,
            num_iterations=2 * STEPS,
        )
        controller = PruneController(run, NoMeasure(), lambda: 4)
        for _ in range(STEPS):
            controller.before_step(self.step)
            self.optimizers.zero_grad_all()
            loss = self.model(rays(4))["rgb"].square().mean()
            loss.backward()
            self.optimizers.optimizer_step_all()
            self.optimizers.scheduler_step_all(self.step)
            controller.on_step(self.step)
            self.step += 1


class NoMeasure:
    """Stands in for the quality on fixed rays."""

    description = "nothing"

    def __call__(self, model: Any) -> dict[str, float]:
        return {"psnr": 20.0}


def refuse(calibration: Any, seed: int) -> Any:
    """Stands in for the collection of samples, which takes a data set."""
    raise ValueError("there are no rays to calibrate on")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the host prints and logs."""
    put, shown = writer.put_scalar, CONSOLE.quiet
    writer.put_scalar, CONSOLE.quiet = lambda *args, **values: None, True
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        writer.put_scalar, CONSOLE.quiet = put, shown


@cache
def saved(number: int) -> dict[str, Any]:
    """What a run of `RUNS` saves."""
    training = Training(**RUNS[number])
    with quiet():
        training.run()
    return copy.deepcopy(training.content())


@cache
def fresh(number: int) -> Training:
    """A run that nothing was loaded into; what is refused must leave it so."""
    return Training(**RUNS[number])


def trial(rng: random.Random) -> str:
    """Mutates a checkpoint, loads it, and one in four times goes on with it."""
    number = rng.randrange(len(RUNS))
    content, part = saved(number), rng.choice(PARTS)
    mutator = Mutator(rng, gentle=rng.random() < 0.5)
    changes = rng.choice((1, 1, 2, 4))
    if part == "state":
        pipeline = dict(content["pipeline"])
        pipeline["_model._extra_state"] = mutator.mutated(pipeline["_model._extra_state"], changes)
        content = {**content, "pipeline": pipeline}
    elif part == "network":
        content = {**content, "pipeline": mutator.mutated(dict(content["pipeline"]), changes)}
    elif part in ("optimizers", "schedulers"):
        content = {**content, part: mutator.mutated(content[part], changes)}
    elif part == "whole":
        content = mutator.mutated(content, changes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step-000000003.ckpt"
        try:
            torch.save(content, path)
        except Exception:
            return "cannot be saved"
        if part == "bytes":
            path.write_bytes(damaged(path.read_bytes(), rng))
        return loaded(path, number, goes_on=rng.random() < 0.25)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file that was cut off, or of which some bytes are others."""
    kind = rng.randrange(3)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 100))):
        # Half of them in the head and the tail, where the archive says what is where.
        edge = rng.random() < 0.5
        position = rng.choice((rng.randrange(2000), -1 - rng.randrange(2000))) if edge else rng.randrange(len(changed))
        changed[position] = rng.randrange(256)
    return bytes(changed)


def loaded(path: Path, number: int, goes_on: bool) -> str:
    """What comes of a file."""
    training = Training(**RUNS[number]) if goes_on else fresh(number)
    before = copy.deepcopy(training.content()) if not goes_on else None
    try:
        found = read_checkpoint(path, TRAINING)
        training.load({"step": found.step, **found.content})
    except Exception:
        if before is not None and not same(training.content(), before):
            fresh.cache_clear()
            return HALF
        raise
    if not goes_on:
        fresh.cache_clear()
        return finite(training.model)
    try:
        with quiet():
            training.run()
    except ValueError as error:
        # What does not depend on the network alone is told at the start; a network that diverges, at the event.
        return CLEAR if training.step == training.first or "not finite" in str(error) else f"{CLEAR}, in mid-training"
    torch.save(training.content(), path)
    read_checkpoint(path, TRAINING)
    return finite(training.model)


def finite(model: PruneModel) -> str:
    """Whether all of a network is."""
    return TAKEN if all(bool(torch.isfinite(p).all()) for p in model.parameters()) else NOT_FINITE


if __name__ == "__main__":
    main(trial, __doc__)
