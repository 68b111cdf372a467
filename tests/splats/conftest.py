"""What the tests of this room share: a tiny scene, no network, and a clean host after every test."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import tiny_splats
from support.host_fixtures import (  # noqa: F401
    clean_host,
    downloads,
    one_thread,
    scene_cache,
    stock_lpips,
    torch_home,
)


@pytest.fixture
def tiny_config(tmp_path: Path, scene_cache: Path) -> Callable[..., Any]:  # noqa: F811
    """Makes configurations of tiny runs: `tiny_config(name, strategy=..., start_step=...)`."""
    return partial(tiny_splats.tiny_config, tmp_path, scene_cache)
