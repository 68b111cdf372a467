"""What PyTorch takes from a checkpoint without a look is looked at first."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, Adam, AdamW, RAdam
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

from nerfstudio_prune.core.saved_training import (
    check_saved_optimizers,
    check_saved_scaler,
    check_saved_schedulers,
    saved_shapes,
)

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": lambda p: Adam(p, lr=1e-3),
    "amsgrad": lambda p: Adam(p, lr=1e-3, amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: AdamW(p, lr=1e-3),
    "radam": lambda p: RAdam(p, lr=1e-3),
    "sgd": lambda p: SGD(p, lr=1e-3, momentum=0.9),
    "sgd without momentum": lambda p: SGD(p, lr=1e-3),
}
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
    "steps": lambda optimizer: MultiStepLR(optimizer, [2, 3]),
}


class Training:
    """Two layers, an optimizer and a scheduler, three steps on."""

    def __init__(self, optimizer: str = "radam", scheduler: str = "lambda", width: int = 5, steps: int = 3) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
        self.optimizers = {"fields": OPTIMIZERS[optimizer](list(self.model.parameters()))}
        self.schedulers = {"fields": SCHEDULERS[scheduler](self.optimizers["fields"])}
        self.scaler = GradScaler("cpu", enabled=True)
        for _ in range(steps):
            self.model(torch.ones(1, 3)).sum().backward()
            self.optimizers["fields"].step()
            self.schedulers["fields"].step()

    def saved(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return copy.deepcopy(
            {
                "pipeline": self.model.state_dict(),
                "optimizers": {"fields": self.optimizers["fields"].state_dict()},
                "schedulers": {"fields": self.schedulers["fields"].state_dict()},
                "scalers": self.scaler.state_dict(),
            }
        )

    def check(self, saved: dict[str, Any]) -> None:
        """What a loader calls before it loads."""
        shapes = saved_shapes(self.optimizers, self.model, saved["pipeline"])
        check_saved_optimizers(saved["optimizers"], self.optimizers, shapes)
        check_saved_schedulers(saved["schedulers"], self.schedulers)
        check_saved_scaler(saved["scalers"], self.scaler)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_own_states_are_taken(optimizer: str, scheduler: str, steps: int) -> None:
    """A check that refuses what the host itself wrote loses a run. The network of the checkpoint may have other widths
    than the one that is there, and nothing that is there may be touched by the look."""
    saved = Training(optimizer, scheduler, width=4, steps=steps).saved()
    training = Training(optimizer, scheduler, steps=0)
    before = str(training.saved())
    training.check(saved)
    assert str(training.saved()) == before
    # Parameters that an event cleared have no state until their next step.
    saved["optimizers"]["fields"]["state"].pop(1, None)
    training.check(saved)


def test_states_of_other_versions_are_taken() -> None:
    """Earlier versions of PyTorch counted steps in plain numbers and had no switches of today; runs over several
    devices save every name behind `module.`."""
    training = Training()
    saved = training.saved()
    optimizer = saved["optimizers"]["fields"]
    for state in optimizer["state"].values():
        state["step"] = 3
    for name in ("foreach", "capturable", "differentiable", "maximize"):
        optimizer["param_groups"][0].pop(name)
    saved["schedulers"]["fields"]["verbose"] = False
    training.check(saved)
    optimizer["state"][0]["exp_avg"] = torch.zeros(4, 3)
    entries = {f"module.{name}": value for name, value in saved["pipeline"].items()}
    assert saved_shapes(training.optimizers, training.model, entries)["fields"] == [(5, 3), (5,), (2, 5), (2,)]
    with pytest.raises(ValueError, match=r"'exp_avg' of parameter 0 in optimizer 'fields' has shape \(4, 3\)"):
        training.check({**saved, "pipeline": entries})


def state(number: int, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["optimizers"]["fields"]["state"][number].update({key: value})


def group(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["optimizers"]["fields"]["param_groups"][0].update({key: value})


def schedule(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["schedulers"]["fields"].update({key: value})


def scale(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["scalers"].update({key: value})


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(saved: Any) -> None:
        for key in path[:-1]:
            saved = saved[key]
        del saved[path[-1]]

    return change


NAN = float("nan")
PLACE = "of parameter 0 in optimizer 'fields'"
DAMAGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (state(0, "exp_avg", torch.zeros(3, 5)), f"'exp_avg' {PLACE} has shape (3, 5), expected (5, 3)"),
    (state(0, "exp_avg", torch.full((5, 3), NAN)), f"'exp_avg' {PLACE}: 15 of 15 values are not finite"),
    (state(0, "exp_avg_sq", torch.full((5, 3), -1.0)), f"'exp_avg_sq' {PLACE} must be at least 0"),
    (state(0, "exp_avg", torch.zeros(1).expand(5, 3)), "a tensor of shape (5, 3) takes 60 bytes, and the file holds 4"),
    (state(0, "exp_avg", "text"), f"'exp_avg' {PLACE}: expected a tensor, got str"),
    (state(0, "exp_avg", torch.zeros(5, 3).to_sparse()), "expected a dense tensor"),
    (state(0, "step", torch.tensor(NAN)), f"'step' {PLACE}: 1 of 1 values are not finite"),
    (state(0, "step", -1), f"'step' {PLACE} must be at least 0"),
    (state(0, "step", 10**400), f"'step' {PLACE} must lie within ±2^62"),
    (state(0, "other", 1), "parameter 0 in optimizer 'fields': expected exp_avg, exp_avg_sq, step, got exp_avg"),
    (drop("optimizers", "fields", "state", 0, "exp_avg"), "expected exp_avg, exp_avg_sq, step, got exp_avg_sq, step"),
    (drop("optimizers", "fields"), "optimizers: the checkpoint has none, this run has fields"),
    (drop("optimizers", "fields", "state"), "optimizer 'fields': expected param_groups and state, got param_groups"),
    (lambda saved: saved["optimizers"]["fields"]["state"].update({9: {}}), "has a state of parameter 9"),
    (lambda saved: saved["optimizers"]["fields"]["state"].update({"0": {}}), "has a state of parameter '0'"),
    (group("lr", "fast"), "optimizer 'fields', group 0, lr: expected a value like"),
    (group("lr", NAN), "optimizer 'fields', group 0.lr must be finite, got nan"),
    (group("lr", -1.0), "group 0, lr must be in [0, 1], got -1.0"),
    (group("initial_lr", 5e16), "group 0, initial_lr must be in [0, 1], got 5e+16"),
    (schedule("base_lrs", [5e16]), "scheduler 'fields', base_lrs must be in [0, 1], got 5e+16"),
    (schedule("last_epoch", -1), "scheduler 'fields', last_epoch must be in [0, 1e+09], got -1"),
    (group("initial_lr", "text"), "group 0, initial_lr: expected a value like"),
    (group("betas", (0.9, 1.5)), "betas must be in [0, 1), got (0.9, 1.5)"),
    (group("betas", 0.9), "group 0, betas: expected a value like (0.9, 0.999), got 0.9"),
    (group("differentiable", True), "group 0, differentiable: expected a value like False, got True"),
    (group("params", [0, 1, 2]), "expected 4 parameters in 1 groups, got 3"),
    (group("params", [0, 1, 2, 2]), "expected 4 parameters in 1 groups, got 4"),
    (group("params", ["a"]), "expected a list of numbers of parameters"),
    (drop("optimizers", "fields", "param_groups", 0, "eps"), "group 0: eps is missing"),
    (schedule("last_epoch", 2.5), "scheduler 'fields', last_epoch: expected a value like"),
    (schedule("base_lrs", [NAN]), "scheduler 'fields'.base_lrs[0] must be finite, got nan"),
    (schedule("lr_lambdas", [True]), "scheduler 'fields', lr_lambdas[0]: expected a value like None, got True"),
    (schedule("base_lrs", []), "scheduler 'fields', base_lrs: expected a value like"),
    (schedule("step", 3), "scheduler 'fields': has an unknown entry step"),
    (drop("schedulers", "fields", "base_lrs"), "scheduler 'fields': lacks the entry base_lrs"),
    (
        lambda saved: saved["schedulers"].update(other={}),
        "this run has fields; give the scheduler of that run; --load-scheduler False leaves it out",
    ),
    (scale("scale", NAN), "scalers.scale must be finite, got nan"),
    (scale("growth_factor", -2.0), "scalers, growth_factor must be at least 0, got -2.0"),
    (lambda saved: saved["scalers"].clear(), "the run was of another precision"),
    (lambda saved: saved.update(scalers=[]), "scalers: expected values by name, got list"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message[:50] for _, message in DAMAGES])
def test_damage_is_named_before_anything_is_loaded(damage: Callable[[dict[str, Any]], None], message: str) -> None:
    """PyTorch takes most of these without a word and fails, or trains to NaN, later: by then the network is that of the
    checkpoint and the moments are not. Each has to be found before, and named."""
    training = Training()
    saved = training.saved()
    damage(saved)
    with pytest.raises(ValueError) as caught:
        training.check(saved)
    assert message in str(caught.value)


def test_moments_in_one_memory_are_refused() -> None:
    """Four moments that are views of one small one would take four times what the file holds once they are copied."""
    training = Training()
    saved = training.saved()
    shared = torch.zeros(5, 3)
    for number, shape in ((0, (5, 3)), (2, (2, 5)), (1, (5,)), (3, (2,))):
        for key in ("exp_avg", "exp_avg_sq"):
            saved["optimizers"]["fields"]["state"][number][key] = shared.flatten()[: torch.Size(shape).numel()].view(
                shape
            )
    with pytest.raises(ValueError, match=r"optimizer 'fields': 12 tensors take 272 bytes, and the file holds 76 of"):
        training.check(saved)
