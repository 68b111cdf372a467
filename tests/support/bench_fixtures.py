"""Fixtures of the tests of `ns-prune bench`; none of them is used where it is not named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bench_run import FAST, bench, small_host


@pytest.fixture(scope="session")
def bench_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of the built-in scene, rendered once."""
    return tmp_path_factory.mktemp("bench-cache")


@pytest.fixture
def bench_host(bench_cache: Path) -> Iterator[None]:
    """Surroundings of one test."""
    with small_host(bench_cache):
        yield


@pytest.fixture(scope="session")
def recorded(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the suites `frontier` and `paper`, for reading only."""
    folder = tmp_path_factory.mktemp("recorded")
    with small_host(bench_cache):
        bench("frontier", folder, options=FAST)
        bench("paper", folder, options=FAST)
    return folder


@pytest.fixture(scope="session")
def peers(bench_cache: Path, recorded: Path) -> Path:
    """The same folder with the suite `peers`."""
    pytest.importorskip("torch_pruning", reason="the optional dependency torch-pruning is not installed")
    with small_host(bench_cache):
        bench("peers", recorded, options=FAST)
    return recorded
