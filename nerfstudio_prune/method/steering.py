"""What a person asks for while a run goes on: queued by any thread, carried out by the trainer's after a step."""

import threading
import traceback
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Optional, get_args

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.schedule import size_at
from nerfstudio_prune.method.allocation import BYTES, budget_of
from nerfstudio_prune.method.choosing import whole_cut
from nerfstudio_prune.method.config import FieldTargetConfig, FilledPruneConfig, PruneConfig
from nerfstudio_prune.method.controller import PruneController
from nerfstudio_prune.method.model import PruneModel
from nerfstudio_prune.method.planning import resolve_targets
from nerfstudio_prune.method.presets import TARGETS
from nerfstudio_prune.method.resuming import plan_options
from nerfstudio_prune.method.sizes import initial_sizes_of
from nerfstudio_prune.neurons.budget import cost_of
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.refit import RefitMode
from nerfstudio_prune.neurons.strategies import STRATEGIES

TargetName = Literal["pruning_ratio", "target_parameters", "target_macs"]
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)
RequestName = Literal["prune", "undo", "retarget"]


@dataclass(frozen=True)
class Cut:
    """How to cut; names and meanings are those of the options under `--pipeline.prune`."""

    strategy: str
    """Which neurons stay; not `edge` or `none`."""
    score: Optional[str]
    """Score of a neuron; None: the strategy's own."""
    refit: RefitMode
    """How the neurons that stay take over what left."""
    target: TargetName
    """The option that says how far."""
    value: float
    """Its value."""
    recovery_lr_factor: float = 1.0
    """Factor on the learning rate from the event on, > 0."""

    def options(self, base: FilledPruneConfig) -> FilledPruneConfig:
        """Options for an event; what a cut does not name is as in the run.

        Args:
            base: Options in force in the run.

        Raises:
            ValueError: If they contradict each other.
        """
        if self.strategy in ("edge", "none"):
            raise ValueError(
                f"prune.strategy {self.strategy} removes no neurons; choose one of {', '.join(STRATEGIES)}"
            )
        config = replace(
            base,
            **dict.fromkeys(TARGETS, None),
            coarse=FieldTargetConfig(),
            fine=FieldTargetConfig(),
            edge_threshold=None,
            edge_keep_fraction=None,
            strategy=self.strategy,
            score=self.score,
            refit=self.refit,
            recovery_lr_factor=self.recovery_lr_factor,
        )
        config = replace(config, **{self.target: self.value})
        config.validate()
        return config

    @classmethod
    def of(cls, config: FilledPruneConfig, model: PruneModel) -> "Cut":
        """The nearest cut to the options of a run; where they name no neurons, those of the default preset.

        Args:
            config: Options in force.
            model: The model, for targets that only a share of the parameters comes near to.
        """
        if config.strategy in ("edge", "none"):
            config = PruneConfig().filled()
        target, value = _nearest_target(config, model)
        return cls(config.strategy, config.score, config.refit, target, value, config.recovery_lr_factor)


@dataclass(frozen=True)
class Message:
    """What became of the last request."""

    text: str = ""
    error: bool = False


