"""Options of threads and precision reach every method, open with older runs, and are refused by name."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from nerfstudio.configs.method_configs import all_methods

from nerfstudio_prune.engine import compute
from nerfstudio_prune.engine.compute import ComputeConfig, check_compute
from nerfstudio_prune.engine.config_file import read_config_file

OLD_RUNS = Path(__file__).parents[1] / "nerf" / "old_runs"
METHODS = [name for name in all_methods if name.startswith(("nerf-prune", "splat-prune"))]


def test_every_method_has_them() -> None:
    """All methods train on CPUs, where the two make a run several times faster or slower."""
    assert len(METHODS) >= 6
    for name in METHODS:
        method: Any = all_methods[name]
        assert method.pipeline.compute == ComputeConfig(None, "auto")


@pytest.mark.parametrize("old", sorted(OLD_RUNS.iterdir()), ids=lambda folder: folder.name)
def test_older_runs_get_the_defaults(old: Path) -> None:
    """A `config.yml` of an earlier version does not name these options, and the host's loader calls no constructor: an
    attribute that is missing would end `ns-eval` and `ns-viewer`. No two runs share one object."""
    text = (old / "config.yml").read_text()
    assert "compute" not in text
    found = [yaml.load(text, Loader=yaml.Loader).pipeline, read_config_file(old / "config.yml").pipeline]
    found.append(yaml.load(text, Loader=yaml.Loader).pipeline)
    assert [pipeline.compute for pipeline in found] == [ComputeConfig()] * 3
    assert len({id(pipeline.compute) for pipeline in found}) == 3


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_read_again(method: str, tmp_path: Path) -> None:
    """What was given to a run is what its `config.yml` says, to the host and to this project's own reader."""
    config: Any = deepcopy(all_methods[method])
    config.pipeline.compute, path = ComputeConfig(3, "high"), tmp_path / "config.yml"
    path.write_text(yaml.dump(config))
    read: list[Any] = [read_config_file(path), yaml.load(path.read_text(), Loader=yaml.Loader)]
    for found in read:
        assert found.pipeline.compute == ComputeConfig(3, "high") and found == config


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_threads", 0, "must be in [1, 4], the cores that this process may use, got 0"),
        ("num_threads", 5, "must be in [1, 4], the cores that this process may use, got 5"),
        ("num_threads", "2", "must be a whole number, got '2'"),
        ("num_threads", True, "must be a whole number, got True"),
        ("matmul_precision", "exact", "must be one of auto, highest, high, medium, got 'exact'"),
        ("matmul_precision", None, "must be one of auto, highest, high, medium, got None"),
    ],
)
def test_values_that_are_none(option: str, value: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread at all, more threads than cores, which only makes them wait for each other, and words that PyTorch does
    not know would fail within it, or make every step slow."""
    monkeypatch.setattr(compute, "cores", lambda: 4)
    with pytest.raises(ValueError) as caught:
        check_compute(ComputeConfig(**{option: value}), trains=True)
    assert str(caught.value) == f"pipeline.compute.{option} {message}"


def test_values_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cores may be used; and a run that was trained on a larger machine can be looked at on a smaller one."""
    monkeypatch.setattr(compute, "cores", lambda: 4)
    for number in (None, 1, 4):
        check_compute(ComputeConfig(number, "high"), trains=True)
    check_compute(ComputeConfig(64), trains=False)
    with pytest.raises(ValueError, match=r"num_threads must be at least 1, got 0"):
        check_compute(ComputeConfig(0), trains=False)


@pytest.mark.parametrize("method", ["nerf-prune", "splat-prune-demo"])
def test_pipelines_check_them_first(method: str, tiny_config: Callable[..., Any]) -> None:
    """Before any picture is loaded: data sets take minutes."""
    config = tiny_config(method="nerf-prune").pipeline if method == "nerf-prune" else all_methods[method].pipeline
    config = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    config.compute.num_threads, config.datamanager.dataparser.data = 0, Path("nowhere")
    with pytest.raises(ValueError, match=r"pipeline\.compute\.num_threads must be in \[1, "):
        config.setup(device="cpu", test_mode="val")
