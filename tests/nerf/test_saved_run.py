"""Finished runs are opened from their files alone, often on another machine than the one that trained them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from support.saved_run import save_run
from support.tiny_run import make_config, shrink, tiny_model, tiny_widths

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.engine.saved_run import SavedRun, SavedRunError, read_config
from nerfstudio_prune.nerf.saved_run import load_run


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are opened on machines that have no data set, and reading its images takes longer than all the rest."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the data set is loaded")

    monkeypatch.setattr(VanillaDataManager, "__init__", refuse)


def open_run(path: Path, step: int | None = None) -> SavedRun[Any]:
    """Opens a run by the path of its file."""
    return load_run(read_config(path), path, step)


def test_network_of_a_pruned_run(tmp_path: Path) -> None:
    """Whoever opens a run gets the network that was saved, weight by weight, at the widths that the cut left, and not
    the one that its configuration describes."""
    model = tiny_model()
    model.prune_state = PruneState(initial_sizes=tiny_widths(16, 8))
    shrink(model, tiny_widths(4, 2))
    path = save_run(tmp_path / "run", model, make_config(tmp_path, tmp_path))
    run = open_run(path)
    assert (run.step, run.config_file) == (9, path)
    assert run.checkpoint == path.parent / "nerfstudio_models" / "step-000000009.ckpt"
    assert run.config.method_name == "nerf-prune"
    assert {group.name: group.width for group in run.model.neuron_groups()} == tiny_widths(4, 2)
    assert run.model.prune_state.initial_sizes == tiny_widths(16, 8)
    saved, opened = dict(model.named_parameters()), dict(run.model.named_parameters())
    assert saved.keys() == opened.keys() and all(torch.equal(saved[name], opened[name]) for name in saved)


def test_run_that_was_moved(tmp_path: Path) -> None:
    """Runs are copied from the machine that trained them; the paths in their config.yml are those of that machine."""
    config = make_config(tmp_path, tmp_path)
    for step in (6, 9):
        original = save_run(config.get_base_dir(), tiny_model(), config, step)
    folder = tmp_path / "elsewhere"
    (folder / "nerfstudio_models").mkdir(parents=True)
    for name in ("config.yml", "nerfstudio_models/step-000000006.ckpt"):
        (folder / name).write_bytes((original.parent / name).read_bytes())
    assert open_run(folder / "config.yml").step == 6
    # A config alone leads to where the run was saved.
    alone = tmp_path / "config.yml"
    alone.write_bytes(original.read_bytes())
    assert open_run(alone).step == 9


def test_newest_checkpoint_goes_by_number(tmp_path: Path) -> None:
    """The state of a run is its last one, also where it was resumed from an earlier step (`load_step`); the name of a
    step of ten digits sorts before those of nine."""
    config = make_config(tmp_path, tmp_path)
    config.load_step, config.load_dir = 3, tmp_path / "earlier"
    path = save_run(tmp_path / "run", tiny_model(), config, step=999_999_999)
    save_run(tmp_path / "run", tiny_model(), config, step=1_000_000_000)
    folder = path.parent / "nerfstudio_models"
    (folder / "step-2000000000.ckpt.tmp").write_bytes(b"")
    assert open_run(path).step == 1_000_000_000


def fails(path: Path, *expected: str, **options: Any) -> None:
    """Every error has to name the file and what was expected there."""
    with pytest.raises(SavedRunError) as caught:
        open_run(path, **options)
    for part in expected:
        assert part in str(caught.value)


def test_errors_of_the_config(tmp_path: Path) -> None:
    """Mistyped paths, the run's folder in place of its file, and files of other programs."""
    path = tmp_path / "config.yml"
    fails(path, f"--load-config {path}: expected the config.yml of a run")
    fails(tmp_path, f"--load-config {tmp_path}: expected the config.yml of a run")
    for content in (
        b"a: [",
        b"!!python/name:no_such_package.thing ''",
        b"!!python/object:nerfstudio.no.Class {}",
        b"\xff",
    ):
        path.write_bytes(content)
        fails(path, f"--load-config {path}: ", "config.yml of a run")
    path.write_text("a: 1")
    fails(path, f"{path}: expected the config.yml of a run: it holds a dict")
    for method in ("mipnerf", "tensorf"):
        path.write_text(yaml.dump(all_methods[method]))
        fails(path, f"{path}: expected a run of nerf-prune or vanilla-nerf, got method {method}")


def test_errors_of_the_checkpoint(tmp_path: Path) -> None:
    """A run that stopped before its first checkpoint, one cut off while it was saved, and one of another network."""
    config = make_config(tmp_path, tmp_path)
    path = save_run(tmp_path / "run", tiny_model(), config)
    (checkpoint,) = (path.parent / "nerfstudio_models").iterdir()
    whole = checkpoint.read_bytes()
    fails(path, f"{checkpoint.parent}: holds no checkpoint of step 7; there are 9", step=7)
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        checkpoint.write_bytes(content)
        fails(path, f"{checkpoint}: expected a whole checkpoint of Nerfstudio")
    for wrong in ({"model": 1}, [1], {"pipeline": {}, "step": "many"}):
        torch.save(wrong, checkpoint)
        fails(path, f"{checkpoint}: expected a whole checkpoint of Nerfstudio")
    state = tiny_model(base_mlp_num_layers=4).state_dict()
    torch.save({"step": 9, "pipeline": {f"_model.{key}": value for key, value in state.items()}}, checkpoint)
    fails(path, f"{checkpoint}: the checkpoint is not one of this network", "base_mlp_num_layers")
    checkpoint.unlink()
    fails(path, f"{checkpoint.parent}: holds no checkpoint; expected step-*.ckpt", str(path))
