"""The run as the panel sees it: state to show, requests to pass on, and why a request cannot be made."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Optional, Protocol

from torch import Tensor

from nerfstudio_prune.core.events import Phase, PruneEvent, ScheduledEvent, Sizes
from nerfstudio_prune.core.form import Form
from nerfstudio_prune.core.subject import OF_NEURONS, FurtherOutput, Measure, Picture, Subject, Words
from nerfstudio_prune.engine.controller import ActionName, PruneController
from nerfstudio_prune.engine.options import PruneOptions
from nerfstudio_prune.engine.run import event_seed
from nerfstudio_prune.engine.steering import Message, RequestName, Steering
from nerfstudio_prune.viewer.preview import Draft, Preview, Scored, cut_draft, score_draft, take_draft

PREVIEW_RAYS = 512
"""Rays on which the PSNR of a preview is measured; the training waits for it."""
MOST_COUNTS = 1000
"""Changes of the number of units that are remembered."""
TrainingState = Literal["training", "paused", "completed", "none"]


Cut = Mapping[str, Any]
"""Name of a field of the subject's form -> value."""


class Batch(Measure, Protocol):
    """A measure on a batch of rays."""

    def fewer(self, num_rays: int) -> Measure:
        """The measure on at most so many rays."""
        ...


class PrunedPipeline(Protocol):
    """What the panel has to know of a pipeline, of whatever method."""

    controller: Optional[PruneController]
    """What prunes; None where nothing is trained."""
    steering: Optional[Steering]
    """What a person asks of the controller; None where nothing is trained."""
    seed: int
    """Seed of random choices where nothing is trained."""
    datamanager: Any
    """The host's data manager."""

    @property
    def options(self) -> PruneOptions:
        """Options in force."""
        ...

    @property
    def subject(self) -> Subject[Any]:
        """What is pruned under them."""
        ...

    @property
    def measure(self) -> Batch:
        """Quality of the model."""
        ...

    def subject_of(self, options: Any) -> Subject[Any]:
        """What is pruned under other options."""
        ...


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
    target: str
    """Of the planned events, in words."""
    sizes: Sizes
    """As they are."""
    initial: Sizes
    """Before the first event."""
    unit: str
    """What the size of a part is called."""
    labels: Mapping[str, str]
    """Name of each cost -> what it is called."""
    places: Mapping[str, tuple[str, str]]
    """Name of the part -> its row and column in a table."""
    summary: Sequence[tuple[str, str, str]]
    """What the whole costs: label, at first, now."""
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
    stage: str = ""
    """Where the run stands, in a word; empty: its phase."""
    rule: str = ""
    """By what the last event went."""
    remark: str = ""
    """What else is worth to be known of the network; empty if nothing is."""
    words: Words = OF_NEURONS
    """What a person reads of the subject."""


