"""The learning rate of a run: a curve by hand, and what of it a resumed run takes from where."""

import copy
import json
import math
from typing import Any

import pytest
import torch
import tyro
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.utils import writer
from torch.optim import SGD

from nerfstudio_prune.core.learning_rate import RecoveryRate, restart_scheduler
from nerfstudio_prune.engine.optimizers import RunOptimizers
from nerfstudio_prune.engine.schedulers import RunDecayLR, RunDecaySchedulerConfig


def schedule(run_steps: int = 10, lr: float = 0.1, **options: Any) -> tuple[SGD, RunDecayLR]:
    """A scheduler of a run of so many steps."""
    optimizer = SGD([torch.zeros(1)], lr=lr)
    config = RunDecaySchedulerConfig(**options).for_run(run_steps)
    return optimizer, config.setup().get_scheduler(optimizer=optimizer, lr_init=lr)


def rates(optimizer: SGD, scheduler: Any, steps: int) -> list[float]:
    """Rates of so many steps, the present one first."""
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_tenth_is_left_at_the_end_of_the_run() -> None:
    """Whoever asks for 0.008 in 3,000 steps gets 0.008 falling to 0.0008 without another option: by half of the run to
    the geometric mean, and no further when the run goes on."""
    optimizer, scheduler = schedule(run_steps=3000, lr=0.008)
    found = rates(optimizer, scheduler, 3101)
    assert found[0] == 0.008 and found[3000] == pytest.approx(0.0008) == found[3100]
    assert found[1500] == pytest.approx(math.sqrt(0.008 * 0.0008)) and found[300] == pytest.approx(0.008 * 0.1**0.1)
    assert all(type(rate) is float for rate in found)


@pytest.mark.parametrize("ramp", ["linear", "cosine"])
def test_values_that_are_given(ramp: Any) -> None:
    """The options mean what those of the host's exponential decay mean, which `nerf-prune-demo` had before; it is the
    reference."""
    options = {"lr_final": 0.02, "max_steps": 8, "warmup_steps": 3, "lr_pre_warmup": 0.001, "ramp": ramp}
    theirs = SGD([torch.zeros(1)], lr=0.1)
    host = ExponentialDecaySchedulerConfig(**options).setup().get_scheduler(optimizer=theirs, lr_init=0.1)  # type: ignore[arg-type]
    assert rates(*schedule(run_steps=99, **options), 12) == pytest.approx(rates(theirs, host, 12), rel=1e-12)


def test_a_short_run_warms_up_for_the_same_share() -> None:
    """A warm-up of 1,000 steps would outlast a run of 900, which has no schedule then; a longer run needs no more."""
    config = RunDecaySchedulerConfig(warmup_steps=1000, warmup_run=30_000)
    found = [config.for_run(steps).warmup_steps for steps in (900, 3000, 30_000, 60_000)]
    assert found == [30, 100, 1000, 1000]
    assert RunDecaySchedulerConfig(warmup_steps=1000).for_run(900).warmup_steps == 1000


def test_constant_rate() -> None:
    """The way to a constant rate on the command line is to name the same rate for the end."""
    assert rates(*schedule(lr_final=0.1), 12) == [0.1] * 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_final": 0.0}, "scheduler.lr_final must be above 0 and finite for a scheduler, got 0.0"),
        ({"lr_final": math.inf}, "scheduler.lr_final must be above 0 and finite for a scheduler, got inf"),
        ({"lr_final": math.nan}, "scheduler.lr_final must be above 0 and finite for a scheduler, got nan"),
        ({"lr": -1.0}, "optimizer.lr must be above 0 and finite for a scheduler, got -1.0"),
        ({"lr": math.inf}, "optimizer.lr must be above 0 and finite for a scheduler, got inf"),
        ({"lr_pre_warmup": 0.0}, "scheduler.lr_pre_warmup must be above 0"),
        ({"warmup_steps": -1}, "scheduler.warmup_steps must be at least 0, got -1"),
        ({"max_steps": 0}, "scheduler.max_steps must be above warmup_steps 0, got 0"),
        ({"warmup_steps": 10}, "scheduler.max_steps must be above warmup_steps 10, got 10 .not given: max_num_iter"),
        ({"run_steps": 0}, "scheduler.max_steps must be above warmup_steps 0, got 0"),
    ],
)
def test_values_that_make_no_schedule(options: dict[str, Any], message: str) -> None:
    """The host takes each of them and trains with NaN, or divides by zero at the first step behind the warm-up."""
    lr = options.pop("lr", 0.1)
    optimizer = SGD([torch.zeros(1)], lr=0.1)
    config = RunDecaySchedulerConfig(**{k: v for k, v in options.items() if k != "run_steps"})
    with pytest.raises(ValueError, match=message):
        config.for_run(options.get("run_steps", 10)).setup().get_scheduler(optimizer=optimizer, lr_init=lr)


