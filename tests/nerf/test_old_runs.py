"""Runs that version 0.1.0 saved, before modules moved and formats changed, are opened and taken up by this one.

The folders in `old_runs` hold what `ns-train` left: a `config.yml` with the former module paths and a checkpoint in the
middle of a plan, and beside them, in `expected.json`, what that version said of the network. They are never saved
again: a run of another version gets a folder of its own.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.utils.eval_utils import eval_setup
from support.plain_state import plain, plain_state
from support.tiny_run import rays, start, widths

from nerfstudio_prune.method import HOMES
from nerfstudio_prune.nerf.config import FieldTargetConfig
from nerfstudio_prune.nerf.teacher.config import TeacherConfig

Config = Callable[..., Any]
OLD_RUNS = Path(__file__).parent / "old_runs"
NAMES = sorted(folder.name for folder in OLD_RUNS.iterdir())
CUT_OFF = 9
"""Step of the checkpoints."""
GIVEN: dict[str, Any] = {
    **{"preset": "paper", "min_width": 2, "num_eval_rays": 64, "on_error": "stop"},
    **{"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 12},
}
GIVEN_OWN: dict[str, dict[str, Any]] = {
    "neurons": {
        **{"strategy": "importance", "score": "activation", "refit": "lstsq", "calibration_rays": 64},
        "coarse": {"width": 4, "head_width": 2},
        "fine": {"pruning_ratio": 0.75},
        "groups": ["field_coarse.*", "field_fine.mlp_base.*"],
        "teacher": {"steps": 4, "point_share": 0.5},
        "recovery_lr_factor": 2.0,
    },
    "edges": {
        **{"strategy": "edge", "edge_keep_fraction": 0.4, "edge_scope": "global"},
        **{"recovery": "rewind", "rewind_step": 1},
    },
}
"""Options of pruning that stand in the configurations."""


def run_folder(name: str) -> Path:
    """Where `ns-train` keeps a run, below the present folder."""
    return Path("outputs") / "tiny" / "nerf-prune" / name


@pytest.fixture(params=NAMES)
def old_run(request: pytest.FixtureRequest, tmp_path: Path, scene_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a saved run, which lies in the present folder where `ns-train` would have put it."""
    monkeypatch.chdir(tmp_path)
    Path("scene").symlink_to(scene_cache, target_is_directory=True)
    shutil.copytree(OLD_RUNS / request.param, run_folder(request.param))
    return request.param


def expected_of(name: str) -> Any:
    return json.loads((OLD_RUNS / name / "expected.json").read_text())


def living_of(model: Any) -> dict[str, int]:
    """Name of each masked parameter -> weights that live."""
    return {name: int(mask.sum()) for name, mask in sorted(model.prune_state.masks.items())}


def given(value: Any) -> Any:
    """What is not None of an option or a group of options."""
    return {k: v for k, v in vars(value).items() if v is not None} if is_dataclass(value) else value


def test_classes_of_a_configuration_are_at_home(tiny_config: Config) -> None:
    """What is saved today has to open for good: a class that stands in a `config.yml` may not move without an entry in
    the table of former modules, and none may stand in one by a module that is not meant to last."""
    config = tiny_config(coarse=FieldTargetConfig(width=4), teacher=TeacherConfig(steps=2))
    found = set(re.findall(r"nerfstudio_prune\.([\w.]+)\.(\w+)", yaml.dump(config)))
    assert found == {
        ("engine.compute", "ComputeConfig"),
        ("engine.schedulers", "RunDecayScheduler"),
        ("engine.schedulers", "RunDecaySchedulerConfig"),
        ("engine.trainer", "PruneTrainer"),
        ("engine.trainer", "PruneTrainerConfig"),
        ("data.datamanager", "CheckedDataManager"),
        ("nerf.config", "FieldTargetConfig"),
        ("nerf.config", "PruneConfig"),
        ("nerf.model", "PruneModel"),
        ("nerf.model", "PruneModelConfig"),
        ("nerf.pipeline", "PrunePipeline"),
        ("nerf.pipeline", "PrunePipelineConfig"),
        ("nerf.teacher.config", "TeacherConfig"),
        ("scenes.demo_dataparser", "DemoDataParser"),
        ("scenes.demo_dataparser", "DemoDataParserConfig"),
    }
    assert {home.removeprefix("nerfstudio_prune.") for home in HOMES.values()} <= {module for module, _ in found}
    for name in HOMES:
        assert import_module(f"nerfstudio_prune.method.{name}").__name__ == HOMES[name]


def test_saved_run_opens_for_evaluation(old_run: str) -> None:
    """Configurations are saved by the names of their classes, and checkpoints by the names of their entries. Whoever
    pruned a network with an earlier version must still be able to evaluate and to show it: same widths, same history,
    same colours."""
    _, pipeline, path, step = eval_setup(run_folder(old_run) / "config.yml")
    assert step == CUT_OFF and path.parent == run_folder(old_run) / "nerfstudio_models"
    expected = expected_of(old_run)
    model: Any = pipeline.model
    assert widths(model) == expected["widths"] and living_of(model) == expected["living_edges"]
    assert plain_state(model.prune_state) == expected["events"]
    model.eval()
    with torch.no_grad():
        pixels = model(rays(12))["rgb"]
    assert torch.allclose(pixels, torch.tensor(expected["pixels"]), rtol=0, atol=1e-5)


def test_saved_configuration_says_what_was_given(old_run: str) -> None:
    """An option that is renamed or moved would be lost without a word: the loader sets whatever names it finds."""
    prune = yaml.load((run_folder(old_run) / "config.yml").read_text(), Loader=yaml.Loader).pipeline.prune
    type(prune)(**vars(prune)).validate()
    values = {name: given(value) for name, value in vars(prune).items()}
    assert plain({k: v for k, v in values.items() if v not in (None, {})}) == {**GIVEN, **GIVEN_OWN[old_run]}


def test_saved_run_is_taken_up(old_run: str) -> None:
    """A run that was cut off before an update goes on after it: what happened stays on record, and the event that was
    to come happens at its step, once."""
    config = yaml.load((run_folder(old_run) / "config.yml").read_text(), Loader=yaml.Loader)
    config.load_dir = config.get_checkpoint_dir()
    config.timestamp, config.max_num_iterations = f"{old_run}-taken-up", 6
    trainer = start(config)
    trainer.train()
    model, expected = trainer.pipeline.model, expected_of(old_run)
    before, found = expected["events"]["history"], plain_state(model.prune_state)
    assert found["history"][: len(before)] == before
    assert [event["step"] for event in found["history"][len(before) :]] == [12] == expected["events"]["pending"]
    assert not found["history"][-1]["error"] and found["pending"] == []
    assert widths(model) == expected["taken_up"]["widths"]
    assert living_of(model) == expected["taken_up"]["living_edges"]
