"""What the tests of this room share: a clean host after every test, and one finished tiny run."""

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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Any:  # noqa: F811
    """A finished run that was cut to a half, and to degree 1."""
    options = {"sh_degree": 1, "start_step": 10, "sh_step": 11, "pruning_ratio": 0.5, "rounds": 1}
    config = tiny_splats.tiny_config(tmp_path_factory.mktemp("trained"), scene_cache, **options)
    config.max_num_iterations = 13
    config.save_config()
    return tiny_splats.train(config)
