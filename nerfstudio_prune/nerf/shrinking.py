"""Shrinks the weights that read neurons about to leave, in the steps before a planned cut."""

from typing import Optional, cast

import msgspec
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.engine.display import tell_failure
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.nerf.recipes import NeuronRecipe
from nerfstudio_prune.nerf.subject import NeuronSubject
from nerfstudio_prune.neurons.shrinkage import Shrinkage, leaving_columns, leaving_neurons

MEMORY = "shrinkage"
"""Name in the pruning state."""


class Ahead(msgspec.Struct, forbid_unknown_fields=True):
    """What was chosen ahead of a cut; survives in checkpoints."""

    step: int
    """Training step at whose end the cut is due."""
    leaving: dict[str, list[int]] = {}
    """Name of the group -> neurons that leave."""


class ShrinkageSchedule(Listener):
    """Chooses the neurons of the next planned cut ahead of time, and penalises what reads them until it happens.

    Args:
        run: The run.

    Raises:
        ValueError: If the checkpoint's choice is none of this network.
    """

    def __init__(self, run: PruneRun) -> None:
        self.run = run
        self._ahead: Optional[Ahead] = None
        self._shrinkage: Optional[Shrinkage] = None
        saved = run.state.memory.get(MEMORY)
        if saved is not None:
            try:
                self._shrink(msgspec.convert(saved, Ahead))
            except (msgspec.ValidationError, ValueError) as error:
                raise ValueError(f"the checkpoint's choice of neurons that shrink cannot be used: {error}") from error

    def losses(self, step: int) -> dict[str, Tensor]:
        """The penalty on weights that are about to leave, where there is one."""
        pending, recipe = self.run.state.pending, cast(NeuronRecipe, self.run.recipe)
        if not recipe.shrink_steps or not pending or self.run.paused:
            return {}
        event = pending[0]
        if not event.step - recipe.shrink_steps < step <= event.step:
            return {}
        if self._ahead is None or self._ahead.step != event.step:
            ahead = Ahead(event.step)
            try:
                ahead.leaving = self._choose(event, recipe)
            except Exception as error:
                if recipe.on_error == "stop":
                    raise
                tell_failure(
                    f"Step {step}: the neurons that leave at step {event.step} cannot be shrunk ahead of it", error
                )
            self._shrink(ahead)
        return {} if self._shrinkage is None else {"shrinkage_loss": self._shrinkage.penalty(step)}

    def _choose(self, event: ScheduledEvent, recipe: NeuronRecipe) -> dict[str, list[int]]:
        seed, subject = self.run.event_seed(event.step), cast(NeuronSubject, self.run.subject)
        evidence = subject.gather(recipe, seed)
        widths = subject.widths(recipe, event, evidence)
        for table in subject.report(recipe, event, widths):
            CONSOLE.print(table)
        return leaving_neurons(subject.groups, subject.select(recipe, widths, evidence, seed))

    def _shrink(self, ahead: Ahead) -> None:
        """Takes a choice up, and lets checkpoints know it: a resumed run would choose others by then."""
        recipe = cast(NeuronRecipe, self.run.recipe)
        self._ahead, self._shrinkage = ahead, None
        if ahead.leaving:
            columns = leaving_columns(cast(NeuronSubject, self.run.subject).groups, ahead.leaving)
            self._shrinkage = Shrinkage(columns, ahead.step, recipe.shrink_steps, recipe.shrink_weight)
        self.run.state.memory[MEMORY] = msgspec.to_builtins(ahead)

    def _forget(self) -> None:
        self._ahead = self._shrinkage = None
        self.run.state.memory.pop(MEMORY, None)

    def after_cut(self, event: PruneEvent) -> None:
        """The columns that were chosen are those of the network from before."""
        self._forget()

    def after_undo(self, event: PruneEvent) -> None:
        """As after a cut."""
        self._forget()

    def replanned(self) -> None:
        """Another cut may choose others."""
        self._forget()
