"""Shrinks the weights that read neurons about to leave, in the steps before a planned cut."""

from typing import Optional, cast

from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent
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

    def losses(self, step: int) -> dict[str, Tensor]:
        """The penalty on weights that are about to leave, where there is one."""
        pending, recipe = self.run.state.pending, cast(NeuronRecipe, self.run.recipe)
        if not recipe.shrink_steps or not pending or self.run.paused:
            return {}
        event = pending[0]
        if not event.step - recipe.shrink_steps < step <= event.step:
            return {}
        if self._shrinkage is None or self._shrinkage.last_step != event.step:
            seed, subject = self.run.event_seed(event.step), cast(NeuronSubject, self.run.subject)
            evidence = subject.gather(recipe, seed)
            widths = subject.widths(recipe, event, evidence)
            for table in subject.report(recipe, event, widths):
                CONSOLE.print(table)
            selections = subject.select(recipe, widths, evidence, seed)
            columns = leaving_columns(subject.groups, selections)
            if not columns:
                return {}
            self._shrinkage = Shrinkage(columns, event.step, recipe.shrink_steps, recipe.shrink_weight)
        return {"shrinkage_loss": self._shrinkage.penalty(step)}

    def after_cut(self, event: PruneEvent) -> None:
        """The columns that were chosen are those of the network from before."""
        self._shrinkage = None

    def after_undo(self, event: PruneEvent) -> None:
        """As after a cut."""
        self._shrinkage = None

    def replanned(self) -> None:
        """Another cut may choose others."""
        self._shrinkage = None
