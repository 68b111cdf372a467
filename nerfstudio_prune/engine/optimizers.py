"""The host's optimizers and schedulers of a run of known length, and the learning rates that TensorBoard shows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from torch import nn

from nerfstudio_prune.engine.schedulers import RunDecaySchedulerConfig

LARGEST_FACTOR = 10.0
"""Largest factor on the rate of a short run."""


@dataclass
class RunAdamOptimizerConfig(AdamOptimizerConfig):
    """Adam with a learning rate that is meant for a run of `rate_steps`; a shorter run has a larger one."""

    rate_steps: Optional[int] = None
    """Length of the run, in steps, that the rate is meant for; a shorter one takes the rate as many times as it is
    shorter, at most ten times. None: the rate is taken as it is."""

    def setup(self, params: Any) -> Any:
        """The optimizer.

        Args:
            params: Parameters.
        """
        others = ("_target", "max_norm", "rate_steps")
        return self._target(params, **{name: value for name, value in vars(self).items() if name not in others})

    def for_run(self, steps: int, place: str = "") -> "RunAdamOptimizerConfig":
        """A copy with the rate of a run.

        Args:
            steps: Training steps of the run, >= 1.
            place: How the options begin on the command line; not used.
        """
        shorter = 1.0 if self.rate_steps is None else min(max(1.0, self.rate_steps / steps), LARGEST_FACTOR)
        return replace(self, lr=self.lr * shorter, rate_steps=None)


DEFAULTED = "camera_opt"
"""What the host has an optimizer for where the configuration has none."""


class RunOptimizers(Optimizers):
    """Optimizers whose rates and schedulers know how long the run is.

    Args:
        config: Name -> configurations of `optimizer` and `scheduler`.
        param_groups: Name -> parameters.
        steps: Training steps of the run.

    Raises:
        ValueError: If parameters have no optimizer.
    """

    def __init__(self, config: dict[str, Any], param_groups: dict[str, list[nn.Parameter]], steps: int) -> None:
        for name in param_groups:
            if name not in config and name != DEFAULTED:
                raise ValueError(
                    f"optimizers.{name} is missing: the model has parameters of that name, which would not learn; "
                    f"found {', '.join(sorted(config))}"
                )
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
    place = f"optimizers.{name}."
    return {
        kind: part.for_run(steps, place) if isinstance(part, RunAdamOptimizerConfig | RunDecaySchedulerConfig) else part
        for kind, part in parts.items()
    }
