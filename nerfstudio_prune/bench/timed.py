"""A network with its own trainer, advanced and rendered by hand, and timed."""

import math
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import MemoryMeter, clock_of
from nerfstudio_prune.nerf.field import PruneField
from nerfstudio_prune.nerf.layouts import fields_of
from nerfstudio_prune.nerf.model import is_linear
from nerfstudio_prune.neurons.groups import macs_per_sample
from nerfstudio_prune.records.schema import Clock

BEFORE, AFTER = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION


def train_step(trainer: Trainer, step: int) -> None:
    """A training step as the host's loop takes it, with all callbacks.

    Args:
        trainer: Ready to train.
        step: Training step.
    """
    for location in (BEFORE, AFTER):
        if location is AFTER:
            trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location)


@torch.no_grad()
def render_seconds(
    model: Any, clock: Callable[[], float], camera: Cameras, rows: int = 1
) -> tuple[float, MutableMapping[str, Any]]:
    """Renders a picture as the host does: rays of the camera first, then the model.

    Args:
        model: In evaluation.
        clock: Tells the time in seconds.
        camera: Its camera.
        rows: Every so manieth row of pixels only.

    Returns:
        Seconds, and the outputs; where rows are left out, the time that the others took is multiplied.
    """
    if rows == 1:
        start = clock()
        outputs = model.get_outputs_for_camera(camera)
        return clock() - start, outputs
    start = clock()
    rays = camera.generate_rays(camera_indices=0, keep_shape=True)
    made = clock()
    part = rays[::rows]
    outputs = model.get_outputs_for_camera_ray_bundle(part)
    return (made - start) + (clock() - made) * len(rays) / len(part), outputs


class TimedNetwork:
    """A network of this project or of the host.

    Args:
        trainer: Ready to train.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        pipeline: Any = trainer.pipeline
        self.pipeline, self.model = pipeline, pipeline.model
        name, self.clock = clock_of(self.model.device)
        self.clock_name: Clock = name
        self.memory = MemoryMeter(self.model.device)
        self.step = 0

    @property
    def rays_per_batch(self) -> int:
        """Rays of a training step."""
        return self.pipeline.datamanager.get_train_rays_per_batch()

    @property
    def macs_per_point(self) -> int:
        """Multiply-accumulates of one evaluation of the fine field at one point."""
        return macs_per_sample(layer for layer in fields_of(self.model)["field_fine"].modules() if is_linear(layer))

    @property
    def samples(self) -> dict[str, int]:
        """Name of a field -> points of one ray, none left out."""
        coarse = self.model.config.num_coarse_samples
        # The fine sampler merges the coarse bins with its own, which gives one interval more than the sum.
        return {"field_coarse": coarse, "field_fine": coarse + self.model.config.num_importance_samples + 1}

    def train(self, steps: int) -> float:
        """Training steps as the host's loop takes them, with all callbacks.

        Args:
            steps: How many, >= 1.

        Returns:
            Seconds of one.
        """
        self.pipeline.train()
        start = self.clock()
        for _ in range(steps):
            train_step(self.trainer, self.step)
            self.step += 1
        return (self.clock() - start) / steps

    def steps_of_block(self, seconds: float, most: int) -> int:
        """Training steps that a block should have; takes one.

        Args:
            seconds: What the block should take at least.
            most: Steps that are enough in any case, >= 1.
        """
        return min(most, max(1, math.ceil(seconds / max(self.train(1), 1e-6))))

    def camera(self, view: int, height: int = 0) -> Cameras:
        """Camera of an evaluation view.

        Args:
            view: Index of the view.
            height: Rows of pixels that its picture is to have; 0: those of the data.
        """
        camera = self.pipeline.datamanager.eval_dataset.cameras[view : view + 1].to(self.model.device)
        if height:
            camera.rescale_output_resolution(height / float(camera.height.item()), "round")
        return camera

    def render(self, camera: Cameras, rows: int = 1) -> float:
        """Renders a picture.

        Args:
            camera: Its camera.
            rows: Every so manieth row of pixels only.

        Returns:
            Seconds; where rows are left out, the time that the others took is multiplied.
        """
        self.model.eval()
        return render_seconds(self.model, self.clock, camera, rows)[0]

    def growth(self, work: Callable[[], Any]) -> float | None:
        """What some work takes at most above what is held before, in MB; None where it cannot be told.

        Args:
            work: The work.
        """
        self.memory.reset()
        work()
        return self.memory.growth_mb


class PointCounter:
    """Counts the points at which a model of this project evaluates its fields.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self.fields: dict[str, Any] = {
            name: own for name, own in fields_of(model).items() if isinstance(own, PruneField)
        }
        self.points: dict[str, list[int]] = {name: [] for name in self.fields}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts while the body runs."""
        inner = {name: own._values for name, own in self.fields.items()}
        for name, own in self.fields.items():
            # A hook would make the field evaluate everything.
            own._values = _counted(inner[name], self.points[name])
        try:
            yield
        finally:
            for own in self.fields.values():
                del own._values

    def per_ray(self, rays: int) -> dict[str, float]:
        """Name of a field -> points of a ray, mean; starts anew.

        Args:
            rays: Rays that the counted points belong to.
        """
        found = {name: sum(counts) / rays for name, counts in self.points.items()}
        for counts in self.points.values():
            counts.clear()
        return found


def _counted(inner: Callable[..., Any], counts: list[int]) -> Callable[..., Any]:
    def values(positions: Any, *others: Any) -> Any:
        counts.append(len(positions))
        return inner(positions, *others)

    return values


def mean_points(found: list[dict[str, float]]) -> dict[str, float]:
    """Mean over several counts, field by field.

    Args:
        found: Name of a field -> points of a ray; at least one.
    """
    return {name: fmean(points[name] for points in found) for name in found[0]}
