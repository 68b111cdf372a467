"""The number of threads is measured in the steps of the training itself, and nothing else of it is touched."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any, Optional

import pytest
import torch
from support.counted_threads import CountedThreads
from support.tiny_run import after_each_step, same_bits, start

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.engine.checkpoints import checkpoint_state
from nerfstudio_prune.engine.threads import FEWEST, GAIN, INTERVAL, MOST, SHARE, WARM_UP, Threads, follow_training
from nerfstudio_prune.raster.threads import in_threads

Config = Callable[..., Any]
CPU = torch.device("cpu")
EVENT: Any = None
"""Of an event only that it happened matters here."""
TURNS = [1, 2, 1, 2, 2, 1, 2, 1]
"""Threads of the first steps of a measurement, written out: a pair that does not count, and the Thue-Morse sequence."""


class Machine:
    """A machine with two cores and a training on it, whose steps take as long as they are told to.

    Args:
        monkeypatch: For `torch`.
        one: Seconds of a step with one thread.
        two: Seconds with two.
        given: The option.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        one: float = 1.0,
        two: float = 1.0,
        given: Optional[int] = None,
        device: torch.device = CPU,
        number: int = 2,
    ) -> None:
        self.torch = CountedThreads(monkeypatch, number)
        self.seconds = {1: one, 2: two}
        self.now = 0.0
        self.threads = Threads(given, device, lambda: self.now)
        self.taken: list[int] = []
        """Threads of each step so far."""
        self.between: list[int] = []
        """Threads behind each step, where the host evaluates."""

    def steps(self, count: int, factor: Callable[[int], float] = lambda step: 1.0, pause: float = 0.0) -> "Machine":
        """Takes steps; `factor` is told the number of each, and `pause` seconds pass behind it."""
        for _ in range(count):
            with self.threads.step():
                self.now += self.seconds[self.torch.number] * factor(len(self.taken))
                self.taken.append(self.torch.number)
            self.between.append(self.torch.number)
            self.now += pause
        return self


