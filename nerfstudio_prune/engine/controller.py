"""Runs pruning events inside a training: due? plan, measure, apply, record. Chooses no neurons itself."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Optional, Protocol

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.curve import TrainingCurve
from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine.auto_start import AutoStart
from nerfstudio_prune.engine.display import allocation_table, event_table, event_text, plan_text
from nerfstudio_prune.engine.machine import seconds_now
from nerfstudio_prune.engine.rates import Rates
from nerfstudio_prune.engine.resuming import plan_options, update_plan
from nerfstudio_prune.engine.scalars import write_scalars
from nerfstudio_prune.engine.snapshots import KeptNetwork
from nerfstudio_prune.nerf.allocation import budget_of
from nerfstudio_prune.nerf.calibration import Calibration
from nerfstudio_prune.nerf.choosing import choose, event_seed, plan_event, whole_cut, widths_at
from nerfstudio_prune.nerf.config import FilledPruneConfig, PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.sizes import Sizes, sizes_of
from nerfstudio_prune.nerf.teacher.schedule import Lessons
from nerfstudio_prune.neurons.edges import apply_masks, same_masks
from nerfstudio_prune.neurons.pruner import Pruning, check_finite, named_parameters
from nerfstudio_prune.neurons.recovery import snapshot
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.shrinkage import Shrinkage, doomed_columns


class Measure(Protocol):
    """Quality of a model as name -> value."""

    description: str
    """What it is measured on."""

    def __call__(self, model: PruneModel) -> dict[str, float]:
        """Measures without touching the run's random state or the order of its data."""
        ...


