"""Stands in for torch's number of threads: it is noted, and no thread is started."""

import pytest
import torch


class CountedThreads:
    """A machine with some cores.

    Args:
        monkeypatch: Puts torch's own functions back.
        number: Threads that torch takes at first.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.number = number
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.number)
        monkeypatch.setattr(torch, "set_num_threads", self._set)

    def _set(self, number: int) -> None:
        assert number >= 1
        self.number = number
