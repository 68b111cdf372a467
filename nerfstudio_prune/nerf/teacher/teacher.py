"""The dense network, frozen, and what the pruned one learns from it in a training step."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.losses import interlevel_loss
from torch import Tensor

from nerfstudio_prune.engine.host import forked, seconds_now
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.teacher.config import TeacherRecipe
from nerfstudio_prune.nerf.teacher.distillation import FieldValues, point_loss
from nerfstudio_prune.nerf.teacher.extra_rays import HardRays, chosen, jittered
from nerfstudio_prune.nerf.teacher.field_pass import FieldPass, observed_passes, values_of


class Teacher:
    """A frozen copy of both fields and the losses that it gives.

    It is no module and belongs to none: neither optimizers nor checkpoints see it. It is asked at the student's own
    samples, for colours of rays too. That saves its coarse pass, the points serve all kinds of losses, and both
    networks are compared by the same sum along the ray, so that an equal student has no loss.

    Its random choices are its own: batches and samples of a run with a teacher are those of the run without.

    Args:
        config: Options.
        model: Model to copy the fields of.
        seed: Seed of the run.
    """

    def __init__(self, config: TeacherRecipe, model: PruneModel, seed: int) -> None:
        self.config = config
        self.fields: dict[str, Any] = {
            name: deepcopy(own).requires_grad_(False).eval() for name, own in model.fields().items()
        }
        self.pool = HardRays(config.hard_pool)
        self.steps = 0
        """Training steps with the teacher so far."""
        self.seconds = 0.0
        """Seconds they spent on the teacher and on extra rays, without their share of the backward pass."""
        self._generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} teacher".encode()))

    def train_step(
        self, model: PruneModel, rays: RayBundle, batch: dict[str, Tensor], age: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Outputs, losses and metrics of a training step as the host's pipeline gives them, and the teacher's losses.

        Args:
            model: Student, in training.
            rays: Training rays.
            batch: Their photo colours, under `image`.
            age: Training steps since the event before this one.
        """
        for name, own in self.fields.items():
            # What the student leaves out is empty for both.
            own.occupancy = model.training_grids.get(name)
        with observed_passes(model) as passes:
            outputs = model(rays)
        metrics = model.get_metrics_dict(outputs, batch)
        losses = model.get_loss_dict(outputs, batch, metrics)
        start = seconds_now(model.device)
        config = self.config
        if age >= round(config.point_share * config.steps):
            losses.update(self._colour_losses(model, losses, outputs, passes))
            losses.update(self._extra_losses(model, rays, batch["image"].to(model.device), outputs))
        elif config.point_weight:
            both = [point_loss(own.student, self.values(name, own)) for name, own in passes.items()]
            losses["teacher_point_loss"] = config.point_weight * torch.stack(both).sum()
        if config.coarse_weight:
            losses["teacher_coarse_loss"] = config.coarse_weight * self._coarse_loss(passes)
        self.steps += 1
        self.seconds += seconds_now(model.device) - start
        return outputs, losses, metrics

    @torch.no_grad()
    def values(self, name: str, field_pass: FieldPass) -> FieldValues:
        """What the teacher's field says where the student's was asked; computed once for each pass.

        Args:
            name: Name of the field.
            field_pass: The student's pass.
        """
        if field_pass.teacher is None:
            field_pass.teacher = values_of(field_pass.samples, self.fields[name](field_pass.samples))
        return field_pass.teacher

    def _colours(self, model: PruneModel, passes: dict[str, FieldPass]) -> Float[Tensor, "rays 3"]:
        """The teacher's colours of rays, before a random background."""
        samples, fine = passes["field_fine"].samples, self.values("field_fine", passes["field_fine"])
        return model.renderer_rgb(rgb=fine.rgb, weights=samples.get_weights(fine.density))

    def _colour_losses(
        self, model: PruneModel, losses: dict[str, Tensor], outputs: dict[str, Tensor], passes: dict[str, FieldPass]
    ) -> dict[str, Tensor]:
        """The fine photo loss, a share of which goes to the error against the teacher's colours."""
        share = self.config.colour_weight
        if not share:
            return {}
        error = squared_errors(outputs["rgb_fine"], self._colours(model, passes)).mean()
        weight = share * model.config.loss_coefficients.get("rgb_loss_fine", 1.0)
        return {"rgb_loss_fine": (1 - share) * losses["rgb_loss_fine"], "teacher_colour_loss": weight * error}

    def _extra_losses(
        self, model: PruneModel, rays: RayBundle, image: Float[Tensor, "rays channels"], outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Losses of rays beside the batch; each ray counts as much as one of the batch."""
        config, size, losses = self.config, len(rays), {}
        num_pseudo = round(config.pseudo_rays * size)
        if num_pseudo:
            picked = torch.randperm(size, generator=self._generator)[:num_pseudo].to(model.device)
            near = jittered(chosen(rays, picked), config.jitter, config.jitter_degrees, self._generator)
            with self._own_noise(model.device), observed_passes(model) as passes:
                seen = model(near)
            colours = self._colours(model, passes)
            errors = torch.stack([squared_errors(seen[name], colours) for name in ("rgb_coarse", "rgb_fine")])
            losses["teacher_pseudo_loss"] = num_pseudo / size * errors.mean(dim=1).sum()
        if config.hard_rays:
            places = self.pool.draw(round(config.hard_rays * size), self._generator)
            if self.pool.rays is not None and len(places):
                losses["teacher_hard_loss"] = len(places) / size * self._hard_loss(model, places)
            self.pool.offer(rays, image, self._photo_errors(model, outputs, image))
        return losses

    def _hard_loss(self, model: PruneModel, places: Tensor) -> Float[Tensor, ""]:
        """Photo loss of rays in the pool, mixed as that of the batch; notes their new errors."""
        assert self.pool.rays is not None
        image = self.pool.colours[places]
        with self._own_noise(model.device), observed_passes(model) as passes:
            outputs = model(chosen(self.pool.rays, places))
            losses = model.get_loss_dict(outputs, {"image": image})
        losses.update(self._colour_losses(model, losses, outputs, passes))
        self.pool.update(places, self._photo_errors(model, outputs, image))
        return torch.stack(list(losses.values())).sum()

    def _photo_errors(self, model: PruneModel, outputs: dict[str, Tensor], image: Tensor) -> Float[Tensor, "rays"]:
        return squared_errors(outputs["rgb_fine"].detach(), model.renderer_rgb.blend_background(image))

    def _coarse_loss(self, passes: dict[str, FieldPass]) -> Tensor:
        """Charges the coarse field where it gives less weight than the teacher's fine field needs there.

        Proposal supervision of mip-NeRF 360 (Barron et al. 2022, arXiv 2111.12077, equation 13), with the teacher in
        place of the student's own fine field.
        """
        coarse, fine = passes["field_coarse"], passes["field_fine"]
        weights = [coarse.student.weights, self.values("field_fine", fine).weights]
        return interlevel_loss(weights, [coarse.samples, fine.samples])

    @contextmanager
    def _own_noise(self, device: torch.device) -> Iterator[None]:
        """Samples of extra rays are drawn from the teacher's own random state."""
        with forked(device):
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._generator)))
            yield


def squared_errors(rgb: Float[Tensor, "rays 3"], truth: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays"]:
    """Mean squared error of each ray."""
    return (rgb.float() - truth.float()).square().mean(dim=-1)
