"""The run as the panel sees it: state to show, requests to pass on, and why a request cannot be made."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Optional

import torch
from torch import Tensor

from nerfstudio_prune.core.events import Phase, PruneEvent, ScheduledEvent
from nerfstudio_prune.engine.resuming import with_plan_options
from nerfstudio_prune.engine.steering import Message, RequestName
from nerfstudio_prune.nerf.choosing import event_seed
from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.nerf.cut import Cut, target_text
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.pipeline import PrunePipeline
from nerfstudio_prune.nerf.quality import FixedRays
from nerfstudio_prune.nerf.sizes import Sizes, initial_sizes_of, sizes_of
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.viewer.preview import Preview, cut_draft, take_draft

PREVIEW_RAYS = 512
"""Rays on which the PSNR of a preview is measured; the training waits for it."""
ActionName = Literal[RequestName, "pause"]
TrainingState = Literal["training", "paused", "completed", "none"]


@dataclass(frozen=True)
class Status:
    """What the panel shows of a run."""

    phase: Phase
    step: int
    """Training step that ended last."""
    training: TrainingState
    """What the trainer does; `none` where there is none."""
    paused: bool
    """Whether the planned events wait."""
    next_event: Optional[ScheduledEvent]
    strategy: str
    """Of the planned events."""
    target: str
    """Of the planned events, in words."""
    sizes: Sizes
    """As they are."""
    initial: Sizes
    """Before the first event."""
    rays_per_sec: float
    """Training rays per second; 0 if there is no measurement."""
    last_event: Optional[PruneEvent]
    """The newest event that succeeded."""
    waiting: tuple[RequestName, ...]
    """Requests that have not been carried out yet, oldest first."""
    busy: str
    """What is being carried out; empty if nothing is."""
    message: Message
    """What became of the last request."""


class Session:
    """A pipeline in a viewer, with or without a training.

    Args:
        pipeline: The pipeline.
        lock: The trainer's lock; what the viewer renders with.
        training: What the trainer does.
        step: Training step where there is no trainer.
    """

    def __init__(
        self,
        pipeline: PrunePipeline,
        lock: AbstractContextManager[object],
        training: Callable[[], TrainingState],
        step: Callable[[], int],
    ) -> None:
        self.pipeline = pipeline
        self.lock = lock
        self.training = training
        self._step = step
        self._sizes: Optional[tuple[object, Sizes, Sizes]] = None
        self._measure: Optional[FixedRays] = None

    @property
    def config(self) -> FilledPruneConfig:
        """Options in force."""
        controller, state = self.pipeline.controller, self.pipeline.model.prune_state
        if controller is not None:
            return controller.config
        config = self.pipeline.config.prune
        return with_plan_options(config, state.options) if state.options else config.filled()

    @property
    def model(self) -> PruneModel:
        """The model as it is."""
        return self.pipeline.model

    @property
    def step(self) -> int:
        """Training step that ended last."""
        controller = self.pipeline.controller
        return self._step() if controller is None else controller.step

    @property
    def paused(self) -> bool:
        """Whether the planned events wait."""
        return self.pipeline.controller is not None and self.pipeline.controller.paused

    @paused.setter
    def paused(self, value: bool) -> None:
        if self.pipeline.controller is not None:
            self.pipeline.controller.paused = value

    @property
    def last_event(self) -> Optional[PruneEvent]:
        """The newest event that succeeded."""
        done = [event for event in self.pipeline.model.prune_state.history if not event.error]
        return done[-1] if done else None

    def status(self) -> Status:
        """The state as it is. Reads plain values only, so that it needs no lock."""
        controller, steering = self.pipeline.controller, self.pipeline.steering
        state, config = self.pipeline.model.prune_state, self.config
        sizes, initial = self._both_sizes(config)
        pending = state.pending
        return Status(
            phase=state.phase,
            step=self.step,
            training=self.training(),
            paused=self.paused,
            next_event=pending[0] if pending else None,
            strategy=config.strategy,
            target=target_text(config),
            sizes=sizes,
            initial=initial,
            rays_per_sec=0.0 if controller is None else controller.rays_per_sec,
            last_event=self.last_event,
            waiting=() if steering is None else steering.waiting,
            busy="" if steering is None else steering.busy,
            message=Message() if steering is None else steering.message,
        )

    def _both_sizes(self, config: FilledPruneConfig) -> tuple[Sizes, Sizes]:
        """Sizes now and at first, read off the tensors again only after an event or an undo."""
        model, edges = self.pipeline.model, config.strategy == "edge"
        key = (id(model.prune_state), len(model.prune_state.history), self.last_event)
        if self._sizes is None or self._sizes[0] != key:
            initial = sizes_of(model, {}, edges) if edges else initial_sizes_of(model)
            self._sizes = (key, sizes_of(model, model.prune_state.edge_masks, edges), initial)
        return self._sizes[1:]

    def obstacle(self, name: ActionName) -> str:
        """Why something cannot be done; empty if it can.

        Args:
            name: A request, or `pause`.
        """
        controller = self.pipeline.controller
        if controller is None:
            return "nothing is trained here"
        if self.training() == "completed":
            return "the training has ended"
        config, state = controller.config, controller.model.prune_state
        if name == "undo":
            return "" if controller.kept is not None else "no pruning in this process to undo"
        if name == "pause":
            return "" if state.pending or controller.paused else "no event is planned"
        if config.strategy == "edge":
            return "strategy edge masks single weights; the panel removes neurons"
        if name == "retarget":
            return "" if state.pending else "no event is planned"
        if config.recovery == "rewind" and not state.rewind_snapshot:
            return f"recovery rewind has no snapshot: kept from rewind_step {config.rewind_step} to the last event"
        if all(group.width <= config.min_width for group in controller.model.neuron_groups()):
            return f"nothing to prune: all layers are at min_width {config.min_width}"
        return ""

    def request(self, name: RequestName, cut: Optional[Cut] = None) -> None:
        """Passes a request on to the trainer's thread.

        Args:
            name: The request.
            cut: The cut, where it has one.

        Raises:
            ValueError: If it cannot be made, or the cut contradicts itself.
        """
        reason = self.obstacle(name)
        if reason:
            raise ValueError(reason)
        if cut is not None:
            cut.options(self.config)
        assert self.pipeline.steering is not None
        self.pipeline.steering.request(name, cut)

    def preview(self, cut: Cut) -> Preview:
        """Makes a cut on a copy.

        Args:
            cut: The cut.

        Raises:
            ValueError: If it is impossible.
        """
        with self.lock:
            controller, step = self.pipeline.controller, self.step
            seed = event_seed(self.pipeline.seed, step) if controller is None else controller.event_seed(step)
            draft = take_draft(cut.options(self.config), self.model, self.pipeline.calibrate, step, seed)
        return cut_draft(draft)

    def quality(self, preview: Preview) -> Optional[tuple[float, float]]:
        """PSNR of the network as it is and of a preview on the same rays, in dB; None where nothing is measured.

        Args:
            preview: The preview.
        """
        if self._measure is None:
            rays = self.pipeline.measure
            self._measure = FixedRays(rays.dataset, min(PREVIEW_RAYS, rays.num_rays), rays.seed)
        with self.lock:
            now, then = (self._measure(model).get("psnr") for model in (self.pipeline.model, preview.model))
        return None if now is None or then is None else (now, then)

    def before(self) -> Optional[PruneModel]:
        """The network from before the last event of this process, if it is kept."""
        controller = self.pipeline.controller
        kept = None if controller is None else controller.kept
        return None if kept is None else kept.view(self.pipeline.model)

    def weights(self) -> dict[str, Tensor]:
        """Name of each layer -> its weights, copied to the CPU."""
        with self.lock, torch.no_grad():
            groups = self.pipeline.model.neuron_groups()
            return {name: layer.weight.detach().cpu().clone() for name, layer in linears(groups).items()}

    def course(self) -> list[tuple[int, float]]:
        """Training steps and PSNR of the training batches in this process, smoothed."""
        controller = self.pipeline.controller
        return [] if controller is None or controller.curve is None else controller.curve.points()

    def history(self) -> list[PruneEvent]:
        """Events that happened, oldest first."""
        return list(self.pipeline.model.prune_state.history)