def test_trainer_that_knows_no_length() -> None:
    """A plugin may use the configuration with the host's own trainer, which fills nothing in."""
    with pytest.raises(ValueError, match=r"scheduler\.max_steps must be given"):
        RunDecaySchedulerConfig().setup().get_scheduler(optimizer=SGD([torch.zeros(1)], lr=0.1), lr_init=0.1)
    assert RunDecaySchedulerConfig().for_run(5) != RunDecaySchedulerConfig(), "the copy knows, the original does not"


def resumed(saved: dict[str, Any], run_steps: int, lr: float = 0.1, **options: Any) -> tuple[SGD, RunDecayLR]:
    """A scheduler of another process that took up a state, with the optimizer's rate as in the checkpoint."""
    optimizer, scheduler = schedule(run_steps, lr, **options)
    scheduler.load_state_dict(json.loads(json.dumps(saved)))  # plain numbers and texts, as a checkpoint must hold
    optimizer.param_groups[0]["lr"] = saved["_last_lr"][0]
    return optimizer, scheduler


@pytest.mark.parametrize("run_steps", [6, 10, 10_000])
def test_resumed_run_stays_on_its_curve(run_steps: int) -> None:
    """The host counts the steps of a resumed run from its checkpoint: were the curve stretched to them, a run that was
    killed and resumed by the same command would not be the one that was not killed."""
    whole = rates(*schedule(), 12)
    optimizer, scheduler = schedule()
    rates(optimizer, scheduler, 4)
    assert rates(*resumed(scheduler.state_dict(), run_steps), 8) == whole[4:]


def test_what_is_given_again_holds() -> None:
    """An end that somebody types for the rest of a run must not be ignored for the one that was stored."""
    optimizer, scheduler = schedule(max_steps=10, lr_final=0.01)
    rates(optimizer, scheduler, 5)
    saved = scheduler.state_dict()
    found = rates(*resumed(saved, 99, max_steps=20), 16)
    assert found[1] == pytest.approx(0.1 * 0.1 ** (6 / 20)) and found[15] == pytest.approx(0.01)
    found = rates(*resumed(saved, 99, lr_final=0.001), 6)
    assert found[5] == pytest.approx(0.001)
    # And it is what the next checkpoint holds.
    _, again = resumed(resumed(saved, 99, lr_final=0.001)[1].state_dict(), 7)
    assert again.state_dict()["lr_lambdas"][0]["lr_final"] == 0.001


def test_state_of_the_host_s_scheduler() -> None:
    """Checkpoints of the demo were written with it; it says how far the decay has come and not what it is."""
    theirs = SGD([torch.zeros(1)], lr=0.1)
    host = ExponentialDecaySchedulerConfig(lr_final=0.01, max_steps=10).setup()
    host = host.get_scheduler(optimizer=theirs, lr_init=0.1)
    rates(theirs, host, 4)
    assert rates(*resumed(host.state_dict(), 10), 8) == pytest.approx(rates(theirs, host, 8))


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_steps", "8"), ("max_steps", 0), ("lr_final", math.inf), ("lr_init", 0.0), ("ramp", "steep"), (None, [])],
)
def test_damaged_state_changes_nothing(name: Any, value: Any) -> None:
    """It would show in the middle of the training, or not at all but in the weights."""
    _, scheduler = schedule()
    saved = copy.deepcopy(scheduler.state_dict())
    if name is None:
        saved["lr_lambdas"][0] = value
    else:
        saved["lr_lambdas"][0][name] = value
    saved["last_epoch"] = 7
    before = copy.deepcopy(scheduler.state_dict())
    with pytest.raises(ValueError, match="--load-scheduler False begins a new schedule"):
        scheduler.load_state_dict(saved)
    assert scheduler.state_dict() == before


