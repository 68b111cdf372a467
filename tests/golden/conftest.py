"""Fixtures of the recorded runs: one thread, a tiny scene, and a clean host after every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden.runs import canary

from nerfstudio_prune.engine.host import reset_host


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads are rounded in another order, and another number of threads in yet another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def scene_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of the demo scene, rendered once for all tests."""
    return tmp_path_factory.mktemp("scene")


@pytest.fixture(scope="session")
def rounding(one_thread: None) -> str:
    """How torch rounds here; hashes of runs can only be compared where that is the same."""
    return canary()


@pytest.fixture(autouse=True)
def clean_host() -> Iterator[None]:
    """Leaves neither the host's writers nor the processor's denormal flag behind for other tests."""
    yield
    reset_host()
    torch.set_flush_denormal(False)
