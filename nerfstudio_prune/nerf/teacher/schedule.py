"""When there is a teacher: from right before the first event until some steps after the last one."""

from typing import Optional

from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.teacher.config import TeacherRecipe
from nerfstudio_prune.nerf.teacher.teacher import Teacher


class DistillationSchedule(Listener):
    """Takes the teacher, says in which steps it is used, and lets it go.

    Args:
        recipe: Options of the teacher.
        run: The run.
        model: Model that is trained.

    Raises:
        ValueError: If the losses that are asked for need a field that the model has not.
    """

    def __init__(self, recipe: TeacherRecipe, run: PruneRun, model: PruneModel) -> None:
        self.recipe = recipe
        self.run = run
        self.model = model
        self.teacher: Optional[Teacher] = None
        self._step_seconds = 0.0
        rendered = round(recipe.point_share * recipe.steps) < recipe.steps
        if recipe.steps and (rendered or recipe.coarse_weight) and not {*FIELDS} <= {*model.fields()}:
            raise ValueError(
                "prune.teacher.point_share below 1 and prune.teacher.coarse_weight above 0 compare what the fields "
                f"{' and '.join(FIELDS)} render, and the model has {', '.join(model.fields())}; learn point by point"
            )

    def started(self) -> None:
        """Says so if a run that is resumed after its first event would have had a teacher."""
        state = self.run.state
        if not self.recipe.steps or state.phase == "dense":
            return
        if state.pending or self._age(self.run.first_step) < self.recipe.steps:
            CONSOLE.print(
                "[yellow]No teacher: the dense network is in no checkpoint of a pruned run; recovery goes on without "
                f"(prune.teacher.steps {self.recipe.steps})"
            )

    def before_cut(self, event: PruneEvent) -> None:
        """Takes the network for a teacher if it is still dense."""
        if self.recipe.steps and self.run.state.phase == "dense" and event.step != self.run.last_step:
            self.teacher = Teacher(self.recipe, self.model, self.run.seed)
            points = round(self.recipe.point_share * self.recipe.steps)
            CONSOLE.print(
                f"Teacher: the network of step {event.step} for {self.recipe.steps} steps after each event, {points} "
                f"of them point by point, {self.recipe.steps - points} with rendered colours"
            )

    def after_undo(self, event: PruneEvent) -> None:
        """Lets the teacher go if the network is the dense one again."""
        if self.run.state.phase == "dense":
            self.teacher = None

    def at(self, step: int) -> Optional[tuple[Teacher, int]]:
        """The teacher of a training step and how many steps ago the event was; None if the step has no teacher.

        Args:
            step: Training step.
        """
        if self.teacher is None or self.run.state.phase == "dense":
            return None
        age = self._age(step)
        return (self.teacher, age) if age < self.recipe.steps else None

    def after_step(self, step: int, seconds: float) -> None:
        """Counts the time of a step and lets the teacher go when it is not needed any more."""
        if self.at(step) is not None:
            self._step_seconds += seconds
        over = not self.run.state.pending and self.at(step + 1) is None
        if self.teacher is not None and (over or step == self.run.last_step):
            self._let_go(self.teacher, step)

    def _let_go(self, teacher: Teacher, step: int) -> None:
        self.teacher = None
        CONSOLE.print(
            f"Teacher switched off at step {step}: {teacher.steps} steps with it took {self._step_seconds:.1f} s, "
            f"{teacher.seconds:.1f} s of that its own forward passes, extra rays and losses"
        )
        writer.put_scalar("Prune/teacher_seconds", teacher.seconds, step)

    def _age(self, step: int) -> int:
        """Training steps between the newest event and a step."""
        return step - max(event.step for event in self.run.state.succeeded) - 1
