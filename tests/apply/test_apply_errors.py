"""What cannot be cut or written is told before anything is written, and nothing is left half-done."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.datamanagers.parallel_datamanager import ParallelDataManager
from support.finished_runs import all_bytes

from nerfstudio_prune.apply.applying import apply
from nerfstudio_prune.apply.command import Apply
from nerfstudio_prune.apply.quality import Drop
from nerfstudio_prune.engine.saved_run import read_config

Ask = Callable[..., Apply]
HALF = {"strategy": "importance", "pruning-ratio": "0.5", "preset": "paper"}


def copy_with(finished: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """The config.yml of the finished run with another configuration."""
    config = read_config(finished)
    change(config)
    (folder / "nerfstudio_models").symlink_to(finished.parent / "nerfstudio_models")
    (folder / "config.yml").write_text(yaml.dump(config))
    return folder / "config.yml"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": {"strategy": "none"}}, "strategy none removes nothing"),
        ({"prune": {"preset": "paper", "width": "16", "head-width": "8"}}, "nothing is left to remove"),
        ({"prune": {"preset": "paper", "width": "17"}}, "prune.width 17 is above the current width 16"),
        ({"prune": {**HALF, "recovery": "rewind"}}, "prune.recovery rewind takes weights of an earlier step"),
        ({"prune": {"width": "8"}, "target_psnr_drop": 0.2}, "--target-psnr-drop searches the size, and prune.width"),
        ({"target_mb": 0.01, "target_psnr_drop": 0.2}, "--target-mb says what it is"),
        ({"target_mb": 0.01, "prune": {"width": "8"}}, "contradictory targets"),
        ({"target_mb": 1e-6}, "smallest widths already take"),
        ({"rays": 100, "target_psnr_drop": 0.2}, r"--rays must be in \[8192, 1048576\] with --target-psnr-drop"),
        ({"rays": -1}, r"--rays must be in \[0, 1048576\], got -1"),
        ({"recovery_steps": -1}, r"--recovery-steps must be in \[0, 1000000000\], got -1"),
        ({"timestamp": "a/b"}, "--timestamp must be the name of a folder"),
        ({"experiment_name": "."}, "--experiment-name must be the name of a folder"),
        ({"step": 7}, "holds no checkpoint of step 7; there are 9"),
        ({"data": Path("nowhere") / "else" / "\0"}, "--data "),
        ({"load_config": Path("nowhere.yml")}, "--load-config nowhere.yml: expected the config.yml of a run"),
    ],
)
def test_what_is_refused(asked: Ask, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Each names the option, and no folder appears."""
    with pytest.raises(ValueError, match=message):
        apply(asked(**options))
    assert not list(tmp_path.iterdir())


def test_a_promise_that_cannot_be_kept(asked: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where even the largest size loses too much; what that loses is told."""
    monkeypatch.setattr("nerfstudio_prune.apply.trying.drop_of", lambda before, after: Drop(0.19, 0.01, 20.0))
    with pytest.raises(ValueError, match=r"--target-psnr-drop 0\.2: the largest size .* loses \+0\.190 ± 0\.020 dB"):
        apply(asked(target_psnr_drop=0.2, rays=None, prune={"min-width": "2"}))
    assert not list(tmp_path.iterdir())


def test_a_promise_that_what_is_written_breaks(asked: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut itself is measured once more: what was found on a copy is not taken on trust."""
    monkeypatch.setattr("nerfstudio_prune.apply.quality.drop_of", lambda before, after: Drop(0.19, 0.01, 20.0))
    with pytest.raises(ValueError, match=r"--target-psnr-drop 0\.2: the cut loses \+0\.190 ± 0\.020 dB"):
        apply(asked(target_psnr_drop=0.2, rays=None, prune={"min-width": "2"}))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there(asked: Ask, tmp_path: Path) -> None:
    """A run is never written over."""
    folder = tmp_path / "new" / "tiny" / "nerf-prune" / "cut"
    folder.mkdir(parents=True)
    (folder / "mine").write_text("mine")
    with pytest.raises(ValueError, match="cut, which is there already; give another --timestamp"):
        apply(asked(prune=HALF))
    assert all_bytes(tmp_path) == {"new/tiny/nerf-prune/cut/mine": b"mine"}


def test_a_disk_that_fails(asked: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a run is there, or nothing: what was written before the failure goes."""

    def fail(*paths: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ValueError, match="cannot be written: no space left on device"):
        apply(asked(prune=HALF))
    assert all_bytes(tmp_path) == {}


def test_another_data_manager(finished: Path, asked: Ask, tmp_path: Path) -> None:
    """The host takes the data manager's class from the method: such a run would be opened with other data."""

    def change(config: Any) -> None:
        config.pipeline.datamanager._target = ParallelDataManager

    (tmp_path / "run").mkdir()
    file = copy_with(finished, tmp_path / "run", change)
    with pytest.raises(ValueError, match="expected a run with the data manager VanillaDataManager, got Parallel"):
        apply(asked(load_config=file, prune=HALF))
    assert not (tmp_path / "new").exists()


def test_a_method_that_is_not_installed(finished: Path, asked: Ask, tmp_path: Path) -> None:
    """The host would not find it either."""

    def change(config: Any) -> None:
        config.method_name = "nerf-prune-mine"

    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="its method nerf-prune-mine is not installed"):
        apply(asked(load_config=copy_with(finished, tmp_path / "run", change), prune=HALF))


@pytest.mark.parametrize(
    ("method", "message"), [("kilonerf", "distil with narrow-to"), ("nerfacto", "expected a run of")]
)
def test_runs_of_other_kinds(asked: Ask, tmp_path: Path, method: str, message: str) -> None:
    """They are named, with what is to be used instead where there is something."""
    (tmp_path / "config.yml").write_text(yaml.dump(deepcopy(all_methods[method])))
    with pytest.raises(ValueError, match=message):
        apply(asked(load_config=tmp_path / "config.yml"))


def test_a_run_that_changes_meanwhile(
    asked: Ask, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that still goes on may save while its checkpoint is read: half of this run and half of that would be
    nobody's."""
    digests = iter(["before", "after"])
    monkeypatch.setattr("nerfstudio_prune.apply.applying.digest", lambda *files: next(digests))
    with pytest.raises(ValueError, match="the run has changed while it was read; nothing is written"):
        apply(asked(prune=HALF))
    assert not list(tmp_path.iterdir())
