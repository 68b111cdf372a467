"""Finished networks, cut: what is written is what an event of a training would have left, and the host opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.utils.eval_utils import eval_setup
from support.finished_runs import all_bytes, typed
from support.tiny_run import make_config, resume, same_bits, start, widths

from nerfstudio_prune.apply.applying import apply
from nerfstudio_prune.apply.command import Apply
from nerfstudio_prune.engine.saved_run import SavedRun, read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.inspect.showing import inspect_run
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.saved_run import load_run

Ask = Callable[..., Apply]
HALF = {"strategy": "importance", "pruning-ratio": "0.5", "preset": "paper"}
"""Needs no training views."""


def written(asked: Apply, method: str = "nerf-prune") -> Path:
    """Carries a command out, and gives the new run's config.yml."""
    apply(asked)
    assert asked.output_dir is not None and asked.timestamp is not None
    return asked.output_dir / "tiny" / method / asked.timestamp / "config.yml"


def loaded(file: Path) -> SavedRun[Any]:
    """The network of a run."""
    return load_run(read_config(file), file)


def content(file: Path) -> dict[str, Any]:
    """The only checkpoint of a run."""
    (path,) = (file.parent / "nerfstudio_models").iterdir()
    return torch.load(path, map_location="cpu", weights_only=True)


def test_it_is_the_event_of_a_training(asked: Ask, finished: Path, tmp_path: Path) -> None:
    """There is one way to prune: the same cut, asked for by hand in a training that goes on from the same checkpoint,
    leaves the same weights and moments, bit for bit."""
    new = content(written(asked(prune=HALF)))
    config = read_config(finished)
    config.output_dir = tmp_path / "again"
    config.load_dir = finished.parent / "nerfstudio_models"  # type: ignore[attr-defined]
    trainer = start(config)
    options = PruneConfig(strategy="importance", pruning_ratio=0.5, preset="paper", min_width=8)
    trainer.pipeline.controller.prune_by_hand(options, 9)
    state = {f"_model.{name}": value for name, value in trainer.pipeline.model.state_dict().items()}
    assert new["pipeline"].keys() == state.keys()
    assert all(same_bits(new["pipeline"][name], state[name]) for name in state if not name.endswith("_extra_state"))
    optimizers = {name: optimizer.state_dict() for name, optimizer in trainer.optimizers.optimizers.items()}
    assert same_bits(new["optimizers"], optimizers)
    assert new["step"] == 9


def test_what_is_written(asked: Ask, finished: Path) -> None:
    """Sizes follow from the target, the event stands in the history, and all that a training goes on from is there:
    the moments of each layer are those of its neurons that stayed."""
    file = written(asked(prune=HALF))
    run = loaded(file)
    assert set(widths(run.model).values()) == {8}  # half of 16 in the trunk; the head has 8, and is at the floor
    (event,) = run.model.prune_state.history
    assert (event.step, event.strategy, event.before.parts["field_fine.mlp_base.layers.0"]) == (9, "importance", 16)
    assert event.metrics_before.keys() == event.metrics_after.keys() == {"psnr"}
    assert run.model.prune_state.phase == "recovery"
    old, new = content(finished), content(file)
    assert new.keys() == old.keys()
    former, left = (state["optimizers"]["fields"]["state"][0]["exp_avg"] for state in (old, new))
    assert former.shape == (16, 63) and left.shape == (8, 63)
    assert all(any(torch.equal(row, other) for other in former) for row in left)


def test_the_run_is_never_changed(asked: Ask, finished: Path) -> None:
    """Whoever cuts too much still has the network of before."""
    before = all_bytes(finished.parent)
    written(asked(prune=HALF))
    assert all_bytes(finished.parent) == before


def test_the_host_opens_it(asked: Ask) -> None:
    """`ns-eval`, `ns-viewer`, `ns-render` and `ns-export` all begin with the host's `eval_setup`."""
    file = written(asked(prune=HALF))
    _, pipeline, path, step = eval_setup(file, test_mode="test")
    assert path is not None and (path.parent.parent, step) == (file.parent, 9)
    assert same_bits(dict(pipeline.model.state_dict()), dict(loaded(file).model.state_dict()))
    metrics: Any = pipeline.get_average_eval_image_metrics()
    assert metrics["psnr"] > 0


def test_a_training_goes_on_without_another_cut(asked: Ask, tmp_path: Path, scene_cache: Path) -> None:
    """What was cut recovers, with its moments; the method's preset, which is a default, is not taken for another
    wish."""
    file = written(asked(prune={"preset": "best", "target-parameters": "0.6"}))
    former = loaded(file).model
    config = make_config(tmp_path / "on", scene_cache, preset=None, min_width=None)
    trainer = start(config.__class__(**vars(resume(config, _folder(file), 9, 2))))
    trainer.train()
    assert trainer.step == 11
    assert len(trainer.pipeline.model.prune_state.history) == 1
    assert widths(trainer.pipeline.model) == widths(former)


def _folder(file: Path) -> Any:
    """Stands for the trainer of a run."""

    class Trained:
        checkpoint_dir = file.parent / "nerfstudio_models"

    return Trained