class PruneController:
    """One per training run. All its work happens on the trainer's thread.

    Args:
        config: Options, validated.
        model: Model that is trained; its `prune_state` is what survives in checkpoints.
        optimizers: The host's optimizers over the model's parameters.
        seed: Seed of the run.
        rays_per_batch: Training rays of one step, for the throughput.
        measure: Quality of the model right before and after an event.
        calibrate: Collects calibration samples for a seed.
        watched: Whether a person looks on, who may want to see the course of the training and to undo an event.
    """

    def __init__(
        self,
        config: PruneConfig,
        model: PruneModel,
        optimizers: Optimizers,
        seed: int,
        rays_per_batch: Callable[[], int],
        measure: Measure,
        calibrate: Callable[[Calibration, int], Mapping[str, Samples]],
        watched: bool = False,
    ) -> None:
        self._given = config
        self.config = config.filled()
        self.model = model
        self.optimizers = optimizers
        self.seed = seed
        self.rays_per_batch = rays_per_batch
        self.measure = measure
        self.calibrate = calibrate
        self.lessons = Lessons(self.config.teacher, model, seed)
        self.rates = Rates(self.config, model, optimizers)
        self.paused = False
        """Whether the planned events wait; holds in this process only."""
        self.kept: Optional[KeptNetwork] = None
        """The network from right before the last event, if a person looks on and it was not undone."""
        self.curve: Optional[TrainingCurve] = TrainingCurve() if watched else None
        """Training PSNR of this process, if a person looks on."""
        self.step = 0
        """Training step that ended last."""
        self._watched = watched
        self._step_seconds: deque[float] = deque(maxlen=100)
        self._step_start = 0.0
        self._first_step = 0
        self._plan_seconds = 0.0
        self._auto_start = AutoStart(None, 0)
        self._shrinkage: Optional[Shrinkage] = None

    def start(self, first_step: int, num_iterations: int, defaults: Optional[PruneConfig] = None) -> None:
        """Checks what was loaded and makes, or takes up, the plan.

        Args:
            first_step: First training step of this run.
            num_iterations: Steps that this run takes.
            defaults: Options of the method as registered, which count as not given. None: nothing does.

        Raises:
            ValueError: If the optimizers do not fit the model, or the options do not give a plan.
        """
        check_optimizers(self.optimizers.optimizers, self.optimizers.parameters, self.model.get_param_groups())
        state = self.model.prune_state
        resumed = bool(state.options)
        self.config, changed = update_plan(
            state, self._given, self.model.neuron_groups(), first_step, num_iterations, defaults
        )
        self._first_step = self.step = first_step
        if self.config.seed is not None:
            self.seed = self.config.seed
        self.lessons = Lessons(self.config.teacher, self.model, self.seed)
        config = self.config
        self.rates = Rates(config, self.model, self.optimizers)
        self._auto_start = AutoStart(config.auto_start, num_iterations)
        state.edge_masks = {name: mask.to(self.model.device) for name, mask in state.edge_masks.items()}
        if self.config.strategy != "none" and self.config.has_budget:
            budget_of(self.config, self.model)
        origin = ""
        if changed:
            origin = f" (that of the checkpoint is replaced; given again: {', '.join(changed)})"
        elif resumed:
            origin = " (taken up from the checkpoint; options that are given again replace it)"
        CONSOLE.print(f"Pruning plan{origin}: {plan_text(state, self.config)}")
        self.lessons.start(first_step, num_iterations)
        late = [event.step for event in state.pending if event.step >= first_step + num_iterations]
        if late:
            CONSOLE.print(f"[yellow]Pruning steps {late} lie past the end of this run; a resumed run does them")
        if self.config.recovery == "rewind" and state.pending and not state.rewind_snapshot:
            first_event = state.pending[0].step
            if not first_step <= self.config.rewind_step < first_event:
                raise ValueError(
                    f"prune.rewind_step must lie between the first step of the run, {first_step}, and the first "
                    f"event at step {first_event}, and no earlier snapshot is in the checkpoint; "
                    f"got {self.config.rewind_step}"
                )

    def observe(self, step: int, psnr: Tensor) -> None:
        """Notes the course of the training, and with option `auto_start` moves all events forward when it is slow.

        Args:
            step: Training step.
            psnr: PSNR of its batch, in dB.
        """
        if self.curve is not None:
            self.curve.add(step, psnr)
        if not self.paused:
            self._auto_start.observe(self.model.prune_state, step, psnr)

    def shrinkage_loss(self, step: int) -> Optional[Tensor]:
        """Penalty on weights that are about to leave; None where there is none.

        Args:
            step: Training step.
        """
        pending = self.model.prune_state.pending
        if not self.config.shrink_steps or self.config.strategy in ("edge", "none") or not pending or self.paused:
            return None
        event = pending[0]
        if not event.step - self.config.shrink_steps < step <= event.step:
            return None
        if self._shrinkage is None or self._shrinkage.last_step != event.step:
            seed = self.event_seed(event.step)
            samples = self._samples(self.config, seed)
            widths = self._widths(self.config, event, samples)
            selections = choose(self.config, self.model, widths, samples, seed)
            columns = doomed_columns(self.model.neuron_groups(), selections)
            if not columns:
                return None
            self._shrinkage = Shrinkage(columns, event.step, self.config.shrink_steps, self.config.shrink_weight)
        return self._shrinkage.penalty(step)

    def callbacks(self) -> list[TrainingCallback]:
        """Hooks for the host's training loop."""
        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.before_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.on_step),
        ]

    @property
    def rays_per_sec(self) -> float:
        """Training rays per second, median over the last 100 steps since an event; 0 if there was none."""
        seconds = list(self._step_seconds)  # one look: the panel's thread asks too
        return self.rays_per_batch() / median(seconds) if seconds else 0.0

    def before_step(self, step: int) -> None:
        """Starts the clock of a training step, and sets its learning rates after an event."""
        self._step_start = time.perf_counter()
        self.rates.before_step(step)

    def on_step(self, step: int) -> None:
        """Does what is due at the end of a training step.

        Args:
            step: Training step that has just ended.
        """
        self.step = step
        self._step_seconds.append(time.perf_counter() - self._step_start)
        self.rates.after_step()
        self.lessons.after_step(step, self._step_seconds[-1])
        state = self.model.prune_state
        if state.edge_masks:
            apply_masks(named_parameters(self.model.neuron_groups()), state.edge_masks)
        due = None if self.paused else state.due(step)
        if self.config.recovery == "rewind" and step == self.config.rewind_step and state.pending and due is None:
            state.rewind_snapshot = snapshot(named_parameters(self.model.neuron_groups()))
        if due is not None:
            self._handle(due, step)
            if not state.pending:
                state.rewind_snapshot = {}
        if step == self._first_step:
            self._write_scalars(step)

    def prune_by_hand(self, config: FilledPruneConfig, step: int) -> PruneEvent:
        """Goes to the target of other options at once, beside the plan.

        Args:
            config: Options, validated.
            step: Training step that has just ended.

        Returns:
            What happened.

        Raises:
            ValueError: If the event is impossible, or would remove nothing. Nothing is changed then.
        """
        check_finite(self.model.neuron_groups())
        pruning = self._plan(config, whole_cut(config, self.model, step), step)
        if not pruning.edits:
            raise ValueError("nothing is left to remove for this target: all layers are that narrow already")
        self._auto_start.stop()
        return self._carry_out(pruning, self._new_event(config, None, step))

    def use(self, config: FilledPruneConfig) -> None:
        """Goes on with other options; the plan is the caller's to change.

        Args:
            config: Options, validated.
        """
        self.config = config
        self.rates = Rates(config, self.model, self.optimizers)
        self._shrinkage = None

    def undo(self, step: int) -> PruneEvent:
        """Goes back to weights, moments and history from before the last event; step and learning rates go on.

        Planned events that were tried since then do not come back, nor do those that they stood in for.

        Args:
            step: Training step that has just ended.

        Returns:
            The event that did not happen any more.

        Raises:
            ValueError: If there is nothing to go back to. Nothing is changed then.
        """
        if self.kept is None:
            raise ValueError("no network is kept: no event happened in this process since the last undo")
        model, state = self.model, self.model.prune_state
        since = state.history[len(self.kept.history) :]
        (undone,) = [event for event in since if not event.error]
        self.kept.restore(model, self.optimizers)
        self.kept = None
        tried = max((event.scheduled.step for event in since if event.scheduled is not None), default=-1)
        settled = [event for event in state.pending if event.step <= tried]
        state.plan = [event for event in state.plan if event not in settled]
        if not state.pending:
            state.rewind_snapshot = {}
        self._auto_start.stop()
        self._shrinkage = None
        self._step_seconds.clear()
        self.lessons.after_undo()
        check_optimizers(self.optimizers.optimizers, self.optimizers.parameters, model.get_param_groups())
        self._write_scalars(step)
        return undone

    def _handle(self, due: ScheduledEvent, step: int) -> None:
        """Carries a due event out; one that would remove nothing only leaves the plan."""
        state = self.model.prune_state
        try:
            check_finite(self.model.neuron_groups())
            pruning = self._plan(self.config, due, step)
        except ValueError as error:
            if self.config.on_error == "stop":
                raise
            self._shrinkage = None
            state.history.append(self._new_event(self.config, due, step, error=str(error)))
            CONSOLE.print(f"[red]Pruning at step {step} failed, training goes on with the network as it was: {error}")
            return
        if not pruning.edits and same_masks(pruning.masks, state.edge_masks):
            self._shrinkage = None
            state.plan = [event for event in state.plan if event is not due]
            CONSOLE.print(f"Pruning at step {step} skipped: nothing is left to remove for its target")
            return
        self._carry_out(pruning, self._new_event(self.config, due, step))

    def _new_event(
        self, config: FilledPruneConfig, scheduled: Optional[ScheduledEvent], step: int, error: str = ""
    ) -> PruneEvent:
        options = {**plan_options(config), "seed": self.seed, "score": config.score_name}
        return PruneEvent(step, scheduled, config.strategy, config.recovery, options, error=error)

    def _carry_out(self, pruning: Pruning, event: PruneEvent) -> PruneEvent:
        """Measures, prunes, measures again and records; nothing is checked any more."""
        model, state = self.model, self.model.prune_state
        event.rays_per_sec_before = self.rays_per_sec
        event.metrics_before = self.measure(model)
        costs_before, before = model.layer_costs(), self.sizes
        event.sizes_before = dict(before.groups)
        event.parameters_before, event.macs_per_ray_before = before.parameters, before.macs_per_ray
        kept = KeptNetwork(model, self.optimizers) if self._watched else None
        self.lessons.before_event(event.step)
        start = self._now()
        pruning.apply()
        model.sync_widths()
        state.edge_masks, state.rewind_snapshot = pruning.masks, pruning.snapshot
        after = self.sizes
        event.sizes_after = dict(after.groups)
        event.parameters_after, event.macs_per_ray_after = after.parameters, after.macs_per_ray
        state.history.append(event)
        self.kept, self._shrinkage = kept, None
        self._step_seconds.clear()
        self.rates.after_event()
        event.seconds = self._plan_seconds + self._now() - start
        event.metrics_after = self.measure(model)
        CONSOLE.print(event_table(event, costs_before, model.layer_costs()))
        CONSOLE.print(event_text(event, self.measure.description))
        self._write_scalars(event.step, event)
        return event

    def _plan(self, config: FilledPruneConfig, aim: ScheduledEvent, step: int) -> Pruning:
        start, seed = self._now(), self.event_seed(step)
        samples = self._samples(config, seed)
        widths = self._widths(config, aim, samples)
        pruning = plan_event(config, self.model, self.optimizers, aim, widths, samples, seed)
        self._plan_seconds = self._now() - start
        return pruning

    def _samples(self, config: FilledPruneConfig, seed: int) -> Optional[Mapping[str, Samples]]:
        """Fresh calibration samples where they are needed."""
        return self.calibrate(config.make_calibration(), seed) if config.needs_samples else None

    def _widths(
        self, config: FilledPruneConfig, aim: ScheduledEvent, samples: Optional[Mapping[str, Samples]]
    ) -> Mapping[str, int]:
        """Widths after an event; an allocation is shown."""
        widths = widths_at(config, self.model, aim, samples)
        if config.has_budget:
            budget = budget_of(config, self.model)
            CONSOLE.print(allocation_table(budget, aim.progress, self.model.neuron_groups(), widths))
        return widths

    def event_seed(self, step: int) -> int:
        """Seed of the random choices of an event at a step."""
        return event_seed(self.seed, step)

    @property
    def sizes(self) -> Sizes:
        """Sizes of the groups, parameters and MACs per ray as they are; with edge masks what lives is counted."""
        return sizes_of(self.model, self.model.prune_state.edge_masks, self.config.strategy == "edge")

    def _now(self) -> float:
        return seconds_now(self.model.device)

    def _write_scalars(self, step: int, event: Optional[PruneEvent] = None) -> None:
        kind = "edges" if self.config.strategy == "edge" else "width"
        write_scalars(step, self.model.prune_state.phase, self.sizes, kind, event)
