"""What the tests of this room share: finished runs on a tiny scene, ours and the host's own, and a clean host."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import tiny_splats
from support.finished_runs import save_stock_splats, train_stock
from support.host_fixtures import (  # noqa: F401
    clean_host,
    downloads,
    one_thread,
    scene_cache,
    tiny_config,
    torch_home,
)
from support.tiny_run import make_config, train

from nerfstudio_prune.apply.command import Apply


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Path:  # noqa: F811
    """The config.yml of a run of `nerf-prune` without pruning, moments and all."""
    config = make_config(tmp_path_factory.mktemp("finished"), scene_cache, strategy="none")
    train(config)
    return config.get_base_dir() / "config.yml"


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Path:  # noqa: F811
    """The config.yml of a genuine run of the host's `vanilla-nerf`, with the metric network that it saves."""
    return train_stock(tmp_path_factory.mktemp("stock"), scene_cache)


@pytest.fixture(scope="session")
def finished_splats(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Path:  # noqa: F811
    """The config.yml of a run of `splat-prune` without pruning, done with growing."""
    config = tiny_splats.tiny_config(tmp_path_factory.mktemp("splats"), scene_cache, strategy="none")
    config.save_config()
    tiny_splats.train(config)
    return config.get_base_dir() / "config.yml"


@pytest.fixture(scope="session")
def stock_splats(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Path:  # noqa: F811
    """The config.yml of a run of the host's `splatfacto`, its checkpoint by the host's own model and optimizers."""
    return save_stock_splats(tmp_path_factory.mktemp("stock_splats"), scene_cache)


@pytest.fixture
def asked(finished: Path, tmp_path: Path) -> Callable[..., Apply]:
    """Makes commands for the finished run; the new run lies in the test's folder."""

    def make(**options: object) -> Apply:
        given = {"load_config": finished, "output_dir": tmp_path / "new", "timestamp": "cut", "rays": 64, **options}
        return Apply(**given)  # type: ignore[arg-type]

    return make