def test_recovery(asked: Ask) -> None:
    """Training steps at once, by the host's trainer: the new run has one checkpoint, of the last of them, whose moments
    went on."""
    cut = content(written(asked(prune=HALF)))
    file = written(asked(prune=HALF, timestamp="recovered", recovery_steps=3))
    new = content(file)
    assert new["step"] == 12
    steps = [state["optimizers"]["fields"]["state"][0]["step"] for state in (cut, new)]
    assert steps[1] == steps[0] + 3
    run = loaded(file)
    assert len(run.model.prune_state.history) == 1 and set(widths(run.model).values()) == {8}
    assert eval_setup(file, test_mode="inference")[3] == 12


def test_the_printed_line_trains_on(
    asked: Ask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever types what is printed, and no more, trains the new run on: its network, data and options, its moments and
    rates. (The run was one of 10 steps.)"""
    file = written(asked(prune=HALF, experiment_name="tiny", timestamp="a 'b'"))
    before = read_config(file)
    typed(capsys.readouterr().out, monkeypatch)
    new, after = content(file), read_config(file)
    assert new["step"] == 19
    assert new["optimizers"]["fields"]["state"][0]["step"] == 20
    run = loaded(file)
    assert len(run.model.prune_state.history) == 1 and set(widths(run.model).values()) == {8}
    assert after == before


def test_our_own_commands_open_it(asked: Ask, tmp_path: Path) -> None:
    """A cut run is looked at, exported and cut again like any other; its history then has both events."""
    file = written(asked(prune=HALF))
    total = inspect_run(file).total
    assert total.now.parameters < total.initial.parameters
    Export(file, tmp_path / "small.safetensors", dtype="float32", views=0).main()
    again = {"strategy": "importance", "preset": "paper", "width": "6", "head-width": "4", "min-width": "2"}
    twice = written(asked(load_config=file, timestamp="twice", prune=again))
    state = loaded(twice).model.prune_state
    assert [event.after.parts["field_fine.mlp_base.layers.0"] for event in state.history] == [8, 6]
    assert state.initial_sizes["field_fine.mlp_base.layers.0"] == 16


def test_a_genuine_stock_run(stock: Path, asked: Ask) -> None:
    """A run of Nerfstudio's own `vanilla-nerf` becomes one of `nerf-prune`, without the metric network, and with the
    moments of the neurons that stay."""
    before = all_bytes(stock.parent)
    assert any("lpips" in name for name in content(stock)["pipeline"])
    file = written(asked(load_config=stock, prune={**HALF, "pruning-ratio": "0.75"}))
    assert all_bytes(stock.parent) == before
    new = content(file)
    assert not any("lpips" in name for name in new["pipeline"])
    assert new["optimizers"]["fields"]["state"][0]["exp_avg"].shape == (64, 63)
    assert eval_setup(file, test_mode="inference")[3] == 2
    assert read_config(file).method_name == "nerf-prune"


def test_a_dry_run_writes_nothing(asked: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is there to decide by."""
    apply(asked(prune={"target-parameters": "0.6"}, dry_run=True))
    assert not list(tmp_path.iterdir())
    shown = capsys.readouterr().out
    assert "Size and quality" in shown and "nothing is written" in shown


def test_a_size_in_megabytes(asked: Ask) -> None:
    """The file's size follows from its parameters, four bytes each."""
    file = written(asked(target_mb=0.016))
    assert 3600 < sum(p.numel() for p in loaded(file).model.get_param_groups()["fields"]) <= 4000


def test_a_promise_is_kept(asked: Ask) -> None:
    """The smallest size is written whose loss on the views that were kept back stays below the promise; the event has
    both measurements. (So short a training gains by a cut, so that the smallest of all keeps it.)"""
    file = written(asked(target_psnr_drop=0.5, rays=None, prune={"min-width": "2"}))
    state = loaded(file).model.prune_state
    (event,) = state.history
    assert event.metrics_before["psnr"] - event.metrics_after["psnr"] < 0.5
    share = event.after.costs["parameters"] / event.before.costs["parameters"]
    assert state.options["target_parameters"] >= share
    assert share < 0.5


def test_without_data(asked: Ask, finished: Path, tmp_path: Path) -> None:
    """Data sets move and get lost. Scores of weights alone do without; nothing is measured then."""
    config = read_config(finished)
    parser = config.pipeline.datamanager.dataparser  # type: ignore[attr-defined]
    parser.data, parser.image_size = tmp_path / "lost" / "file", 16
    (tmp_path / "lost").write_text("no folder")
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "nerfstudio_models").symlink_to(finished.parent / "nerfstudio_models")
    (moved / "config.yml").write_text(yaml.dump(config))
    with pytest.raises(ValueError, match=r"judged by training rays.*--data.*strategy importance refit merge"):
        apply(asked(load_config=moved / "config.yml", prune={"target-parameters": "0.6"}))
    with pytest.raises(ValueError, match=r"--target-psnr-drop 0\.2 is measured on training views"):
        apply(asked(load_config=moved / "config.yml", target_psnr_drop=0.2, rays=None))
    with pytest.raises(ValueError, match="--recovery-steps 3 trains on the data"):
        apply(asked(load_config=moved / "config.yml", prune=HALF, recovery_steps=3))
    file = written(asked(load_config=moved / "config.yml", prune={**HALF, "refit": "merge"}))
    (event,) = loaded(file).model.prune_state.history
    assert not event.metrics_after and event.after.parts["field_fine.mlp_base.layers.0"] == 8