@pytest.mark.parametrize(
    ("one", "two", "chosen"), [(1.0, 20.0, 1), (1.0, 0.5, 2), (1.0, 1.0, 1), (GAIN - 0.02, 1, 1), (GAIN + 0.02, 1, 2)]
)
def test_faster_number_is_chosen(
    one: float, two: float, chosen: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two threads beside another program cost twenty times as much; alone they may halve a step. Where they gain little
    the other core is left to others. A person reads what was chosen and by which times."""
    machine = Machine(monkeypatch, one, two)
    with machine.threads.in_force():
        machine.steps(WARM_UP + 2 * MOST + 5)
        assert machine.taken[-5:] == machine.between[-5:] == [chosen] * 5
    (line,) = capsys.readouterr().out.splitlines()
    times = f"A training step takes {1000 * one:,.1f} ms with 1 and {1000 * two:,.1f} ms with 2; --pipeline.compute"
    assert line.startswith(f"Threads: {chosen}. {times}")


@pytest.mark.parametrize(("period", "phase"), [(2, 0), (2, 1), (4, 0), (4, 3), (8, 5)])
def test_what_every_second_step_does_falls_on_both(period: int, phase: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With accumulated gradients the optimizer steps every second or fourth time only; in plain turns all of these
    would have one and the same number of threads, which would look slow."""
    machine = Machine(monkeypatch, one=1.0, two=0.6)
    with machine.threads.in_force():
        machine.steps(40, lambda step: 10.0 if step % period == phase else 1.0)
        assert machine.taken[-1] == 2


def test_steps_of_other_programs_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps that another program held up say nothing of a number of threads; nor does the first pair, which
    gets memory and compiles."""
    machine = Machine(monkeypatch, one=1.0, two=0.6)
    late = [WARM_UP + i for i, number in enumerate(TURNS[WARM_UP:]) if number == 2][:2]
    with machine.threads.in_force():
        machine.steps(40, lambda step: 100.0 if step < WARM_UP or step in late else 1.0)
    assert machine.taken[-1] == 2


def test_numbers_take_turns_and_few_of_them_where_it_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measured step of the slower kind is lost: no more of them than it takes, and never two measurements for one
    question. Steps of mixed times need more of both."""
    machine = Machine(monkeypatch, one=1.0, two=20.0)
    with machine.threads.in_force():
        machine.steps(100)
    clear = WARM_UP + 2 * FEWEST
    assert machine.taken[:clear] == TURNS[:clear] and set(machine.taken[clear:]) == {1}
    mixed = Machine(monkeypatch, one=1.0, two=1.0)
    with mixed.threads.in_force():
        mixed.steps(100, lambda step: 1.0 + step // 2 % 3)
    most = WARM_UP + 2 * MOST
    assert mixed.taken[:most].count(1) == mixed.taken[:most].count(2) == most / 2 and 2 not in mixed.taken[most:]


def test_only_steps_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation and saving lie between two steps and may take minutes. They have the number that was chosen, and all
    threads before that; they are in no step's time."""
    machine = Machine(monkeypatch, one=1.0, two=0.5)
    with machine.threads.in_force():
        machine.steps(10, pause=1000.0)
    assert machine.between == [2] * 10 and machine.taken[:8] == TURNS and machine.taken[-2:] == [2, 2]


def after_cut(threads: Threads) -> None:
    threads.after_cut(EVENT)


def after_undo(threads: Threads) -> None:
    threads.after_undo(EVENT)


@pytest.mark.parametrize("happens", [after_cut, after_undo])
def test_other_sizes_are_measured_anew(
    happens: Callable[[Threads], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A large network may gain from the second thread, and the small one that is left of it not; and back. An answer
    that stays the same is not said again."""
    machine = Machine(monkeypatch, one=1.0, two=0.5)
    with machine.threads.in_force():
        machine.steps(30)
        happens(machine.threads)
        machine.steps(30)
        assert machine.taken[30:38] == TURNS and machine.taken[-1] == 2
        assert capsys.readouterr().out.count("Threads: ") == 1
        machine.seconds = {1: 0.1, 2: 0.2}
        happens(machine.threads)
        machine.steps(30)
        assert machine.taken[-1] == 1 and capsys.readouterr().out.count("Threads: 1. ") == 1
        # In the midst of a measurement the former times say nothing of what there is now.
        happens(machine.threads)
        machine.steps(WARM_UP + 2 * FEWEST - 1)
        machine.seconds = {1: 0.2, 2: 0.1}
        happens(machine.threads)
        assert machine.steps(30).taken[-1] == 2


def test_what_runs_beside_it_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Another program begins in the midst of a run of a day: two threads would be slow to its end."""
    machine = Machine(monkeypatch, one=1.0, two=0.5)
    with machine.threads.in_force():
        machine.steps(10)
        machine.seconds = {1: 1.0, 2: 20.0}
        machine.steps(INTERVAL + 10)
        assert machine.taken[-1] == 1 and set(machine.taken[8 : 8 + INTERVAL]) == {2}
    assert [line.split(".")[0] for line in capsys.readouterr().out.splitlines()] == ["Threads: 2", "Threads: 1"]


def test_measuring_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step with two threads takes a thousand times as long, one look in 2,000 steps would double the time of
    the whole run."""
    machine = Machine(monkeypatch, one=1.0, two=1000.0)
    with machine.threads.in_force():
        machine.steps(10)
        first = machine.now
        machine.steps(round(SHARE * FEWEST * 999) + 10)
        assert machine.taken[10:].count(2) in (3, 4)
        assert machine.now - first < (len(machine.taken) - 10) * (1 + 1.5 / SHARE)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"number": 1}, 1),
        ({"given": 1}, 1),
        ({"given": 2}, 2),
        ({"given": 2, "number": 1}, 2),
        ({"device": torch.device("cuda")}, 2),
    ],
)
def test_nothing_is_measured_where_there_is_no_choice(
    options: dict[str, Any], taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One core, `OMP_NUM_THREADS=1`, a number that is given, or a GPU: every step has the one number, and nobody reads
    of it. The number from before is there again afterwards."""
    machine = Machine(monkeypatch, one=1.0, two=0.5, **options)
    former = machine.torch.number
    with machine.threads.in_force():
        assert machine.torch.number == taken
        machine.steps(10)
        machine.threads.after_cut(EVENT)
        machine.steps(10)
    assert set(machine.taken) == {taken} and machine.torch.number == former
    assert capsys.readouterr().out == ""


def test_number_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who compares the speed before and after a cut needs one number for both."""
    machine = Machine(monkeypatch, one=1.0, two=0.5)
    with machine.threads.in_force():
        machine.steps(20)
        machine.threads.hold()
        machine.seconds = {1: 0.1, 2: 1.0}
        machine.threads.after_cut(EVENT)
        machine.steps(INTERVAL + 20)
    assert set(machine.taken[20:]) == {2}


def test_outside_of_a_training_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks call the steps by hand, at the number of threads that they set themselves."""
    machine = Machine(monkeypatch, one=1.0, two=20.0).steps(20)
    assert machine.taken == [2] * 20


def test_other_threads_follow() -> None:
    """The viewer renders and previews cuts in threads of its own, and each keeps the number that it found at first. A
    preview adds as the event would, in the same order; a picture does not wait for a second thread that steps avoid."""
    found: list[int] = []

    def viewer(first: int) -> None:
        torch.set_num_threads(first)
        follow_training()
        found.append(torch.get_num_threads())

    def asked(first: int) -> None:
        thread = Thread(target=viewer, args=(first,))
        thread.start()
        thread.join()

    with Threads(2, CPU).in_force():
        asked(1)
    with Threads(1, CPU).in_force():
        asked(2)
    asked(3)
    assert found == [2, 1, 3]


def test_step_that_fails_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, or Ctrl+C, leaves no number of a single step behind, and its time is no measurement."""
    machine = Machine(monkeypatch, one=1.0, two=0.5)
    with pytest.raises(KeyboardInterrupt), machine.threads.in_force():
        with pytest.raises(RuntimeError), machine.threads.step():
            assert machine.torch.number == 1
            raise RuntimeError
        assert machine.torch.number == 2
        assert machine.steps(8).taken == TURNS
        with machine.threads.step():
            raise KeyboardInterrupt
    assert machine.torch.number == 2


def test_rasteriser_follows_call_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaussians are rendered by threads of the project's own; a number that is read once would make both kinds of steps
    alike."""
    counted = CountedThreads(monkeypatch, 1)
    asked: list[int] = []

    def pool(number: int) -> ThreadPoolExecutor:
        asked.append(number)
        return ThreadPoolExecutor(1)

    monkeypatch.setattr("nerfstudio_prune.raster.threads.ThreadPoolExecutor", pool)
    for number in (1, 2, 1, 3):
        counted.number = number
        assert in_threads(lambda i: i, 4) == [0, 1, 2, 3]
    assert asked == [2, 3]


# In the host's loop


def watched(trainer: Any, counted: CountedThreads) -> list[int]:
    """Threads of each step that the trainer takes from now on, at its loss."""
    found: list[int] = []
    inner = trainer.pipeline.get_train_loss_dict

    def spy(step: int) -> Any:
        found.append(counted.number)
        return inner(step)

    trainer.pipeline.get_train_loss_dict = spy
    return found


def result_of(trainer: Any) -> dict[str, Any]:
    """All that a training has come to, its random state included, but for what a clock says."""
    state = checkpoint_state(trainer, 9)
    extra = state["pipeline"].pop("_model._extra_state")
    return {**state, "events": [event["step"] for event in extra["history"]], "random": torch.get_rng_state()}


def test_training_is_that_without_a_measurement(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that are measured are those of the training: same batches, same random numbers, same result, and an
    event where it was to be. What it does to the bits that threads add in another order is left out here: no thread is
    started."""
    results, numbers = [], []
    for number in (1, 2):
        counted = CountedThreads(monkeypatch, number)
        trainer = start(tiny_config(f"threads-{number}", start_step=4))
        taken = watched(trainer, counted)
        between: list[int] = []
        after_each_step(trainer, lambda step, between=between, counted=counted: between.append(counted.number))
        trainer.train()
        results.append(result_of(trainer))
        numbers.append(taken)
        assert between == [number] * 10 and counted.number == number
    assert results[0]["events"] == [4] and same_bits(results[0], results[1])
    assert numbers == [[1] * 10, [*TURNS[:5], *TURNS[:5]]]


def test_number_of_before_is_back_after_an_error(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several trainings of one process must not inherit numbers from each other, whatever ended them."""
    counted = CountedThreads(monkeypatch, 2)
    config = tiny_config(start_step=4)
    config.pipeline.compute.num_threads = 1
    trainer = start(config)
    taken = watched(trainer, counted)
    assert counted.number == 2

    def fail(step: int) -> None:
        if step == 2:
            raise RuntimeError("out of memory")

    after_each_step(trainer, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    assert taken == [1, 1, 1] and counted.number == 2


def test_undo_in_a_run_reaches_it(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer hangs it on the controller's hooks, where cuts and undos are heard of."""
    trainer = start(tiny_config(start_step=4))
    assert trainer.threads in trainer.pipeline.controller.listeners
    heard: list[PruneEvent] = []
    monkeypatch.setattr(trainer.threads, "after_cut", heard.append)
    trainer.train()
    assert [event.step for event in heard] == [4]
