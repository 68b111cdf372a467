"""How many threads a training takes: measured in its own steps, one against all.

Threads wait for each other at every product. Beside another busy process that makes a step many times slower, while a
small network gains little from a second thread even where it has the machine for itself.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import ClassVar, Optional

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.listeners import Listener

GAIN = 1.15
"""How much faster all threads have to be: one leaves the other cores to other work, and cannot be slowed down by it."""
WARM_UP = 2
"""Steps at the beginning of a measurement that do not count, one for each number: memory and kernels for new sizes."""
FEWEST, MOST = 3, 8
"""Measured steps for each number. The fewest suffice where each of one number is faster than all of the other: a step
may take 20 times as long. The most have to be a power of two."""
INTERVAL = 2000
"""Steps after which it is measured again: what runs beside the training comes and goes."""
SHARE = 50
"""Steps of training for each step's time that a measurement lost."""


def cores() -> int:
    """Cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


class Trial:
    """Times of training steps with one thread and with all, in turns.

    The turns are those of the Thue-Morse sequence, one of each number in every two steps: whatever happens every
    second, fourth or eighth step, such as a step of the optimizer, falls on both alike.

    Args:
        everything: The number of all threads, above 1.
    """

    def __init__(self, everything: int) -> None:
        self.numbers = (1, everything)
        self.seconds: tuple[list[float], list[float]] = ([], [])
        """Of the steps that count, with one thread and with all."""
        self._turn = -WARM_UP

    @property
    def _which(self) -> int:
        return self._turn % 2 if self._turn < 0 else self._turn.bit_count() % 2

    @property
    def number(self) -> int:
        """Threads of the next step."""
        return self.numbers[self._which]

    def note(self, seconds: float) -> None:
        """Takes the time of that step down.

        Args:
            seconds: What it took.
        """
        if self._turn >= 0:
            self.seconds[self._which].append(seconds)
        self._turn += 1

    @property
    def done(self) -> bool:
        """Whether enough was seen."""
        one, every = self.seconds
        if len(one) != len(every) or len(one) < FEWEST:
            return False
        return len(one) >= MOST or max(one) < min(every) or max(every) < min(one)

    @property
    def medians(self) -> tuple[float, float]:
        """Seconds of a step with one thread and with all."""
        one, every = self.seconds
        return median(one), median(every)

    @property
    def choice(self) -> int:
        """The number to go on with."""
        one, every = self.medians
        return self.numbers[one >= GAIN * every]

    @property
    def lost(self) -> float:
        """What the steps of the slower number cost, in steps of the faster."""
        one, every = self.medians
        return abs(sum(self.seconds[0]) - sum(self.seconds[1])) / min(one, every)


class Threads(Listener):
    """The number of threads of a training on a CPU. Outside of `in_force` it neither measures nor sets anything.

    Nothing but the number changes: a measurement takes no steps of its own, draws no random numbers, and looks at what
    lies between two steps, evaluation and saving, not at all.

    Args:
        given: The number that was asked for; None: the faster one, where torch would take several.
        device: Where the training happens. On a GPU nothing is measured.
        clock: Seconds; those that a person waits.
    """

    running: ClassVar[Optional["Threads"]] = None
    """Those of the training that this process is in; None: it is in none."""

    def __init__(
        self, given: Optional[int], device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.number = given
        """Threads between the steps, and of those that are not measured; None: not chosen, all of them."""
        self._measures = given is None and device.type == "cpu"
        self._clock = clock
        self._everything = 1
        self._trial: Optional[Trial] = None
        self._left: Optional[int] = None
        """Steps until it is measured again; None: it never is."""

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Lets a training have its number of threads, and puts the former one back, whatever happens."""
        self._everything = former = torch.get_num_threads()
        if self.number is not None:
            torch.set_num_threads(self.number)
        self._measure()
        Threads.running = self
        try:
            yield
        finally:
            Threads.running = self._trial = self._left = None
            torch.set_num_threads(former)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Stands around each training step, and around nothing else."""
        trial = self._trial
        if trial is None:
            yield
            self._count()
            return
        torch.set_num_threads(trial.number)
        start = self._clock()
        try:
            yield
            seconds = self._clock() - start
        finally:
            torch.set_num_threads(self.between)
        trial.note(seconds)
        if trial.done:
            self._decide(trial)

    @property
    def between(self) -> int:
        """Threads of what is computed between two steps."""
        return self.number or self._everything

    def hold(self) -> None:
        """Stays with the present number from now on."""
        self._measures, self._trial, self._left = False, None, None

    def after_cut(self, event: PruneEvent) -> None:
        """Measures again: a step costs something else now."""
        self._measure()

    def after_undo(self, event: PruneEvent) -> None:
        """Measures again: a step costs what it cost before."""
        self._measure()

    def _measure(self) -> None:
        if self._measures and self._everything > 1:
            self._trial = Trial(self._everything)

    def _count(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0:
            self._measure()

    def _decide(self, trial: Trial) -> None:
        former, self.number = self.number, trial.choice
        self._trial, self._left = None, max(INTERVAL, round(SHARE * trial.lost))
        torch.set_num_threads(self.number)
        if self.number != former:
            one, every = (f"{1000 * seconds:,.1f} ms" for seconds in trial.medians)
            told = (
                f"Threads: {self.number}. A training step takes {one} with 1 and {every} with {self._everything}; "
                "--pipeline.compute.num-threads gives the number"
            )
            CONSOLE.print(escape(told), soft_wrap=True)


def follow_training() -> None:
    """Gives the calling thread the number of the training, if there is one: torch keeps a number for each thread."""
    if Threads.running is not None:
        torch.set_num_threads(Threads.running.between)
