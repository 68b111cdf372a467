"""A lock that is given in the order of asking."""

import threading
from collections import deque
from types import TracebackType
from typing import Optional


class FairLock:
    """Stands in for a `threading.Lock` that several threads take again and again.

    Who releases a plain lock and asks again at once mostly gets it again, and who waits may wait for ever.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._queue: deque[threading.Lock] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Takes the lock when all who asked earlier have had it.

        Args:
            blocking: Whether to wait.
            timeout: Seconds to wait at most; -1 for as long as it takes.

        Returns:
            Whether it was taken.
        """
        turn = threading.Lock()
        turn.acquire()
        try:
            with self._guard:
                if not self._held:
                    self._held = True
                    return True
                if not blocking:
                    return False
                self._queue.append(turn)
            if turn.acquire(timeout=timeout):
                return True
        except BaseException:  # an interrupt from the keyboard: the turn must not be left with nobody
            if not self._withdraw(turn) and turn.acquire(blocking=False):
                self.release()
            raise
        return not self._withdraw(turn)

    def release(self) -> None:
        """Hands it to whoever has waited longest.

        Raises:
            RuntimeError: If nobody holds it.
        """
        with self._guard:
            if not self._held:
                raise RuntimeError("release unlocked lock")
            if self._queue:
                self._queue.popleft().release()
            else:
                self._held = False

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._held

    def _withdraw(self, turn: threading.Lock) -> bool:
        """Waits no longer; False if the lock was handed over in the meantime."""
        with self._guard:
            if turn not in self._queue:
                return False
            self._queue.remove(turn)
            return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.release()
