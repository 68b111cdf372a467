"""What a person asks for while a run goes on: queued by any thread, carried out by the trainer's after a step."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.display import failure_text, metric_text, tell_failure

RequestName = Literal["prune", "undo", "retarget"]


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
        self._waiting: dict[RequestName, Optional[Mapping[str, Any]]] = {}

    @property
    def waiting(self) -> tuple[RequestName, ...]:
        """Requests that wait for the end of the step, oldest first."""
        with self._lock:
            return tuple(self._waiting)

    def request(self, name: RequestName, cut: Optional[Mapping[str, Any]] = None) -> None:
        """Queues a request; one of the same name that still waits is replaced. May be called by any thread.

        Args:
            name: `prune`: go to the cut's target at once; `undo`: go back to before the last event; `retarget`: use
                the cut for the planned events that are still to come.
            cut: Name of a field of the subject's form -> value, for `prune` and `retarget`.
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
                self.message = Message(f"Step {step}, {name}: {failure_text(error)}", error=True)
                tell_failure(f"By hand at step {step}, {name} failed", error)
            finally:
                self.busy = ""

    def _answer(self, request: RequestName, cut: Optional[Mapping[str, Any]], step: int) -> str:
        controller, subject = self.controller, self.controller.run.subject
        if request == "undo":
            event = controller.undo(step)
            cost = next(iter(event.before.costs.values()))
            text = f"the pruning of step {event.step} is undone, {cost:,} {subject.counted} again"
            return text if controller.run.state.pending else f"{text}; no event is planned any more"
        assert cut is not None
        in_force = controller.run.options
        if request == "prune":
            options = subject.form.options(cut, subject.at_once(in_force))
            return pruned_text(controller.prune_by_hand(options, step), subject)
        return controller.retarget(subject.form.options(cut, in_force))


def pruned_text(event: PruneEvent, subject: Subject[Any]) -> str:
    """What an event did, in one line.

    Args:
        event: What happened.
        subject: What it happened to.
    """
    name, before = next(iter(event.before.costs.items()))
    after = event.after.costs[name]
    text = f"{before:,} → {after:,} {subject.counted}" if before != after else subject.gain(event)
    if event.metrics_before or event.metrics_after:
        text += f", PSNR {metric_text(event, 'psnr')}"
    return f"{text}, {event.seconds:.1f} s"
