"""The dense network, frozen, and what the pruned one learns from it in a training step."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from nerfstudio.model_components.losses import interlevel_loss
from torch import Tensor

from nerfstudio_prune.engine.machine import seconds_now
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.teacher.config import FilledTeacherConfig
from nerfstudio_prune.nerf.teacher.distillation import FieldValues, point_loss
from nerfstudio_prune.nerf.teacher.extra_rays import HardRays, chosen, jittered
from nerfstudio_prune.nerf.teacher.field_pass import Heard, listening, values_of


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

    def __init__(self, config: FilledTeacherConfig, model: PruneModel, seed: int) -> None:
        self.config = config
        self.fields: dict[str, NeRFField] = {
            name: deepcopy(getattr(model, name)).requires_grad_(False).eval() for name in FIELDS
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
        with listening(model) as heard:
            outputs = model(rays)
        metrics = model.get_metrics_dict(outputs, batch)
        losses = model.get_loss_dict(outputs, batch, metrics)
        start = seconds_now(model.device)
        config = self.config
        if age >= round(config.point_share * config.steps):
            losses.update(self._colour_losses(model, losses, outputs, heard))
            losses.update(self._extra_losses(model, rays, batch["image"].to(model.device), outputs))
        elif config.point_weight:
            both = [point_loss(heard[name].student, self.values(name, heard[name])) for name in FIELDS]
            losses["teacher_point_loss"] = config.point_weight * torch.stack(both).sum()
        if config.coarse_weight:
            losses["teacher_coarse_loss"] = config.coarse_weight * self._coarse_loss(heard)
        self.steps += 1
        self.seconds += seconds_now(model.device) - start
        return outputs, losses, metrics

    @torch.no_grad()
    def values(self, name: str, heard: Heard) -> FieldValues:
        """What the teacher's field says where the student's was asked; computed once for each pass.

        Args:
            name: Name of the field.
            heard: The student's pass.
        """
        if heard.teacher is None:
            heard.teacher = values_of(heard.samples, self.fields[name](heard.samples))
        return heard.teacher

    def _colours(self, model: PruneModel, heard: dict[str, Heard]) -> Float[Tensor, "rays 3"]:
        """The teacher's colours of rays, before a random background."""
        samples, fine = heard["field_fine"].samples, self.values("field_fine", heard["field_fine"])
        return model.renderer_rgb(rgb=fine.rgb, weights=samples.get_weights(fine.density))

    def _colour_losses(
        self, model: PruneModel, losses: dict[str, Tensor], outputs: dict[str, Tensor], heard: dict[str, Heard]
    ) -> dict[str, Tensor]:
        """The fine photo loss, a share of which goes to the error against the teacher's colours."""
        share = self.config.colour_weight
        if not share:
            return {}
        error = squared_errors(outputs["rgb_fine"], self._colours(model, heard)).mean()
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
            with self._own_noise(model.device), listening(model) as heard:
                seen = model(near)
            colours = self._colours(model, heard)
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
        with self._own_noise(model.device), listening(model) as heard:
            outputs = model(chosen(self.pool.rays, places))
            losses = model.get_loss_dict(outputs, {"image": image})
        losses.update(self._colour_losses(model, losses, outputs, heard))
        self.pool.update(places, self._photo_errors(model, outputs, image))
        return torch.stack(list(losses.values())).sum()

    def _photo_errors(self, model: PruneModel, outputs: dict[str, Tensor], image: Tensor) -> Float[Tensor, "rays"]:
        return squared_errors(outputs["rgb_fine"].detach(), model.renderer_rgb.blend_background(image))

    def _coarse_loss(self, heard: dict[str, Heard]) -> Tensor:
        """Charges the coarse field where it gives less weight than the teacher's fine field needs there.

        Proposal supervision of mip-NeRF 360 (Barron et al. 2022, arXiv 2111.12077, equation 13), with the teacher in
        place of the student's own fine field.
        """
        coarse, fine = heard["field_coarse"], heard["field_fine"]
        weights = [coarse.student.weights, self.values("field_fine", fine).weights]
        return interlevel_loss(weights, [coarse.samples, fine.samples])

    @contextmanager
    def _own_noise(self, device: torch.device) -> Iterator[None]:
        """Samples of extra rays are drawn from the teacher's own random state."""
        devices: list[Any] = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._generator)))
            yield


def squared_errors(rgb: Float[Tensor, "rays 3"], truth: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays"]:
    """Mean squared error of each ray."""
    return (rgb.float() - truth.float()).square().mean(dim=-1)
