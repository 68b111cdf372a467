"""Memory that a training frees stays with the process while it trains, and not for longer."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from nerfstudio.engine.trainer import TrainerConfig
from support.tiny_run import make_config, start

from nerfstudio_prune.engine import memory
from nerfstudio_prune.engine.memory import kept_memory

STEP = """
import json, resource
from nerfstudio_prune.engine.memory import kept_memory

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        block = bytearray(80_000_000)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

found = {"before": faults(4), "held before": resident()}
with kept_memory(True):
    faults(1)
    found |= {"kept": faults(4), "held": resident()}
    with kept_memory(False):
        found |= {"within": faults(4)}
    faults(1)
    found |= {"again": faults(4)}
print(json.dumps(found | {"after": faults(4), "held after": resident()}))
"""


class Library:
    """Stands in for glibc: notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def mallopt(self, *arguments: int) -> int:
        self.calls.append(arguments)
        return 1

    def malloc_trim(self, *arguments: int) -> int:
        self.calls.append(arguments)
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: found)
    monkeypatch.setattr(memory, "_is_tuned", lambda: False)
    monkeypatch.setattr(memory, "_kept", False)
    return found


@pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
def test_blocks_that_are_freed_are_used_again() -> None:
    """A step needs what the last one has freed. Each page that the system hands out anew is filled with zeros first, a
    fifth of a step's time. Afterwards the process holds no more than it needs, as others on the machine expect."""
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    pages = 4 * 80_000_000 // resource.getpagesize()
    assert found["kept"] < pages // 20 and found["again"] < pages // 20
    assert all(found[name] > pages // 2 for name in ("before", "within", "after"))
    assert found["held"] - found["held before"] > 60_000_000 > found["held after"] - found["held before"]


def test_state_of_before_comes_back_whatever_happens(library: Library) -> None:
    """A benchmark turns it off for single arms within; a failed training leaves the process as it was."""
    with pytest.raises(RuntimeError), kept_memory(True):
        assert memory._kept
        with kept_memory(True):
            count = len(library.calls)
        assert memory._kept and len(library.calls) == count
        with kept_memory(False):
            assert not memory._kept
        assert memory._kept
        raise RuntimeError
    assert not memory._kept
    assert library.calls[-1] == (0,)
    with kept_memory(False):
        assert not memory._kept


@pytest.mark.parametrize(
    "environment", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}]
)
def test_who_tunes_it_is_left_alone(
    environment: dict[str, str], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who has found the best values for a machine does not want them overwritten."""
    monkeypatch.undo()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with kept_memory(True):
        pass
    assert library.calls == []


def test_other_systems_have_none(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS and Windows, and where the C library is another one, trainings run as ever."""
    for platform, found in (("darwin", library), ("linux", object())):
        monkeypatch.setattr(memory.sys, "platform", platform)
        monkeypatch.setattr(memory.ctypes, "CDLL", lambda name, found=found: found)
        with kept_memory(True):
            memory.release_memory()
    assert library.calls == []


@pytest.mark.parametrize("wanted", [True, False])
def test_a_training_keeps_it_if_its_option_says_so(
    wanted: bool, tmp_path: Any, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option is what the training does, from its first step to its last and no longer."""
    config: TrainerConfig = make_config(tmp_path, tmp_path, start_step=1)
    config.pipeline.compute.keep_memory = wanted  # type: ignore[attr-defined]
    trainer, seen = start(config), []
    step: Callable[[int], Any] = trainer.train_iteration

    def train_iteration(number: int) -> Any:
        seen.append(memory._kept)
        return step(number)

    monkeypatch.setattr(trainer, "train_iteration", train_iteration)
    trainer.train()
    assert seen and set(seen) == {wanted}
    assert not memory._kept
