"""What the tests of this room share: a tiny scene and a teacher that shows something solid, trained once."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.host_fixtures import clean_host, downloads, one_thread, scene_cache, torch_home  # noqa: F401
from support.tiny_kilo import Teacher, dense_teacher, make_kilo


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Teacher:  # noqa: F811
    """A run of `nerf-prune` on the tiny scene."""
    return dense_teacher(tmp_path_factory.mktemp("teacher"), scene_cache)


@pytest.fixture
def make(tmp_path: Path, scene_cache: Path, teacher: Teacher) -> Any:  # noqa: F811
    """Makes configurations of tiny runs: `make(name, teacher=…, distil__steps=…)`."""
    return partial(make_kilo, tmp_path, scene_cache, teacher=teacher.config_file)
