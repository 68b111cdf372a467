"""Learning rates after an event, with or without a scheduler."""

from collections.abc import Callable
from typing import Optional

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
    scheduler.load_state_dict(build(model, rates[0]).state_dict())
    for group, fresh in zip(optimizer.param_groups, model.param_groups, strict=True):
        group["lr"] = fresh["lr"]
