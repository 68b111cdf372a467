"""Runs pruning events inside a training: due? prepare, measure, apply, record. Chooses nothing itself."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median
from typing import Any, Literal, Optional

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.curve import TrainingCurve
from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.core.optimizer_state import check_optimizers, copied
from nerfstudio_prune.core.subject import Change, Measure
from nerfstudio_prune.engine.auto_start import AutoStart
from nerfstudio_prune.engine.display import Display, failure_text, tell_failure
from nerfstudio_prune.engine.host import seconds_now
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.options import PruneOptions, Recipe
from nerfstudio_prune.engine.rates import Rates
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.engine.snapshots import NetworkSnapshot

ActionName = Literal["prune", "undo", "retarget", "pause"]


@dataclass(frozen=True)
class Prepared:
    """A change, ready to be applied, with what is known of its event before."""

    change: Change
    seconds: float
    """What it took to prepare it."""
    event: PruneEvent
    """As it will be recorded, without what comes of it."""
    snapshot: Optional[NetworkSnapshot] = None
    """The network from right before, if a person looks on."""


class PruneController:
    """One per training run. All its work happens on the trainer's thread.

    Args:
        run: The run.
        measure: Quality of the model right before and after an event.
        rays_per_batch: Training rays of one step, for the throughput.
        listeners: What else hangs on the hooks, besides rates, auto start and display.
        watched: Whether a person looks on, who may want to see the course of the training and to undo an event.
        keep_checkpoint: Saves the end of a step for good; called before a cut by hand, which does not happen if this
            raises.

    Raises:
        ValueError: If the optimizers do not fit the model.
    """

    def __init__(
        self,
        run: PruneRun,
        measure: Measure,
        rays_per_batch: Callable[[], int],
        listeners: Sequence[Listener] = (),
        watched: bool = False,
        keep_checkpoint: Callable[[int], object] = lambda step: None,
    ) -> None:
        self.run = run
        self.keep_checkpoint = keep_checkpoint
        self.measure = measure
        self.rays_per_batch = rays_per_batch
        self.snapshot: Optional[NetworkSnapshot] = None
        """The network from right before the last event, if a person looks on and it was not undone."""
        self.curve: Optional[TrainingCurve] = TrainingCurve() if watched else None
        """Training PSNR of this process, if a person looks on."""
        self._watched = watched
        self._step_seconds: deque[float] = deque(maxlen=100)
        self._step_start = 0.0
        self._check_optimizers()
        self.listeners = [Rates(run), Display(run, lambda: self.measure.description), *listeners, AutoStart(run)]
        for listener in self.listeners:
            listener.started()

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

    def observe(self, step: int, psnr: Tensor) -> None:
        """Notes the course of the training.

        Args:
            step: Training step.
            psnr: PSNR of its batch, in dB.
        """
        if self.curve is not None:
            self.curve.add(step, psnr)
        for listener in self.listeners:
            listener.observe(step, psnr)

    def losses(self, step: int) -> dict[str, Tensor]:
        """Losses of the listeners, by name.

        Args:
            step: Training step.
        """
        found: dict[str, Tensor] = {}
        for listener in self.listeners:
            found.update(listener.losses(step))
        return found

    def before_step(self, step: int) -> None:
        """Starts the clock of a training step.

        Args:
            step: Training step that begins.
        """
        self._step_start = time.perf_counter()
        for listener in self.listeners:
            listener.before_step(step)

    def on_step(self, step: int) -> None:
        """Does what is due at the end of a training step.

        Args:
            step: Training step that has just ended.
        """
        run, state, recipe = self.run, self.run.state, self.run.recipe
        run.step = step
        seconds = time.perf_counter() - self._step_start
        self._step_seconds.append(seconds)
        for listener in self.listeners:
            listener.after_step(step, seconds)
        run.subject.after_step()
        due = None if run.paused else state.due(step)
        if recipe.recovery == "rewind" and step == recipe.rewind_step and state.pending and due is None:
            state.rewind_snapshot = copied(run.subject.parameters())
        if due is not None:
            self._handle(due, step)
            if not state.pending:
                state.rewind_snapshot = {}
        for listener in self.listeners:
            listener.step_done(step)

    def settle(self) -> None:
        """Leaves a training step that was broken off as at its end; at the end of a step it changes nothing.

        Raises:
            ValueError: If it was broken off in the midst of a cut.
        """
        for listener in self.listeners:
            listener.settle()
        self.run.subject.after_step()
        self._check_optimizers()

    def obstacle(self, name: ActionName) -> str:
        """Why something cannot be asked for; empty if it can.

        Args:
            name: What is asked for.
        """
        run, form = self.run, self.run.subject.form
        if name == "undo":
            return "" if self.snapshot is not None else "no pruning in this process to undo"
        if name == "pause":
            return "" if run.state.pending or run.paused else "no event is planned"
        earliest, reason = run.subject.earliest()
        if form.closed:
            return form.closed
        if name == "prune" and run.step < earliest:
            return f"{reason}; the first step at whose end an event may happen is {earliest}"
        if name == "retarget":
            return "" if run.state.pending else "no event is planned"
        if run.recipe.recovery == "rewind" and not run.state.rewind_snapshot:
            step = run.recipe.rewind_step
            return f"recovery rewind has no snapshot: kept from rewind_step {step} to the last event"
        return form.exhausted(run.recipe)

    def prune_by_hand(self, options: PruneOptions, step: int) -> PruneEvent:
        """Goes to the target of other options at once, beside the plan.

        Args:
            options: Options, filled in and validated.
            step: Training step that has just ended.

        Returns:
            What happened.

        Raises:
            ValueError: If the event is impossible, or would remove nothing. Nothing is changed then, as with whatever
                else is raised.
        """
        recipe, form, (earliest, reason) = options.resolve(), self.run.subject.form, self.run.subject.earliest()
        if form.closed:
            raise ValueError(form.closed)
        if step < earliest:
            raise ValueError(
                f"step {step} comes too early: {reason}; the first step at whose end an event may happen is {earliest}"
            )
        self.run.subject.check()
        event = ScheduledEvent(step, Fraction(1), self.run.subject.targets(recipe))
        prepared = self._prepare(recipe, event, self._new_event(recipe, None, step))
        if prepared is None:
            raise ValueError("nothing is left to remove for this target: it is reached already")
        return self._carry_out(prepared)

    def retarget(self, options: PruneOptions) -> str:
        """Uses other options for the events to come; their steps and shares stay. Checkpoints take that up.

        Args:
            options: Options, filled in and validated.

        Returns:
            What was changed, in words.

        Raises:
            ValueError: If no event is to come, or the target does not fit the network. Nothing is changed then.
        """
        run, state, form = self.run, self.run.state, self.run.subject.form
        if not state.pending:
            raise ValueError("no event is planned any more")
        if form.closed:
            raise ValueError(form.closed)
        recipe = options.resolve()
        targets = run.subject.targets(recipe)
        pending = state.pending
        changed = [run.subject.scaled(event, targets, state.initial_sizes, recipe.round_to) for event in pending]
        left_out = targets.keys() - {name for event in changed for name in event.targets}
        if changed and left_out:
            raise ValueError(f"no planned event changes {', '.join(sorted(left_out))}; it can be cut by hand")
        given = options.completed_given(state.options) if state.given is None else state.given
        given = {name: value for name, value in {**given, **form.named(options)}.items() if value is not None}
        state.options, state.given = options.stored(), given
        state.plan = [event for event in state.plan if event not in pending] + changed
        run.options, run.recipe = options, recipe
        self._tell("replanned", run.step)
        steps = ", ".join(str(event.step) for event in changed)
        return f"the planned pruning (step {steps}) goes to {recipe.target}"

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
        if self.snapshot is None:
            whole = self.run.subject.words.whole
            raise ValueError(f"no {whole} is kept: no event happened in this process since the last undo")
        run, state = self.run, self.run.state
        since = state.history[len(self.snapshot.history) :]
        (undone,) = [event for event in since if not event.error]
        self.snapshot.restore(run.subject, run.optimizers)
        self.snapshot = None
        tried = max((event.scheduled.step for event in since if event.scheduled is not None), default=-1)
        settled = [event for event in state.pending if event.step <= tried]
        state.plan = [event for event in state.plan if event not in settled]
        if not state.pending:
            state.rewind_snapshot = {}
        self._step_seconds.clear()
        self._check_optimizers()
        self._tell("after_undo", undone.step, undone)
        return undone

    def _handle(self, due: ScheduledEvent, step: int) -> None:
        """Carries a due event out; one that would remove nothing only leaves the plan.

        Whatever fails before the network is cut is the event's failure, which `on_error` is about.
        """
        run, state = self.run, self.run.state
        event = self._new_event(run.recipe, due, step)
        try:
            run.subject.check()
            prepared = self._prepare(run.recipe, due, event)
        except Exception as error:
            if run.recipe.on_error == "stop":
                raise
            state.history = [*state.history, replace(event, error=failure_text(error))]
            whole = run.subject.words.whole
            tell_failure(f"Pruning at step {step} failed, training goes on with the {whole} as it was", error)
            return
        if prepared is None:
            state.plan = [event for event in state.plan if event.index != due.index]
            CONSOLE.print(f"Pruning at step {step} skipped: nothing is left to remove for its target")
            return
        self._carry_out(prepared)

    def _new_event(self, recipe: Recipe, scheduled: Optional[ScheduledEvent], step: int) -> PruneEvent:
        options = {**self.run.subject.recorded(recipe), "seed": self.run.seed, "score": recipe.score}
        if recipe.recovery_lr_rewind is not None and not recipe.recovery_decay:
            options["recovery_decay"] = self.run.last_step - step  # a resumed run may end at another step
        return PruneEvent(step, scheduled, recipe.strategy, recipe.recovery, options)

    def _prepare(self, recipe: Recipe, aim: ScheduledEvent, event: PruneEvent) -> Optional[Prepared]:
        """Chooses, and does all that can fail; None if nothing would be removed.

        Args:
            recipe: How to cut.
            aim: How far.
            event: As it is known so far.
        """
        subject, seed, start = self.run.subject, self.run.event_seed(event.step), self._now()
        evidence = subject.gather(recipe, seed)
        change = subject.prepare(recipe, aim, evidence, self.run.optimizers, seed)
        for part in change.report:
            CONSOLE.print(part)
        seconds = self._now() - start
        if not change.removes:
            return None
        if event.scheduled is None:
            self.keep_checkpoint(event.step)
        event = replace(
            event,
            rays_per_sec_before=self.rays_per_sec,
            metrics_before=self._measured(f"Pruning at step {event.step}: the quality before could not be measured"),
            before=subject.sizes(),
        )
        snapshot = None
        if self._watched:
            snapshot = NetworkSnapshot(subject, self.run.optimizers, subject.leaving(change))
        for listener in self.listeners:
            listener.before_cut(event)
        return Prepared(change, seconds, event, snapshot)

    def _carry_out(self, prepared: Prepared) -> PruneEvent:
        """Prunes, measures and records; nothing is checked any more.

        What fails after the network is cut is told, and the event stands.
        """
        state, subject = self.run.state, self.run.subject
        start = self._now()
        prepared.change.apply()
        event = replace(prepared.event, after=subject.sizes())
        state.history = [*state.history, event]
        self.snapshot = prepared.snapshot
        self._step_seconds.clear()
        self._tell("after_cut", event.step, event)
        event = self._noted(event, seconds=prepared.seconds + self._now() - start)
        done = f"Pruning at step {event.step} is done, but its quality could not be measured"
        event = self._noted(event, metrics_after=self._measured(done))
        self._tell("measured", event.step, event)
        return event

    def _measured(self, otherwise: str) -> dict[str, float]:
        """Quality of the model; empty where it cannot be measured, which is no reason not to prune.

        Args:
            otherwise: What is said then.
        """
        try:
            return self.measure(self.run.subject.model)
        except Exception as error:
            tell_failure(otherwise, error, "yellow")
            return {}

    def _noted(self, event: PruneEvent, **values: Any) -> PruneEvent:
        """The newest event of the history with more of what is known of it."""
        event = replace(event, **values)
        self.run.state.history = [*self.run.state.history[:-1], event]
        return event

    def _tell(self, hook: str, step: int, *event: PruneEvent) -> None:
        """Calls a hook of every listener after the fact: none of them can unmake it."""
        for listener in self.listeners:
            try:
                getattr(listener, hook)(*event)
            except Exception as error:  # the others still have to hear of it
                tell_failure(f"Step {step}, {type(listener).__name__}.{hook} failed", error)

    def _check_optimizers(self) -> None:
        optimizers = self.run.optimizers
        check_optimizers(optimizers.optimizers, optimizers.parameters, self.run.subject.param_groups())

    def _now(self) -> float:
        return seconds_now(self.run.subject.device)
