"""What a person asks for while a run goes on: queued by any thread, carried out by the trainer's after a step."""

import threading
import traceback
from dataclasses import dataclass
from typing import Literal, Optional

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.retarget import retarget
from nerfstudio_prune.nerf.cut import Cut

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
        return retarget(controller, config)


def pruned_text(event: PruneEvent) -> str:
    """What an event did, in one line."""
    text = f"{event.parameters_before:,} → {event.parameters_after:,} parameters"
    if "psnr" in event.metrics_before:
        text += f", PSNR {event.metrics_before['psnr']:.2f} → {event.metrics_after['psnr']:.2f} dB"
    return f"{text}, {event.seconds:.1f} s"
