"""Learning rates after an event, with or without a scheduler."""

from collections.abc import Callable
from typing import Optional

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def set_learning_rate(optimizer: Optimizer, scheduler: Optional[LRScheduler], lr: float) -> None:
    """Sets the rate of every parameter group; a scheduler goes on from there with the same relative decay.

    Args:
        optimizer: Live optimizer.
        scheduler: Its scheduler, if it has one.
        lr: New learning rate, > 0.
    """
    for i, group in enumerate(optimizer.param_groups):
        factor = lr / group["lr"] if group["lr"] else 1.0
        group["lr"] = lr
        if scheduler is not None:
            scheduler.base_lrs[i] *= factor
            group["initial_lr"] = scheduler.base_lrs[i]


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
