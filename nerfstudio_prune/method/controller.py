"""Runs pruning events inside a training: due? plan, measure, apply, record. Chooses no neurons itself."""

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Optional, Protocol

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.core.learning_rate import restart_scheduler, set_learning_rate
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.method.config import PruneConfig
from nerfstudio_prune.method.console import event_table, event_text, plan_text
from nerfstudio_prune.method.model import PruneModel
from nerfstudio_prune.method.planning import update_plan
from nerfstudio_prune.neurons.edges import apply_masks, edge_masks
from nerfstudio_prune.neurons.groups import linears, match_groups
from nerfstudio_prune.neurons.pruner import Pruning, check_finite, named_parameters, plan_pruning, select_neurons
from nerfstudio_prune.neurons.recovery import snapshot

PHASES = ("dense", "pruning", "recovery")


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
    """

    def __init__(
        self,
        config: PruneConfig,
        model: PruneModel,
        optimizers: Optimizers,
        seed: int,
        rays_per_batch: Callable[[], int],
        measure: Measure,
    ) -> None:
        self.config = config
        self.model = model
        self.optimizers = optimizers
        self.seed = config.seed if config.seed is not None else seed
        self.rays_per_batch = rays_per_batch
        self.measure = measure
        self._step_seconds: deque[float] = deque(maxlen=100)
        self._step_start = 0.0
        self._first_step = 0

    def start(self, first_step: int, num_iterations: int) -> None:
        """Checks what was loaded and makes, or takes up, the plan.

        Args:
            first_step: First training step of this run.
            num_iterations: Steps that this run takes.

        Raises:
            ValueError: If the optimizers do not fit the model, or the options do not give a plan.
        """
        check_optimizers(self.optimizers.optimizers, self.optimizers.parameters, self.model.get_param_groups())
        state, config = self.model.prune_state, self.config
        resumed = bool(state.options)
        changed = update_plan(state, config, self.model.neuron_groups(), first_step, num_iterations)
        self._first_step = first_step
        if changed:
            CONSOLE.print(f"[yellow]Pruning plan of the checkpoint replaced; given again: {', '.join(changed)}")
        label = "Pruning plan taken up from the checkpoint" if resumed and not changed else "Pruning plan"
        CONSOLE.print(f"{label}: {plan_text(state)} (phase {state.phase})")
        if config.recovery == "rewind" and state.pending and not state.rewind_snapshot:
            first_event = state.pending[0].step
            if not first_step <= config.rewind_step < first_event:
                raise ValueError(
                    f"prune.rewind_step must lie between the first step of the run, {first_step}, and the first "
                    f"event at step {first_event}, and no earlier snapshot is in the checkpoint; "
                    f"got {config.rewind_step}"
                )

    def callbacks(self) -> list[TrainingCallback]:
        """Hooks for the host's training loop."""
        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.before_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.on_step),
        ]

    @property
    def rays_per_sec(self) -> float:
        """Training rays per second, median over the last 100 steps since an event; 0 if there was none."""
        return self.rays_per_batch() / median(self._step_seconds) if self._step_seconds else 0.0

    def before_step(self, step: int) -> None:
        """Starts the clock of a training step."""
        self._step_start = time.perf_counter()

    def on_step(self, step: int) -> None:
        """Does what is due at the end of a training step.

        Args:
            step: Training step that has just ended.
        """
        self._step_seconds.append(time.perf_counter() - self._step_start)
        state = self.model.prune_state
        if state.edge_masks:
            apply_masks(named_parameters(self.model.neuron_groups()), state.edge_masks)
        if self.config.recovery == "rewind" and step == self.config.rewind_step and not state.history:
            state.rewind_snapshot = snapshot(named_parameters(self.model.neuron_groups()))
        due = state.due(step)
        if due is not None:
            self._handle(due, step)
        if step == self._first_step:
            self._write_scalars(step)

    def _handle(self, due: ScheduledEvent, step: int) -> None:
        """Carries a due event out; an event that would remove nothing only leaves the plan."""
        if self.config.strategy != "edge":
            groups = self.model.neuron_groups()
            if all(due.targets.get(group.name, group.width) >= group.width for group in groups):
                self.model.prune_state.plan.remove(due)
                CONSOLE.print(f"Pruning at step {step} skipped: every group is at its target width already")
                return
        try:
            self.run_event(due, step)
        except ValueError as error:
            if self.config.on_error == "stop":
                raise
            failed = PruneEvent(step, due, self.config.strategy, self.config.recovery, error=str(error))
            self.model.prune_state.history.append(failed)
            CONSOLE.print(f"[red]Pruning at step {step} failed, training goes on with the network as it was: {error}")

    def run_event(self, scheduled: ScheduledEvent, step: int) -> PruneEvent:
        """Prunes now.

        Args:
            scheduled: What to do.
            step: Training step that has just ended.

        Returns:
            The record, already part of the history.

        Raises:
            ValueError: If the network cannot be pruned; model and optimizers are as they were.
        """
        model, state = self.model, self.model.prune_state
        check_finite(model.neuron_groups())
        event = PruneEvent(step, scheduled, self.config.strategy, self.config.recovery, self.config.score_name)
        event.rays_per_sec_before = self.rays_per_sec
        event.metrics_before = self.measure(model)
        costs_before = model.layer_costs()
        event.sizes_before, event.parameters_before, event.macs_per_ray_before = self._sizes(state.edge_masks)
        start = self._now()
        pruning = self._plan(scheduled, step)
        # Nothing has changed so far; from here on nothing can fail.
        pruning.apply()
        model.sync_widths()
        self._set_learning_rates()
        event.seconds = self._now() - start
        state.edge_masks, state.rewind_snapshot = pruning.masks, pruning.snapshot
        event.sizes_after, event.parameters_after, event.macs_per_ray_after = self._sizes(state.edge_masks)
        state.history.append(event)
        if not state.pending:
            state.rewind_snapshot = {}
        self._step_seconds.clear()
        event.metrics_after = self.measure(model)
        CONSOLE.print(event_table(event, costs_before, model.layer_costs()))
        CONSOLE.print(event_text(event, self.measure.description))
        self._write_scalars(step, event)
        return event

    def _plan(self, scheduled: ScheduledEvent, step: int) -> Pruning:
        config, state = self.config, self.model.prune_state
        groups = self.model.neuron_groups()
        seed = self.seed * 1_000_003 + step
        masks: dict[str, Tensor] = state.edge_masks
        selections = {}
        if config.strategy == "edge":
            masks = {**masks, **self._edge_masks(scheduled)}
            touched = {name.split(".")[0] for name in masks}
        else:
            selections = select_neurons(groups, scheduled.targets, config.make_strategy(), config.make_score(), seed)
            touched = {name.split(".")[0] for name in selections}
        pruning = plan_pruning(
            [group for group in groups if group.name.split(".")[0] in touched],
            selections,
            config.recovery,
            self.optimizers.optimizers,
            self.optimizers.parameters,
            seed,
            masks,
            state.rewind_snapshot,
        )
        return pruning

    def _edge_masks(self, scheduled: ScheduledEvent) -> dict[str, Tensor]:
        config = self.config
        chosen = match_groups(self.model.neuron_groups(), config.groups, "prune.groups")
        layers = {group.name: group.producer for group in chosen}
        if config.edge_threshold is not None:
            return edge_masks(layers, threshold=config.edge_threshold * scheduled.progress)
        keep_fraction = 0.5 if config.edge_keep_fraction is None else config.edge_keep_fraction
        keep_now = 1 - (1 - keep_fraction) * scheduled.progress
        return edge_masks(layers, keep_fraction=keep_now, scope=config.edge_scope)

    def _set_learning_rates(self) -> None:
        for name in self.model.get_param_groups():
            optimizer, scheduler = self.optimizers.optimizers[name], self.optimizers.schedulers.get(name)
            if self.config.recovery == "retrain" and scheduler is not None:
                build = self.optimizers.config[name]["scheduler"].setup().get_scheduler
                restart_scheduler(
                    optimizer, scheduler, lambda model, lr, build=build: build(optimizer=model, lr_init=lr)
                )
            if self.config.recovery_lr is not None:
                set_learning_rate(optimizer, scheduler, self.config.recovery_lr)

    def _sizes(self, masks: dict[str, Tensor]) -> tuple[dict[str, int], int, int]:
        """Sizes of the groups, parameters of both fields and MACs per ray; with edge masks what lives is counted."""
        groups = self.model.neuron_groups()
        costs = self.model.layer_costs()
        parameters, macs = (sum(column) for column in zip(*costs.values(), strict=True))
        if self.config.strategy != "edge":
            return {group.name: group.width for group in groups}, parameters, macs
        weights = {name: layer.weight.numel() for name, layer in linears(groups).items()}
        living = {name: int(masks[f"{name}.weight"].sum()) for name in weights if f"{name}.weight" in masks}
        sizes = {group.name: living.get(group.name, weights[group.name]) for group in groups}
        return sizes, parameters - sum(weights[name] - count for name, count in living.items()), macs

    def _now(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()

    def _write_scalars(self, step: int, event: Optional[PruneEvent] = None) -> None:
        sizes, parameters, macs = self._sizes(self.model.prune_state.edge_masks)
        writer.put_scalar("Prune/parameters", parameters, step)
        writer.put_scalar("Prune/macs_per_ray", macs, step)
        writer.put_scalar("Prune/phase", PHASES.index(self.model.prune_state.phase), step)
        kind = "edges" if self.config.strategy == "edge" else "width"
        for name, size in sizes.items():
            writer.put_scalar(f"Prune/{kind}/{name}", size, step)
        if event is not None:
            for label, metrics in (("before", event.metrics_before), ("after", event.metrics_after)):
                for name, value in metrics.items():
                    writer.put_scalar(f"Prune/{name}_{label}", value, step)
