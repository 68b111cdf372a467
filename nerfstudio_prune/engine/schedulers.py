"""The learning rate of a run: exponential decay to its end, on the command line and in checkpoints."""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Optional

import msgspec
import tyro
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

SHARE_LEFT = 0.1
"""What is left of the learning rate at the end, as in the NeRF paper (arXiv 2003.08934, section 5.3)."""


@dataclass
class RunDecaySchedulerConfig(SchedulerConfig):
    """Exponential decay that ends with the run."""

    _target: type = field(default_factory=lambda: RunDecayScheduler)
    lr_pre_warmup: float = 1e-8
    """Learning rate before the warm-up, > 0."""
    lr_final: Optional[float] = None
    """Learning rate at the end, > 0. None: a tenth of the optimizer's; the optimizer's: the rate stays as it is."""
    warmup_steps: int = 0
    """Steps in which the rate rises first, >= 0."""
    warmup_run: Optional[int] = None
    """Length of the run, in steps, that warmup-steps is meant for; a shorter one warms up for the same share of it.
    None: it is taken as it is."""
    max_steps: Optional[int] = None
    """Steps after which the final rate is reached, > warmup-steps. None: max-num-iterations."""
    ramp: Literal["linear", "cosine"] = "cosine"
    """How the rate rises."""
    run_steps: Annotated[Optional[int], tyro.conf.Suppress] = field(default=None, init=False)
    """Steps of the run; the trainer fills them in."""
    place: Annotated[str, tyro.conf.Suppress] = field(default="", init=False)
    """How the options of the optimizer begin on the command line, for messages; the trainer fills it in."""

    def for_run(self, steps: int, place: str = "") -> "RunDecaySchedulerConfig":
        """A copy that knows how long the run is.

        Args:
            steps: Training steps of the run, >= 1.
            place: How the options of its optimizer begin, for example `optimizers.fields.`.
        """
        other = copy(self)
        other.run_steps, other.place = steps, place
        if self.warmup_run is not None:
            other.warmup_steps, other.warmup_run = round(self.warmup_steps * min(1.0, steps / self.warmup_run)), None
        return other


@dataclass(frozen=True)
class DecayCurve:
    """Factor on the first learning rate by the step; the host's exponential decay."""

    lr_init: float
    lr_final: float
    max_steps: int
    warmup_steps: int = 0
    lr_pre_warmup: float = 1e-8
    ramp: Literal["linear", "cosine"] = "cosine"

    def check(self, place: str = "") -> None:
        """Checks the values against each other.

        Args:
            place: How the options begin, for messages.

        Raises:
            ValueError: Names the first one that is wrong.
        """
        for name in ("lr_init", "lr_final", "lr_pre_warmup"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                label = "optimizer.lr" if name == "lr_init" else f"scheduler.{name}"
                raise ValueError(f"{place}{label} must be above 0 and finite for a scheduler, got {value}")
        if self.warmup_steps < 0:
            raise ValueError(f"{place}scheduler.warmup_steps must be at least 0, got {self.warmup_steps}")
        if self.max_steps <= self.warmup_steps:
            raise ValueError(
                f"{place}scheduler.max_steps must be above warmup_steps {self.warmup_steps}, got {self.max_steps} (not "
                "given: max_num_iterations)"
            )

    def __call__(self, step: int) -> float:
        """Factor at a step, counted from the beginning of the curve."""
        if step < self.warmup_steps:
            done = step / self.warmup_steps
            done = math.sin(0.5 * math.pi * done) if self.ramp == "cosine" else done
            return (self.lr_pre_warmup + (self.lr_init - self.lr_pre_warmup) * done) / self.lr_init
        done = min(1.0, (step - self.warmup_steps) / (self.max_steps - self.warmup_steps))
        return (self.lr_final / self.lr_init) ** done


class RunDecayLR(LambdaLR):
    """A scheduler whose curve is part of its state: a resumed run goes on with it, however long it is itself.

    Args:
        optimizer: Live optimizer.
        curve: Factor on the first rate.
        given: Values of the curve that were asked for, by name; they replace what a checkpoint says.
    """

    def __init__(self, optimizer: Optimizer, curve: DecayCurve, given: Mapping[str, Any]) -> None:
        self._given = dict(given)
        super().__init__(optimizer, curve)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and texts; what was asked for belongs to the run at hand."""
        state = super().state_dict()
        del state["_given"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the state of a checkpoint; that of the host's own exponential decay has no curve in it.

        Raises:
            ValueError: If its curve makes no sense. Nothing is changed then.
        """
        stored = next((curve for curve in state_dict["lr_lambdas"] if curve is not None), None)
        curves = self.lr_lambdas if stored is None else [self._resumed(stored)] * len(self.lr_lambdas)
        super().load_state_dict({**state_dict, "lr_lambdas": []})
        self.lr_lambdas = curves

    def _resumed(self, stored: Any) -> DecayCurve:
        try:
            curve = replace(msgspec.convert(stored, DecayCurve), **self._given)
            curve.check()
        except (msgspec.ValidationError, ValueError) as error:
            raise ValueError(f"{error}; --load-scheduler False begins a new schedule") from error
        return curve


class RunDecayScheduler(Scheduler):
    """Makes the scheduler of its configuration."""

    config: RunDecaySchedulerConfig  # type: ignore[assignment]

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> RunDecayLR:
        """A scheduler at its first step.

        Args:
            optimizer: Live optimizer.
            lr_init: Its learning rate.

        Raises:
            ValueError: If the values make no schedule. Names the option.
        """
        config = self.config
        max_steps = config.run_steps if config.max_steps is None else config.max_steps
        if max_steps is None:
            raise ValueError("scheduler.max_steps must be given: this trainer does not fill in the length of the run")
        lr_final = SHARE_LEFT * lr_init if config.lr_final is None else config.lr_final
        curve = DecayCurve(lr_init, lr_final, max_steps, config.warmup_steps, config.lr_pre_warmup, config.ramp)
        curve.check(config.place)
        asked_for = {"lr_final": config.lr_final, "max_steps": config.max_steps}
        given = {name: value for name, value in asked_for.items() if value is not None}
        return RunDecayLR(optimizer, curve, given)