class Steering:
    """Takes requests and carries them out; a request that fails changes nothing and ends nothing.

    Args:
        controller: Controller of the run.
    """

    def __init__(self, controller: PruneController) -> None:
        self.controller = controller
        self.message = Message()
        """What became of the last request."""
        self.busy = ""
        """What is being carried out; empty if nothing is."""
        self._lock = threading.Lock()
        self._waiting: dict[RequestName, Optional[Cut]] = {}

    @property
    def waiting(self) -> tuple[RequestName, ...]:
        """Requests that wait for the end of the step, oldest first."""
        with self._lock:
            return tuple(self._waiting)

    def request(self, name: RequestName, cut: Optional[Cut] = None) -> None:
        """Queues a request; one of the same name that still waits is replaced. May be called by any thread.

        Args:
            name: `prune`: go to the cut's target at once; `undo`: go back to before the last event; `retarget`: use
                the cut for the planned events that are still to come.
            cut: The cut, for `prune` and `retarget`.
        """
        assert (cut is None) == (name == "undo")
        with self._lock:
            self._waiting.pop(name, None)
            self._waiting[name] = cut

    def callbacks(self) -> list[TrainingCallback]:
        """Hooks for the host's training loop, to come after the controller's."""
        return [TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.on_step)]

    def on_step(self, step: int) -> None:
        """Carries out what waits.

        Args:
            step: Training step that has just ended.
        """
        if not self._waiting:
            return
        with self._lock:
            requests, self._waiting = self._waiting, {}
        for name, cut in requests.items():
            self.busy = {"prune": "pruning", "undo": "undoing", "retarget": "planning"}[name] + f" at step {step}"
            try:
                text = self._answer(name, cut, step)
                self.message = Message(f"Step {step}: {text}")
                CONSOLE.print(f"By hand at step {step}: {escape(text)}")
            except Exception as error:  # whatever a person asked for, the training goes on
                self.message = Message(f"Step {step}, {name}: {error}", error=True)
                CONSOLE.print(f"[red]By hand at step {step}, {name} failed: {escape(str(error))}")
                if not isinstance(error, ValueError):
                    CONSOLE.print(escape(traceback.format_exc()))
            finally:
                self.busy = ""

    def _answer(self, name: RequestName, cut: Optional[Cut], step: int) -> str:
        controller = self.controller
        if name == "undo":
            event = controller.undo(step)
            text = f"the pruning of step {event.step} is undone, {event.parameters_before:,} parameters again"
            return text if controller.model.prune_state.pending else f"{text}; no event is planned any more"
        assert cut is not None
        config = cut.options(controller.config)
        if name == "prune":
            return pruned_text(controller.prune_by_hand(config, step))
        return self._retarget(config)

    def _retarget(self, config: FilledPruneConfig) -> str:
        """Uses other options for the events to come; their steps and shares stay.

        Raises:
            ValueError: If no event is to come, or the target does not fit the network.
        """
        controller, state = self.controller, self.controller.model.prune_state
        if not state.pending:
            raise ValueError("no event is planned any more")
        if controller.config.strategy == "edge":
            raise ValueError("the plan masks edges (strategy edge); it cannot go on with neurons")
        targets = whole_cut(config, controller.model, controller.step).targets
        if config.has_budget:
            budget_of(config, controller.model)
        initial, pending = state.initial_sizes, state.pending
        changed = []
        for event in pending:
            share = Fraction(event.progress).limit_denominator(10**6)
            widths = {name: size_at(initial[name], width, share, config.round_to) for name, width in targets.items()}
            changed.append(replace(event, targets=widths))
        state.plan = [event for event in state.plan if event not in pending] + changed
        given = {"preset": "paper", **state.options} if state.given is None else state.given
        state.given = {name: value for name, value in {**given, **_named(config)}.items() if value is not None}
        state.options = plan_options(config)
        controller.use(config)
        steps = ", ".join(str(event.step) for event in changed)
        return f"the planned pruning (step {steps}) goes to {target_text(config)}"


def _nearest_target(config: FilledPruneConfig, model: PruneModel) -> tuple[TargetName, float]:
    for name in TARGET_NAMES:
        value = getattr(config, name)
        if value is not None and not config.coarse.given and not config.fine.given:
            return name, value
    initial = initial_sizes_of(model)
    if config.target_mb is not None:
        return "target_parameters", min(1.0, config.target_mb * 1e6 / BYTES / initial.parameters)
    groups = model.neuron_groups()
    own = config.has_neuron_target or config.coarse.given or config.fine.given
    try:
        widths = resolve_targets(config, groups, initial.groups) if own else None
    except ValueError:  # a width above that of a network which is pruned already
        widths = None
    if widths is None:
        return "pruning_ratio", 0.5
    units = dict.fromkeys(linears(groups), 1)
    return "target_parameters", cost_of(groups, {**initial.groups, **widths}, units, True) / initial.parameters


def pruned_text(event: PruneEvent) -> str:
    """What an event did, in one line."""
    text = f"{event.parameters_before:,} → {event.parameters_after:,} parameters"
    if "psnr" in event.metrics_before:
        text += f", PSNR {event.metrics_before['psnr']:.2f} → {event.metrics_after['psnr']:.2f} dB"
    return f"{text}, {event.seconds:.1f} s"


def _named(config: FilledPruneConfig) -> dict[str, object]:
    """The options that a cut names, and what contradicts them as not given."""
    values = plan_options(config)
    names = ("strategy", "score", "refit", "recovery_lr_factor", *TARGETS)
    return {**{name: values[name] for name in names}, "coarse": None, "fine": None}


def target_text(config: FilledPruneConfig) -> str:
    """How far the options go, in a few words."""
    if config.strategy == "edge":
        if config.edge_threshold is not None:
            return f"edge_threshold {config.edge_threshold:g}"
        return f"edge_keep_fraction {0.5 if config.edge_keep_fraction is None else config.edge_keep_fraction:g}"
    if config.has_budget:
        name, value = config.budget_option
        return f"{name} {value:g}"
    if config.group_widths is not None:
        return "group_widths"
    named = [(name, getattr(config, name)) for name in ("width", "head_width", "pruning_ratio")]
    own = [name for name in ("coarse", "fine") if getattr(config, name).given]
    texts = [f"{name} {value:g}" for name, value in named if value is not None]
    return ", ".join([*(texts or ["pruning_ratio 0.5"]), *own])
