"""Fixtures of the tests that need Nerfstudio: a tiny scene, no network, and a clean host after every test."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.models.vanilla_nerf import VanillaModelConfig

from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.nerf import subject as subject_module
from nerfstudio_prune.neurons.pruner import Pruning
from support.tiny_run import SCENE_BOX, make_config


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and sums over several threads need not be reproducible."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def scene_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of the demo scene, rendered once for all tests."""
    return tmp_path_factory.mktemp("scene")


@pytest.fixture
def torch_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for downloaded networks, so that a cached one cannot hide a download."""
    folder = tmp_path_factory.mktemp("torch_home")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def downloads(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that something tried to download from; every attempt fails the test that made it."""
    attempts: list[str] = []

    def refuse(url: str, *args: Any, **kwargs: Any) -> None:
        attempts.append(url)
        raise AssertionError(f"tried to download {url}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return attempts


@pytest.fixture(autouse=True)
def clean_host() -> Iterator[None]:
    """Leaves neither the host's writers nor what a pipeline sets for the whole process behind for other tests."""
    yield
    reset_host()
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def tiny_config(tmp_path: Path, scene_cache: Path) -> Callable[..., Any]:
    """Makes configurations of tiny runs: `tiny_config(name, strategy=..., start_step=...)`."""
    return partial(make_config, tmp_path, scene_cache)


@pytest.fixture
def stock_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the stock model build a metric network without a download; like the real one it has state."""

    class FakeLpips(torch.nn.Module):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            self.net = torch.nn.Linear(2, 3)

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", FakeLpips)


@pytest.fixture
def stock_state(stock_lpips: None) -> dict[str, Any]:
    """State dict of Nerfstudio's own `vanilla-nerf`, metric network included."""
    model = VanillaModelConfig().setup(scene_box=SCENE_BOX, num_train_data=4)
    return dict(model.state_dict())


@pytest.fixture
def prunings(monkeypatch: pytest.MonkeyPatch) -> list[Pruning]:
    """The prepared changes of all events, with their edits of parameters."""
    found: list[Pruning] = []
    inner = subject_module.prepare_pruning

    def spy(*args: Any, **kwargs: Any) -> Pruning:
        found.append(inner(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(subject_module, "prepare_pruning", spy)
    return found
