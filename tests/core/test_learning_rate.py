"""Learning rates after an event."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler

from nerfstudio_prune.core.learning_rate import RecoveryRate, restart_scheduler, set_learning_rate

Build = Callable[[Optimizer, float], LRScheduler]
BUILDERS: dict[str, Build] = {
    "lambda": lambda optimizer, lr: LambdaLR(optimizer, lambda epoch: 0.5**epoch),
    "exponential": lambda optimizer, lr: ExponentialLR(optimizer, gamma=0.5),
}
every_scheduler = pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in BUILDERS.items()])


def make(build: Build, rates: tuple[float, ...] = (0.8,)) -> tuple[Optimizer, LRScheduler]:
    optimizer = SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates], lr=1.0)
    return optimizer, build(optimizer, rates[0])


def rates_of(optimizer: Optimizer, scheduler: LRScheduler, steps: int) -> list[float]:
    """The first group's rate now and after each of some steps."""
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_rate_without_scheduler() -> None:
    """Stock vanilla-nerf has no scheduler; the rate is then just the number asked for, in every group."""
    optimizer, _ = make(BUILDERS["lambda"], (0.8, 0.2))
    set_learning_rate(optimizer, None, 0.05)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]


@every_scheduler
def test_scheduler_goes_on_from_the_new_rate(build: Build) -> None:
    """A scheduler that computes from its base rate would undo the new rate at its very next step, one that multiplies
    would not: both must go on from the new rate with the same relative decay."""
    optimizer, scheduler = make(build)
    assert rates_of(optimizer, scheduler, 2) == pytest.approx([0.8, 0.4, 0.2])
    set_learning_rate(optimizer, scheduler, 0.6)
    assert rates_of(optimizer, scheduler, 3) == pytest.approx([0.6, 0.3, 0.15, 0.075])


@every_scheduler
def test_restarted_scheduler_repeats_its_curve(build: Build) -> None:
    """Retraining promises the schedule from its beginning: the same scheduler object (the host holds it) must give the
    same curve once more, and the rate must be back before the first step that follows."""
    optimizer, scheduler = make(build)
    first = rates_of(optimizer, scheduler, 4)
    restart_scheduler(optimizer, scheduler, build)
    assert rates_of(optimizer, scheduler, 4) == pytest.approx(first)


@every_scheduler
def test_restart_leaves_every_group_at_its_own_rate(build: Build) -> None:
    """Groups with rates of their own must come back to their own beginnings, not to the first group's."""
    optimizer, scheduler = make(build, (0.8, 0.1))
    rates_of(optimizer, scheduler, 3)
    restart_scheduler(optimizer, scheduler, build)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.8, 0.1])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_warm_up_goes_on_to_the_new_rate(steps: int) -> None:
    """Dividing by the tiny rate of a warm-up would multiply every later rate by thousands; the warm-up must go on and
    end at the rate that was asked for."""
    optimizer, scheduler = make(lambda optimizer, lr: LambdaLR(optimizer, lambda epoch: min(1.0, epoch / 4)))
    rates_of(optimizer, scheduler, steps)
    set_learning_rate(optimizer, scheduler, 0.1)
    expected = [0.1 * min(1.0, epoch / 4) for epoch in range(steps, steps + 7)]
    assert rates_of(optimizer, scheduler, 6) == pytest.approx(expected)


def test_restart_into_a_warm_up_ends_at_the_new_rate() -> None:
    """The same after a restart, which begins with the warm-up's first rate."""
    build: Build = lambda optimizer, lr: LambdaLR(optimizer, lambda epoch: max(1e-5, min(1.0, epoch / 2)))  # noqa: E731
    optimizer, scheduler = make(build)
    rates_of(optimizer, scheduler, 5)
    restart_scheduler(optimizer, scheduler, build)
    set_learning_rate(optimizer, scheduler, 0.1)
    assert rates_of(optimizer, scheduler, 4) == pytest.approx([1e-6, 0.05, 0.1, 0.1, 0.1])


def test_detour_by_hand() -> None:
    """Rewinding starts at the rate asked for and comes back evenly on a logarithmic scale; a warm-up rises linearly."""
    assert [RecoveryRate(1.0, 4, 0).rate(0.0001, age) for age in range(6)] == pytest.approx(
        [1.0, 0.1, 0.01, 0.001, 0.0001, 0.0001]
    )
    assert [RecoveryRate(None, 0, 3).rate(0.4, age) for age in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert [RecoveryRate(1.0, 2, 1).rate(0.01, age) for age in range(4)] == pytest.approx([0.5, 0.1, 0.01, 0.01])
    assert RecoveryRate(1.0, 4, 0).rate(0.0, 1) == 0.0
    assert RecoveryRate(1.0, 0, 0).rate(0.3, 0) == 0.3


def test_factor_by_hand() -> None:
    """A detour comes back to the rate with the factor, and a warm-up rises to that; the factor itself does not end."""
    assert RecoveryRate(None, 0, 0).rate(0.1, 10_000, 4.0) == pytest.approx(0.4)
    detour, warm_up = RecoveryRate(1.0, 2, 0), RecoveryRate(None, 0, 1)
    assert [detour.rate(0.0025, age, 4.0) for age in range(4)] == pytest.approx([1.0, 0.1, 0.01, 0.01])
    assert [warm_up.rate(0.1, age, 2.0) for age in range(3)] == pytest.approx([0.1, 0.2, 0.2])


def used_rates(rate: RecoveryRate, build: Build, scheduled: bool, factor: float = 1.0) -> list[tuple[float, float]]:
    """Rate used and rate of the schedule in five steps after an event; checks that the schedule's is put back."""
    optimizer, scheduler = make(build)
    twin, twin_scheduler = make(build)
    used = []
    for age in range(5):
        rate.enter(optimizer, scheduler if scheduled else None, age, factor)
        used.append((optimizer.param_groups[0]["lr"], twin.param_groups[0]["lr"]))
        for one, other in ((optimizer, scheduler), (twin, twin_scheduler)):
            one.step()
            if scheduled:
                other.step()
        rate.leave()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(twin.param_groups[0]["lr"])
    return used


@every_scheduler
@pytest.mark.parametrize("scheduled", [True, False], ids=["scheduler", "none"])
def test_factor_does_not_compound(build: Build, scheduled: bool) -> None:
    """It is set anew in every step; if it stayed in what the scheduler multiplies, the rate would explode."""
    for used, own in used_rates(RecoveryRate(None, 0, 0), build, scheduled, factor=3.0):
        assert used == pytest.approx(3 * own)


@every_scheduler
@pytest.mark.parametrize("scheduled", [True, False], ids=["scheduler", "none"])
def test_detour_leaves_the_schedule_as_it_is(build: Build, scheduled: bool) -> None:
    """The rate that the host saves and its scheduler goes on from must be the schedule's: a resumed run, or the end of
    the detour, would otherwise start from a rate that was meant for a few steps."""
    used = [rate for rate, _ in used_rates(RecoveryRate(0.9, 3, 0), build, scheduled)]
    assert used[0] == pytest.approx(0.9) and used[4] == pytest.approx(0.8 * 0.5**4 if scheduled else 0.8)
