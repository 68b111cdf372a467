"""When there is a teacher: from right before the first event until some steps after the last one."""

from typing import Optional

from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.nerf.teacher.teacher import Teacher


class Lessons:
    """Takes the teacher, says in which steps it is used, and lets it go.

    Args:
        config: Options, validated.
        model: Model that is trained.
        seed: Seed of the run.
    """

    def __init__(self, config: TeacherConfig, model: PruneModel, seed: int) -> None:
        self.config = config.filled()
        self.model = model
        self.seed = seed
        self.teacher: Optional[Teacher] = None
        self._last_step = -1
        self._step_seconds = 0.0

    def start(self, first_step: int, num_iterations: int) -> None:
        """Says so if a run that is resumed after its first event would have had a teacher.

        Args:
            first_step: First training step of this run.
            num_iterations: Steps that this run takes.
        """
        self._last_step = first_step + num_iterations - 1
        state = self.model.prune_state
        if not self.config.steps or state.phase == "dense":
            return
        if state.pending or self._age(first_step) < self.config.steps:
            CONSOLE.print(
                "[yellow]No teacher: the dense network is in no checkpoint of a pruned run; recovery goes on without "
                f"(prune.teacher.steps {self.config.steps})"
            )

    def before_event(self, step: int) -> None:
        """Takes the network for a teacher if it is still dense.

        Args:
            step: Training step that has just ended.
        """
        if self.config.steps and self.model.prune_state.phase == "dense" and step != self._last_step:
            self.teacher = Teacher(self.config, self.model, self.seed)
            points = round(self.config.point_share * self.config.steps)
            CONSOLE.print(
                f"Teacher: the network of step {step} for {self.config.steps} steps after each event, {points} of them "
                f"point by point, {self.config.steps - points} with rendered colours"
            )

    def after_undo(self) -> None:
        """Lets the teacher go if the network is the dense one again."""
        if self.model.prune_state.phase == "dense":
            self.teacher = None

    def at(self, step: int) -> Optional[tuple[Teacher, int]]:
        """The teacher of a training step and how many steps ago the event was; None if the step has no teacher."""
        if self.teacher is None or self.model.prune_state.phase == "dense":
            return None
        age = self._age(step)
        return (self.teacher, age) if age < self.config.steps else None

    def after_step(self, step: int, seconds: float) -> None:
        """Counts the time of a step and lets the teacher go when it is not needed any more.

        Args:
            step: Training step that has just ended.
            seconds: Time that it took.
        """
        if self.at(step) is not None:
            self._step_seconds += seconds
        over = not self.model.prune_state.pending and self.at(step + 1) is None
        if self.teacher is not None and (over or step == self._last_step):
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
        done = [event.step for event in self.model.prune_state.history if not event.error]
        return step - max(done) - 1