class Session:
    """A pipeline in a viewer, with or without a training.

    Args:
        pipeline: The pipeline.
        lock: The trainer's lock; what the viewer renders with.
        training: What the trainer does.
        step: Training step where there is no trainer.
        closed: Why whoever looks on may not steer; empty if they may.
    """

    def __init__(
        self,
        pipeline: PrunedPipeline,
        lock: AbstractContextManager[object],
        training: Callable[[], TrainingState],
        step: Callable[[], int],
        closed: Callable[[], str] = str,
    ) -> None:
        self.pipeline = pipeline
        self.lock = lock
        self.training = training
        self.closed = closed
        self._step = step
        self._sizes: Optional[tuple[object, Sizes, Sizes]] = None
        self._measure: Optional[Measure] = None
        self._counts: list[tuple[int, int]] = []
        self.scored: Optional[Scored] = None
        """What the units were worth when a person wanted to see it last."""

    @property
    def options(self) -> PruneOptions:
        """Options in force."""
        return self.pipeline.options

    @property
    def form(self) -> Form:
        """What a person may choose."""
        return self.pipeline.subject.form

    @property
    def step(self) -> int:
        """Training step that ended last."""
        controller = self.pipeline.controller
        return self._step() if controller is None else controller.run.step

    @property
    def paused(self) -> bool:
        """Whether the planned events wait."""
        return self.pipeline.controller is not None and self.pipeline.controller.run.paused

    def pause(self, wanted: bool) -> None:
        """Lets the planned events wait, or go on.

        Args:
            wanted: Whether they wait.

        Raises:
            ValueError: If that cannot be.
        """
        reason = self.obstacle("pause")
        if reason:
            raise ValueError(reason)
        assert self.pipeline.controller is not None
        self.pipeline.controller.run.paused = bool(wanted)

    def status(self) -> Status:
        """The state as it is. Reads plain values only, so that it needs no lock."""
        controller, steering, subject = self.pipeline.controller, self.pipeline.steering, self.pipeline.subject
        state = subject.state
        sizes, initial = self._both_sizes(subject)
        self._note(next(iter(sizes.costs.values()), 0))
        pending, done = state.pending, state.succeeded
        summary = zip(subject.summary(initial), subject.summary(sizes), strict=True)
        return Status(
            phase=state.phase,
            step=self.step,
            training=self.training(),
            paused=self.paused,
            next_event=pending[0] if pending else None,
            target=self.options.resolve().target,
            sizes=sizes,
            initial=initial,
            unit=subject.unit,
            labels=subject.labels,
            places={part: subject.place(part) for part in sizes.parts},
            summary=[(label, first, now) for (label, first), (_, now) in summary],
            rays_per_sec=0.0 if controller is None else controller.rays_per_sec,
            last_event=done[-1] if done else None,
            waiting=() if steering is None else steering.waiting,
            busy="" if steering is None else steering.busy,
            message=Message() if steering is None else steering.message,
            stage=subject.stage(self.step),
            rule=subject.rule(done[-1]) if done else "",
            remark=subject.remark(),
            words=subject.words,
        )

    def _note(self, count: int) -> None:
        """Notes how much there is of what events count, where that has changed."""
        if not self._counts or self._counts[-1][1] != count:
            self._counts = [*self._counts[-MOST_COUNTS:], (self.step, count)]

    def _both_sizes(self, subject: Subject[Any]) -> tuple[Sizes, Sizes]:
        """Sizes now and at first, read off the tensors again only after an event, an undo or growth."""
        state = subject.state
        done = state.succeeded
        shapes = [parameter.shape for parameter in subject.parameters().values()]
        key = (id(state), len(state.history), (done[-1].step, done[-1].scheduled) if done else None, shapes)
        if self._sizes is None or self._sizes[0] != key:
            self._sizes = (key, subject.sizes(), subject.initial_sizes())
        return self._sizes[1:]

    def obstacle(self, name: ActionName) -> str:
        """Why something cannot be done; empty if it can.

        Args:
            name: What is asked for.
        """
        if self.pipeline.controller is None:
            return "nothing is trained here"
        if self.training() == "completed":
            return "the training has ended"
        return self.closed() or self.pipeline.controller.obstacle(name)

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
            self.form.options(cut, self.options)
        assert self.pipeline.steering is not None
        self.pipeline.steering.request(name, cut)

    def preview(self, cut: Cut) -> Preview:
        """Makes a cut on a copy.

        Args:
            cut: The cut.

        Raises:
            ValueError: If it is impossible.
        """
        return cut_draft(self._draft(cut))

    def score(self, cut: Cut) -> Scored:
        """Takes the scores of a cut anew, for the further outputs that need them.

        Args:
            cut: The cut.

        Raises:
            ValueError: If it is impossible, or has no scores.
        """
        self.scored = score_draft(self._draft(cut))
        return self.scored

    def _draft(self, cut: Cut) -> Draft:
        """A copy of the network as it is at the end of a step. The training waits for nothing else."""
        with self.lock:
            controller, step = self.pipeline.controller, self.step
            seed = event_seed(self.pipeline.seed, step) if controller is None else controller.run.event_seed(step)
            options = self.form.options(cut, self.pipeline.subject.at_once(self.options))
            return take_draft(options.resolve(), self.pipeline.subject_of(options), step, seed)

    @property
    def further(self) -> Mapping[str, FurtherOutput]:
        """What the viewer offers beside the outputs of the model and the comparison."""
        return self.pipeline.subject.further_outputs

    def pictures(self) -> Mapping[str, Picture]:
        """Those of them that can be drawn: of what was scored last, and of the last event of this process."""
        controller, subject, scored = self.pipeline.controller, self.pipeline.subject, self.scored
        snapshot = None if controller is None else controller.snapshot
        kept = {} if snapshot is None else snapshot.pictures(subject.device)
        return {**kept, **({} if scored is None else scored.pictures)}

    def quality(self, preview: Preview) -> Optional[tuple[float, float]]:
        """PSNR of the network as it is and of a preview on the same rays, in dB; None where nothing is measured.

        Args:
            preview: The preview.
        """
        if self._measure is None:
            self._measure = self.pipeline.measure.fewer(PREVIEW_RAYS)
        with self.lock:
            models = (self.pipeline.subject.model, preview.model)
            now, then = (self._measure(model).get("psnr") for model in models)
        return None if now is None or then is None else (now, then)

    def before(self) -> Any:
        """The network from before the last event of this process, for rendering; None if it is not kept."""
        controller, subject = self.pipeline.controller, self.pipeline.subject
        snapshot = None if controller is None else controller.snapshot
        return None if snapshot is None else snapshot.view(subject.device)

    def weights(self) -> dict[str, Tensor]:
        """Column of the table of parts -> all values of its parameters, on the CPU."""
        with self.lock:
            return self.pipeline.subject.weights()

    def counts(self) -> list[tuple[int, int]]:
        """Training step, and how much there has been since then of what events count, in this process."""
        counts = self._counts
        return [*counts, (self.step, counts[-1][1])] if counts else []

    def course(self) -> list[tuple[int, float]]:
        """Training steps and PSNR of the training batches in this process, smoothed."""
        controller = self.pipeline.controller
        return [] if controller is None or controller.curve is None else controller.curve.points()

    def history(self) -> list[PruneEvent]:
        """Events that happened, oldest first."""
        return list(self.pipeline.subject.state.history)
