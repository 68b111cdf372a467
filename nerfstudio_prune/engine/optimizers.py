"""The host's optimizers and schedulers of a run of known length, and the learning rates that TensorBoard shows."""

from collections.abc import Mapping
from typing import Any

from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from torch import nn

from nerfstudio_prune.engine.schedulers import RunDecaySchedulerConfig


class RunOptimizers(Optimizers):
    """Optimizers whose schedulers know how long the run is.

    Args:
        config: Name -> configurations of `optimizer` and `scheduler`.
        param_groups: Name -> parameters.
        steps: Training steps of the run.
    """

    def __init__(self, config: dict[str, Any], param_groups: dict[str, list[nn.Parameter]], steps: int) -> None:
        super().__init__({name: _for_run(name, parts, steps) for name, parts in config.items()}, param_groups)

    def scheduler_step_all(self, step: int) -> None:
        """Steps all schedulers, and writes the rates that the step was done with.

        The host writes what its schedulers give for the next step, which a factor of the recovery is not part of.

        Args:
            step: Training step whose optimizers have stepped.
        """
        for name, optimizer in self.optimizers.items():
            writer.put_scalar(f"learning_rate/{name}", float(optimizer.param_groups[0]["lr"]), step)
        for scheduler in self.schedulers.values():
            scheduler.step()

    def begin_schedulers_without(self, saved: Mapping[str, Any]) -> None:
        """Lets schedulers that a checkpoint knows nothing of begin with it, at the rates that it was saved with.

        Args:
            saved: Name -> state of the schedulers in the checkpoint; the optimizers are loaded already.
        """
        for name in self.schedulers.keys() - saved.keys():
            optimizer = self.optimizers[name]
            for group in optimizer.param_groups:
                group.pop("initial_lr", None)
            rate = float(optimizer.param_groups[0]["lr"])
            scheduler = self.config[name]["scheduler"].setup()
            self.schedulers[name] = scheduler.get_scheduler(optimizer=optimizer, lr_init=rate)
            CONSOLE.print(
                f"[yellow]optimizers.{name}.scheduler: the checkpoint has none; it begins here, at a learning rate of "
                f"{rate:g}"
            )


def _for_run(name: str, parts: dict[str, Any], steps: int) -> dict[str, Any]:
    scheduler = parts["scheduler"]
    known = (
        scheduler.for_run(steps, f"optimizers.{name}.") if isinstance(scheduler, RunDecaySchedulerConfig) else scheduler
    )
    return {**parts, "scheduler": known}
