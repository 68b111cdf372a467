"""Waits for what another thread does."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], patience: float = 60.0) -> None:
    """Looks again and again until a condition holds.

    Args:
        condition: What is waited for.
        patience: Seconds after which the test has failed.
    """
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
