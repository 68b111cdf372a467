"""Fixtures of the tests with a real host; named here, for they live beside the tests of the Nerfstudio side."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def scene_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of the demo scene, rendered once for all tests."""
    return tmp_path_factory.mktemp("scene")


@pytest.fixture
def tiny_config(tmp_path: Path, scene_cache: Path) -> Iterator[Callable[..., Any]]:
    """Makes configurations of tiny runs, on one thread; leaves a clean host behind."""
    # Both import Nerfstudio, for which the tests without a run need not wait.
    from support.tiny_run import make_config  # noqa: PLC0415

    from nerfstudio_prune.engine.host import reset_host  # noqa: PLC0415

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield partial(make_config, tmp_path, scene_cache)
    reset_host()
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(threads)
