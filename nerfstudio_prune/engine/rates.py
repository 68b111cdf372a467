"""Learning rates of the optimizers whose parameters are pruned."""

from typing import Optional

from torch.optim import Optimizer

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.learning_rate import RecoveryRate, restart_scheduler, set_learning_rate
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.run import PruneRun


class Rates(Listener):
    """What the options of recovery make of the host's learning rates.

    Args:
        run: The run.
    """

    def __init__(self, run: PruneRun) -> None:
        self.run = run
        self.replanned()

    def replanned(self) -> None:
        """Takes up the options in force."""
        self._rate = self._rate_after(None)

    def _rate_after(self, event: Optional[PruneEvent]) -> RecoveryRate:
        """Rates after an event; those that are rewound come down by the end of its run if nothing else is said."""
        recipe, run = self.run.recipe, self.run
        decay = recipe.recovery_decay
        if recipe.recovery_lr_rewind is not None and not decay and event is not None:
            decay = event.options.get("recovery_decay") or run.last_step - event.step
        return RecoveryRate(recipe.recovery_lr, decay, recipe.recovery_warm_up, recipe.recovery_lr_rewind)

    def before_step(self, step: int) -> None:
        """Sets the rates of a training step."""
        done = [event for event in self.run.state.succeeded if self.run.subject.recovers_from(event)]
        if not done:
            return
        self._rate = self._rate_after(done[-1])
        age, factor = step - done[-1].step - 1, self._factor(done[-1])
        for name, optimizer in self._pruned().items():
            self._rate.enter(optimizer, self.run.optimizers.schedulers.get(name), age, factor)

    def _factor(self, event: PruneEvent) -> float:
        """What holds from an event on: by the share of the cut that is done, or what a cut by hand said itself."""
        if event.scheduled is None:
            return float(event.options.get("recovery_lr_factor") or 1)
        return self.run.recipe.recovery_lr_factor**event.scheduled.progress

    def after_step(self, step: int, seconds: float) -> None:
        """Puts the schedule's rates back."""
        self.settle()

    def settle(self) -> None:
        """Puts the schedule's rates back."""
        self._rate.leave()

    def after_cut(self, event: PruneEvent) -> None:
        """Restarts schedulers and sets lasting rates."""
        recipe, optimizers = self.run.recipe, self.run.optimizers
        for name, optimizer in self._pruned().items():
            scheduler = optimizers.schedulers.get(name)
            if recipe.recovery == "retrain" and self.run.subject.restarts_schedules and scheduler is not None:
                build = optimizers.config[name]["scheduler"].setup().get_scheduler
                restart_scheduler(
                    optimizer, scheduler, lambda model, lr, build=build: build(optimizer=model, lr_init=lr)
                )
            if recipe.recovery_lr is not None and not recipe.recovery_decay:
                set_learning_rate(optimizer, scheduler, recipe.recovery_lr)

    def _pruned(self) -> dict[str, Optimizer]:
        """Optimizers of parameters that pruning touches."""
        pruned = {id(parameter) for parameter in self.run.subject.parameters().values()}
        return {
            name: self.run.optimizers.optimizers[name]
            for name, parameters in self.run.subject.param_groups().items()
            if any(id(parameter) in pruned for parameter in parameters)
        }
