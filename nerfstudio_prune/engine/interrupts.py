"""Signals that ask a training to end: noted at once, and raised only where the training is whole."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Optional

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl+C; what machines and schedulers send before they end a process; a terminal that is closed."""


class TrainingInterrupted(SystemExit):
    """A signal ends the training. Nerfstudio would swallow a KeyboardInterrupt and exit with status 0.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class Interrupts:
    """Holds signals back while a training step changes the network; a second signal finds the former handlers.

    Signals that are ignored stay ignored, for example under `nohup`.
    """

    def __init__(self) -> None:
        self.received: Optional[int] = None
        """The signal that arrived."""
        self._former: dict[int, Any] = {}
        self._held = 0
        self._process = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens within the block, on the main thread only: Python hands signals to no other."""
        self.received, self._held, self._process = None, 0, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                former = signal.getsignal(number)
                if former is not None and former is not signal.SIG_IGN:
                    self._former[number] = former
                    signal.signal(number, self._note)
        try:
            yield
        finally:
            self.restore()

    def restore(self) -> None:
        """Puts the former handlers back; safe to call again."""
        while self._former:
            number, former = self._former.popitem()
            if signal.getsignal(number) == self._note:
                signal.signal(number, former)

    def hold(self) -> None:
        """From here on a signal has to wait, until it is released as often."""
        self._held += 1

    def release(self) -> None:
        """From here on a signal need not wait any more.

        Raises:
            TrainingInterrupted: If one has arrived.
        """
        self._held -= 1
        if not self._held and self.received is not None:
            raise TrainingInterrupted(self.received)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds signals back within the block.

        Raises:
            TrainingInterrupted: At its end, if one has arrived and nothing else holds it back.
        """
        self.hold()
        try:
            yield
        finally:
            self.release()

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        former = self._former.get(number, signal.SIG_DFL)
        if os.getpid() != self._process:  # a worker that was forked in the training ends as it would have
            signal.signal(number, former)
            os.kill(os.getpid(), number)
            return
        self.received = number
        self.restore()
        # A print may be under way on this thread; the descriptor takes text at any time.
        name = signal.Signals(number).name
        text = f"\n{name}: the run is saved at the end of the running step and ends; a second signal ends it at once\n"
        try:
            os.write(2, text.encode())
        except OSError:  # the terminal may be what has gone
            pass
        if not self._held:
            raise TrainingInterrupted(number)
