"""Learning rates after an event, with or without a scheduler."""

from collections.abc import Callable
from typing import Any, Optional

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def set_learning_rate(optimizer: Optimizer, scheduler: Optional[LRScheduler], lr: float) -> None:
    """Sets the rate of every parameter group; a scheduler goes on from there with the same relative decay.

    While a `LambdaLR` scheduler still warms up, the warm-up goes on and ends at the new rate instead.

    Args:
        optimizer: Live optimizer.
        scheduler: Its scheduler, if it has one.
        lr: New learning rate, > 0.
    """
    for i, group in enumerate(optimizer.param_groups):
        if isinstance(scheduler, LambdaLR) and _rises(scheduler, i):
            scheduler.base_lrs[i] = group["initial_lr"] = lr
            group["lr"] = lr * float(scheduler.lr_lambdas[i](scheduler.last_epoch))
            continue
        if scheduler is not None and group["lr"] > 0:
            scheduler.base_lrs[i] = group["initial_lr"] = float(scheduler.base_lrs[i]) * lr / group["lr"]
        group["lr"] = lr


class RecoveryRate:
    """After an event: rates that start elsewhere, and come back to those that the schedule gives.

    With a start rate the rate goes from there to the schedule's, evenly on a logarithmic scale ("learning rate
    rewinding", Renda et al. 2020, arXiv 2003.02389, with its decay in a given number of steps); with a warm-up it rises
    from zero to what it would be. A factor holds as long as it is given: narrower layers bear larger rates (Yang et al.
    2022, arXiv 2203.03466, table 3: for Adam in proportion to one over the width). Schedulers are not touched.

    Args:
        start_lr: Rate of the first step after an event, > 0; None: the schedule's.
        decay_steps: Steps until the schedule's rate is reached again, >= 0.
        warm_up_steps: Steps in which the rate rises linearly, >= 0.
        rewind: Start rate as a factor on the first rate of each optimizer, > 0, in place of `start_lr`; None: not so.
    """

    def __init__(
        self, start_lr: Optional[float], decay_steps: int, warm_up_steps: int, rewind: Optional[float] = None
    ) -> None:
        self.start_lr = start_lr if decay_steps else None
        self.decay_steps = decay_steps
        self.warm_up_steps = warm_up_steps
        self.rewind = rewind if decay_steps else None
        self._detours: list[tuple[dict[str, Any], float, float, bool]] = []

    def rate(self, scheduled: float, age: int, factor: float = 1.0, first: Optional[float] = None) -> float:
        """Rate of a training step.

        Args:
            scheduled: What the schedule gives.
            age: Training steps since the event; 0 in the first step after it.
            factor: On the schedule's rate, > 0.
            first: Rate that the optimizer began with. None: the schedule's.
        """
        start = self.start_lr if self.rewind is None else self.rewind * (scheduled if first is None else first)
        rate = scheduled = scheduled * factor
        if start is not None and age < self.decay_steps and scheduled > 0:
            done = age / self.decay_steps
            rate = start ** (1 - done) * scheduled**done
        return rate * min(1.0, (age + 1) / (self.warm_up_steps + 1))

    def enter(self, optimizer: Optimizer, scheduler: Optional[LRScheduler], age: int, factor: float = 1.0) -> None:
        """Sets the rates of a training step; call before it.

        Args:
            optimizer: Live optimizer.
            scheduler: Its scheduler, if it has one.
            age: See `rate`.
            factor: See `rate`.
        """
        for group in optimizer.param_groups:
            scheduled = float(group["lr"])
            group["lr"] = self.rate(scheduled, age, factor, group.get("initial_lr"))
            self._detours.append((group, scheduled, group["lr"], isinstance(scheduler, LambdaLR)))

    def leave(self) -> None:
        """Puts the schedule's rates back; call after the step, when the scheduler has done its own."""
        for group, scheduled, used, from_base in self._detours:
            if group["lr"] == used:
                group["lr"] = scheduled
            elif not from_base and used > 0:  # such a scheduler has multiplied the rate that it found
                group["lr"] *= scheduled / used
        self._detours = []


def _rises(scheduler: LambdaLR, index: int) -> bool:
    factor = scheduler.lr_lambdas[index]
    return bool(factor(scheduler.last_epoch + 1) > factor(scheduler.last_epoch))


def restart_scheduler(
    optimizer: Optimizer, scheduler: LRScheduler, build: Callable[[Optimizer, float], LRScheduler]
) -> None:
    """Puts a scheduler and its optimizer's rate back to the beginning, in place.

    Args:
        optimizer: Live optimizer.
        scheduler: Its scheduler.
        build: Makes an equal scheduler for an optimizer and its initial rate.
    """
    rates = [float(lr) for lr in scheduler.base_lrs]
    model = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in rates], lr=rates[0])
    # Its own curve, which a resumed run may have from its checkpoint, rather than that of the configuration.
    own = isinstance(scheduler, LambdaLR)
    fresh = LambdaLR(model, scheduler.lr_lambdas) if own else build(model, rates[0])
    scheduler.load_state_dict(fresh.state_dict())
    for group, fresh in zip(optimizer.param_groups, model.param_groups, strict=True):
        group["lr"] = fresh["lr"]
