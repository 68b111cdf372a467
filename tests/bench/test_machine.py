"""Where and on what something was measured: a number without its machine and its commit says little."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_prune.bench import machine
from nerfstudio_prune.bench.machine import MemoryMeter, describe_machine, git_commit, processor_name


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package `code` with one committed file in a checkout."""
    package = tmp_path / "code"
    package.mkdir()
    (package / "a.py").write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return package


def test_commit_of_a_clean_checkout(checkout: Path) -> None:
    """Records are written into the checkout while a suite runs; that must not mark the code as changed."""
    head = git(checkout, "rev-parse", "HEAD")
    (checkout.parent / "results").mkdir()
    (checkout.parent / "results" / "new.json").write_text("{}")
    (checkout / "untracked.txt").write_text("")
    assert git_commit(checkout) == head[:12]


@pytest.mark.parametrize("staged", [True, False])
def test_changed_code_is_marked(checkout: Path, staged: bool) -> None:
    """A commit that is not the code that was measured must not look like it."""
    (checkout / "a.py").write_text("two")
    if staged:
        git(checkout, "add", ".")
    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD")[:12] + "+"


def test_no_commit_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed from a wheel there is none."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "missing") is None


def test_no_commit_of_somebody_elses_checkout(checkout: Path) -> None:
    """A virtual environment often lies within the user's own checkout, whose commit says nothing about this code."""
    installed = checkout.parent / ".venv" / "nerfstudio_prune"
    installed.mkdir(parents=True)
    (installed / "b.py").write_text("")
    assert git_commit(installed) is None


def test_no_commit_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring must not depend on it."""
    monkeypatch.setenv("PATH", os.devnull)
    assert git_commit(checkout) is None


def test_description_of_this_machine() -> None:
    """Times are compared only between equal machines, with equally many threads."""
    found = describe_machine(torch.device("cpu"))
    assert found.device == processor_name() != "" and found.device_type == "cpu"
    assert found.threads == torch.get_num_threads()
    assert (
        found.versions["torch"] == torch.__version__.partition("+")[0] or found.versions["torch"] == torch.__version__
    )
    assert {"python", "nerfstudio", "nerfstudio-prune"} <= set(found.versions)
    assert found.git_commit == git_commit(Path(machine.__file__).parents[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process, and lets it be reset")
def test_memory_meter_sees_what_is_freed_again() -> None:
    """A step's memory is gone when the step is over: only the peak shows it, and only since the last reset."""
    meter = MemoryMeter(torch.device("cpu"))
    before = meter.peak_mb
    assert before is not None and before > 0
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not let a process reset its peak")
    block = np.ones(200_000_000, np.uint8)
    del block
    peak = meter.peak_mb
    assert peak is not None and peak > before + 150
    meter.reset()
    after = meter.peak_mb
    assert after is not None and after < peak - 150


def test_memory_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux there is no number rather than a wrong one."""
    meter = MemoryMeter(torch.device("cpu"))
    monkeypatch.setattr(machine.Path, "exists", lambda self: False)
    assert meter.peak_mb is None