def test_restart_of_a_resumed_run_repeats_its_own_curve() -> None:
    """Recovery `retrain` begins the schedule anew; built from the options of the resumed run it would be another one
    than in the run that was not interrupted."""
    optimizer, scheduler = schedule()
    rates(optimizer, scheduler, 4)
    optimizer, scheduler = resumed(scheduler.state_dict(), 3)

    def refuse(*args: Any) -> Any:
        raise AssertionError("built from the configuration")

    restart_scheduler(optimizer, scheduler, refuse)
    assert rates(optimizer, scheduler, 12) == rates(*schedule(), 12)


def optimizers(steps: int = 10, lr: float = 0.1, **schedulers: Any) -> RunOptimizers:
    """Optimizers of two parameters; a scheduler of None is a constant rate."""
    default = {"first": RunDecaySchedulerConfig(), "second": None}
    config = {
        name: {"optimizer": AdamOptimizerConfig(lr=lr), "scheduler": scheduler}
        for name, scheduler in {**default, **schedulers}.items()
    }
    return RunOptimizers(config, {name: [torch.nn.Parameter(torch.ones(1))] for name in config}, steps)


def step(found: RunOptimizers, number: int) -> None:
    for optimizer in found.optimizers.values():
        optimizer.step()
    found.scheduler_step_all(number)


def test_rates_that_are_shown_are_those_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor after a cut is what somebody looks for in TensorBoard. Each name once a step, also without a
    scheduler, where the host shows nothing."""
    shown: list[tuple[str, float, int]] = []
    monkeypatch.setattr(writer, "put_scalar", lambda name, scalar, step: shown.append((name, scalar, step)))
    found, recovery = optimizers(), RecoveryRate(None, 0, 0)
    for number in range(4):
        if number >= 2:
            recovery.enter(found.optimizers["first"], found.schedulers["first"], number - 2, factor=3.0)
        step(found, number)
        recovery.leave()
    factors = [1, 1, 3, 3]
    assert shown == [
        entry
        for number in range(4)
        for entry in (
            ("learning_rate/first", pytest.approx(factors[number] * 0.1 * 0.1 ** (number / 10)), number),
            ("learning_rate/second", 0.1, number),
        )
    ]


def test_scheduler_begins_where_the_checkpoint_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of earlier versions had a constant rate. Its steps are counted from the checkpoint, over the steps of this
    run, and from the rate that was trained with; a jump to another rate would throw the network about."""
    old = optimizers(lr=0.2, first=None)
    for number in range(5):
        step(old, number)
    saved = {name: optimizer.state_dict() for name, optimizer in old.optimizers.items()}
    found = optimizers(steps=4, lr=0.1)
    found.load_optimizers(copy.deepcopy(saved))
    found.begin_schedulers_without({})
    seen = []
    for number in range(5, 10):
        seen.append(found.optimizers["first"].param_groups[0]["lr"])
        step(found, number)
    assert seen == pytest.approx([0.2 * 0.1 ** (done / 4) for done in range(5)])
    text = " ".join(capsys.readouterr().out.split())
    assert "optimizers.first.scheduler: the checkpoint has none; it begins here, at a learning rate of 0.2" in text
    assert "second" not in text


def test_messages_name_the_optimizer() -> None:
    """There are two of each option."""
    with pytest.raises(ValueError, match=r"^optimizers\.second\.scheduler\.lr_final must be above 0"):
        optimizers(second=RunDecaySchedulerConfig(lr_final=-1.0))


def test_configuration_is_left_alone() -> None:
    """It is saved as `config.yml` and used for other runs; the length of one run must not stand in it."""
    config = {"only": {"optimizer": AdamOptimizerConfig(), "scheduler": RunDecaySchedulerConfig()}}
    RunOptimizers(config, {"only": [torch.nn.Parameter(torch.ones(1))]}, 10)
    assert config["only"]["scheduler"] == RunDecaySchedulerConfig()


def test_what_the_trainer_fills_in_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` would offer values that no person can know, and that are written over."""
    with pytest.raises(SystemExit):
        tyro.cli(RunDecaySchedulerConfig, default=RunDecaySchedulerConfig(), args=["--help"])
    told = capsys.readouterr().out
    assert "--lr-final" in told and "--run-steps" not in told and "--place" not in told
