"""When the spherical harmonics have a teacher: from the step that lowers their degree, for some steps."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.gaussians.distillation import distillation_loss, is_pseudo_step, pseudo_pose
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.recipes import DistilRecipe
from nerfstudio_prune.splats.subject import SH_DEGREE, lowered


@dataclass(frozen=True)
class Lesson:
    """A training step whose picture is compared with the teacher's."""

    teacher: SplatPruneModel
    recipe: DistilRecipe
    camera: Cameras
    """What both render."""

    def losses(self, model: SplatPruneModel, outputs: dict[str, Any]) -> dict[str, Tensor]:
        """Losses against the teacher's picture.

        Args:
            model: What learns.
            outputs: Its outputs for the camera.
        """
        picture = self._picture(outputs["background"])
        if self.recipe.loss == "l2":
            return {"distillation_loss": distillation_loss(outputs["rgb"], picture)}
        return model.get_loss_dict(outputs, {"image": picture})

    @torch.no_grad()
    def _picture(self, background: Float[Tensor, "3"]) -> Float[Tensor, "height width 3"]:
        rendering = self.teacher.render(self.teacher.gaussians, self.camera)
        return (rendering.colors + (1 - rendering.alphas) * background).clamp(0, 1)


class HarmonicsDistillation(Listener):
    """Takes the teacher, says in which steps it is used, and lets it go.

    Args:
        recipe: How to learn.
        run: The run.
        model: What learns.
        spacing: Median distance of neighbouring training cameras, in world units.
    """

    def __init__(self, recipe: DistilRecipe, run: PruneRun, model: SplatPruneModel, spacing: float) -> None:
        self.recipe, self.run, self.model, self.spacing = recipe, run, model, spacing
        self.teacher: Optional[SplatPruneModel] = None
        self._begin: Optional[int] = next((e.step for e in reversed(run.state.succeeded) if lowered(e)), None)
        """Step at whose end the degree was lowered."""

    def started(self) -> None:
        """Says so if a run that is resumed in the midst of it would have had a teacher."""
        if self._during(self.run.first_step) and self.recipe.target != "photo":
            CONSOLE.print(
                "[yellow]No teacher: the model of before the degree was lowered is in no checkpoint; the spherical "
                f"harmonics learn from the photos alone (prune.distil.steps {self.recipe.steps})"
            )

    def before_cut(self, event: PruneEvent) -> None:
        """Takes the model for a teacher if its degree is about to be lowered."""
        present, degree = self.model.gaussians.sh_degree, degree_after(event)
        if degree is None or degree >= present or not self.recipe.steps:
            return
        self._begin = event.step
        if self.recipe.target != "photo":
            self.teacher = self.model.with_gaussians(self.model.gaussians.detach().clone())
            CONSOLE.print(
                f"Teacher: the spherical harmonics of degree {present} for "
                f"{self.recipe.steps} steps, {self.recipe.share:.0%} of them on pseudo views"
            )

    def after_undo(self, event: PruneEvent) -> None:
        """Lets the teacher go if the degree is what it was."""
        if lowered(event):
            self._begin = self.teacher = None
            self.model.learns_geometry = True

    def before_step(self, step: int) -> None:
        """Holds places, shapes and opacities where only colours are to learn."""
        self.model.learns_geometry = self.recipe.geometry or not self._during(step)

    def settle(self) -> None:
        """Lets everything learn again."""
        self.model.learns_geometry = True

    def after_step(self, step: int, seconds: float) -> None:
        """Lets the teacher go when it is not needed any more."""
        if self.teacher is not None and not self._during(step + 1):
            self.teacher = None
            CONSOLE.print(f"Teacher switched off at step {step}")

    def lesson(self, step: int, camera: Cameras) -> Optional[Lesson]:
        """What a training step learns from; None: the photo of its camera.

        Args:
            step: Training step.
            camera: Camera of the training view that is due.
        """
        if self.teacher is None or self._begin is None or not self._during(step):
            return None
        age = step - self._begin - 1
        pseudo = is_pseudo_step(age, self.recipe.share)
        if not pseudo and self.recipe.target == "mixed":
            return None
        pose = camera.camera_to_worlds
        return Lesson(self.teacher, self.recipe, _apart(camera, self._shifted(pose, step) if pseudo else pose))

    def _during(self, step: int) -> bool:
        return self._begin is not None and 0 < step - self._begin <= self.recipe.steps

    def _shifted(self, pose: Float[Tensor, "*batch 3 4"], step: int) -> Float[Tensor, "*batch 3 4"]:
        """Pose of a pseudo view beside a camera; the same one whenever the step is taken."""
        generator = torch.Generator().manual_seed(self.run.event_seed(step))
        return pseudo_pose(pose, self.recipe.sigma * self.spacing, generator)


def _apart(camera: Cameras, pose: Float[Tensor, "*batch 3 4"]) -> Cameras:
    """A camera like another one.

    It is no training view, even where it stands at the same place: what is learned of each of those, its pose and its
    bilateral grid, stays out of what is compared with the teacher, which has neither.
    """
    return Cameras(
        pose,
        camera.fx,
        camera.fy,
        camera.cx,
        camera.cy,
        camera.width,
        camera.height,
        camera_type=camera.camera_type,
    )


def degree_after(event: PruneEvent) -> Optional[int]:
    """Degree that an event is to lower the spherical harmonics to: one of the plan to its target, a cut by hand to that
    of its options. None: it leaves them.

    Args:
        event: What is about to happen.
    """
    return event.options.get("sh_degree") if event.scheduled is None else event.scheduled.targets.get(SH_DEGREE)
