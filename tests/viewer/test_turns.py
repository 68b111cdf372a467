"""The lock that training and pictures take in turns."""

import threading
import time

import pytest
from support.waiting import wait_until

from nerfstudio_prune.viewer.turns import FairLock


def test_is_given_in_the_order_of_asking() -> None:
    """A thread that releases and asks again at once, as one that renders does, must not be first again."""
    lock, order = FairLock(), list[str]()

    def take(name: str) -> None:
        with lock:
            order.append(name)

    threads = [threading.Thread(target=take, args=(name,)) for name in "abc"]
    lock.acquire()
    for n, thread in enumerate(threads):
        thread.start()
        wait_until(lambda n=n: len(lock._queue) == n + 1)
    lock.release()
    take("again")
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "again"] and not lock.locked()


def test_keeps_others_out() -> None:
    """It is a lock first of all."""
    lock, inside, most = FairLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and not lock.locked()


def test_waits_no_longer_than_asked() -> None:
    """The host takes it in both ways of `threading.Lock`; who gives up must not be handed it later."""
    lock = FairLock()
    assert lock.acquire() and lock.locked()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0.01)
    lock.release()
    assert not lock.locked() and lock.acquire(timeout=0.01)
    lock.release()
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.release()


@pytest.mark.parametrize("handed_over", [False, True])
def test_interrupt_leaves_it_to_the_others(monkeypatch: pytest.MonkeyPatch, handed_over: bool) -> None:
    """Ctrl-C reaches the trainer's thread while it waits, most likely; a turn that is left with nobody would stop all
    the others for ever."""
    lock = FairLock()

    class Interrupted:
        """A turn whose wait is interrupted, before or after the lock was handed over."""

        def acquire(self, blocking: bool = True, timeout: float = 0.0) -> bool:
            if not blocking:
                return handed_over
            if timeout:
                if handed_over:
                    lock.release()
                raise KeyboardInterrupt
            return True

        def release(self) -> None:
            pass

    lock.acquire()
    real = threading.Lock
    monkeypatch.setattr(threading, "Lock", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    monkeypatch.setattr(threading, "Lock", real)
    if not handed_over:
        lock.release()
    assert not lock.locked() and lock.acquire(timeout=1)
