"""Learning rates of the optimizers whose layers are pruned."""

from nerfstudio.engine.optimizers import Optimizers
from torch.optim import Optimizer

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.learning_rate import RecoveryRate, restart_scheduler, set_learning_rate
from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.pruner import named_parameters


class Rates:
    """What the options of recovery make of the host's learning rates.

    Args:
        config: Options.
        model: Model that is trained.
        optimizers: The host's optimizers over its parameters.
    """

    def __init__(self, config: FilledPruneConfig, model: PruneModel, optimizers: Optimizers) -> None:
        self.config, self.model, self.optimizers = config, model, optimizers
        self._rate = RecoveryRate(config.recovery_lr, config.recovery_decay, config.recovery_warm_up)

    def before_step(self, step: int) -> None:
        """Sets the rates of a training step."""
        done = [event for event in self.model.prune_state.history if not event.error]
        if not done:
            return
        age, factor = step - done[-1].step - 1, self._factor(done[-1])
        for name, optimizer in self._pruned().items():
            self._rate.enter(optimizer, self.optimizers.schedulers.get(name), age, factor)

    def _factor(self, event: PruneEvent) -> float:
        """What holds from an event on: by the share of the cut that is done, or what a cut by hand said itself."""
        if event.scheduled is None:
            return float(event.options["recovery_lr_factor"])
        return self.config.recovery_lr_factor**event.scheduled.progress

    def after_step(self) -> None:
        """Puts the schedule's rates back."""
        self._rate.leave()

    def after_event(self) -> None:
        """Restarts schedulers and sets lasting rates."""
        for name, optimizer in self._pruned().items():
            scheduler = self.optimizers.schedulers.get(name)
            if self.config.recovery == "retrain" and scheduler is not None:
                build = self.optimizers.config[name]["scheduler"].setup().get_scheduler
                restart_scheduler(
                    optimizer, scheduler, lambda model, lr, build=build: build(optimizer=model, lr_init=lr)
                )
            if self.config.recovery_lr is not None and not self.config.recovery_decay:
                set_learning_rate(optimizer, scheduler, self.config.recovery_lr)

    def _pruned(self) -> dict[str, Optimizer]:
        """Optimizers of layers that pruning touches."""
        pruned = {id(p) for p in named_parameters(self.model.neuron_groups()).values()}
        return {
            name: self.optimizers.optimizers[name]
            for name, parameters in self.model.get_param_groups().items()
            if any(id(p) in pruned for p in parameters)
        }
