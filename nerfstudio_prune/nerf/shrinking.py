"""Shrinks the weights that read neurons about to leave, in the steps before a planned cut."""

from typing import Optional, cast

from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.engine.display import tell_failure
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.nerf.recipes import NeuronRecipe
from nerfstudio_prune.nerf.subject import NeuronSubject
from nerfstudio_prune.neurons.shrinkage import Shrinkage, leaving_columns


class ShrinkageSchedule(Listener):
    """Chooses the neurons of the next planned cut ahead of time, and penalises what reads them until it happens.

    Args:
        run: The run.
    """

    def __init__(self, run: PruneRun) -> None:
        self.run = run
        self._shrinkage: Optional[Shrinkage] = None
        self._chosen_for: Optional[int] = None

    def losses(self, step: int) -> dict[str, Tensor]:
        """The penalty on weights that are about to leave, where there is one."""
        pending, recipe = self.run.state.pending, cast(NeuronRecipe, self.run.recipe)
        if not recipe.shrink_steps or not pending or self.run.paused:
            return {}
        event = pending[0]
        if not event.step - recipe.shrink_steps < step <= event.step:
            return {}
        if self._chosen_for != event.step:
            self._chosen_for = event.step
            try:
                self._shrinkage = self._choose(event, recipe)
            except Exception as error:
                if recipe.on_error == "stop":
                    raise
                self._shrinkage = None
                tell_failure(
                    f"Step {step}: the neurons that leave at step {event.step} cannot be shrunk ahead of it", error
                )
        return {} if self._shrinkage is None else {"shrinkage_loss": self._shrinkage.penalty(step)}

    def _choose(self, event: ScheduledEvent, recipe: NeuronRecipe) -> Optional[Shrinkage]:
        """The penalty of an event; None if nothing would leave."""
        seed, subject = self.run.event_seed(event.step), cast(NeuronSubject, self.run.subject)
        evidence = subject.gather(recipe, seed)
        widths = subject.widths(recipe, event, evidence)
        for table in subject.report(recipe, event, widths):
            CONSOLE.print(table)
        selections = subject.select(recipe, widths, evidence, seed)
        columns = leaving_columns(subject.groups, selections)
        if not columns:
            return None
        return Shrinkage(columns, event.step, recipe.shrink_steps, recipe.shrink_weight)

    def after_cut(self, event: PruneEvent) -> None:
        """The columns that were chosen are those of the network from before."""
        self._chosen_for = self._shrinkage = None

    def after_undo(self, event: PruneEvent) -> None:
        """As after a cut."""
        self._chosen_for = self._shrinkage = None

    def replanned(self) -> None:
        """Another cut may choose others."""
        self._chosen_for = self._shrinkage = None
