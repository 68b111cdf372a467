"""Runs that an earlier version saved are opened, and taken up, by this one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden.reading import events_of, given_of, history_of, living_edges_of, widths_of
from golden.runs import hashes
from golden.saved_runs import CUT_OFF, EXPECTED, OLD_RUNS, SCENE, contents, run_folder, taken_up
from nerfstudio.utils.eval_utils import eval_setup

NAMES = sorted(folder.name for folder in OLD_RUNS.iterdir())
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


@pytest.fixture(params=NAMES)
def old_run(request: pytest.FixtureRequest, tmp_path: Path, scene_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a saved run, which lies in the present folder where `ns-train` would have put it."""
    monkeypatch.chdir(tmp_path)
    SCENE.symlink_to(scene_cache, target_is_directory=True)
    shutil.copytree(OLD_RUNS / request.param, run_folder(request.param))
    return request.param


def expected_of(name: str) -> Any:
    return json.loads((OLD_RUNS / name / EXPECTED).read_text())


def test_saved_run_opens_for_evaluation(old_run: str) -> None:
    """Configurations are saved by the names of their classes, and checkpoints by the names of their entries. Whoever
    pruned a network with an earlier version must still be able to evaluate and to show it: same widths, same history,
    same colours."""
    _, pipeline, path, step = eval_setup(run_folder(old_run) / "config.yml")
    assert step == CUT_OFF and path.parent == run_folder(old_run) / "nerfstudio_models"
    expected, found = expected_of(old_run), contents(pipeline.model)
    for pixel, known in zip(found.pop("pixels"), expected["pixels"], strict=True):
        assert pixel == pytest.approx(known, abs=1e-5)
    assert found == {name: expected[name] for name in found}


def test_saved_configuration_says_what_was_given(old_run: str) -> None:
    """An option that is renamed or moved would be lost without a word: the loader sets whatever names it finds."""
    config = yaml.load((run_folder(old_run) / "config.yml").read_text(), Loader=yaml.Loader)
    assert given_of(config) == {**GIVEN, **GIVEN_OWN[old_run]}


def test_saved_run_is_taken_up(old_run: str) -> None:
    """A run that was cut off before an update goes on after it: what happened stays on record, and the event that was
    to come happens at its step, once."""
    model = taken_up(old_run).trainer.pipeline.model
    expected = expected_of(old_run)
    before, history = expected["events"]["history"], history_of(model)
    assert history[: len(before)] == before
    assert [event["step"] for event in history[len(before) :]] == [12] == expected["events"]["pending"]
    assert not history[-1]["error"] and events_of(model)["pending"] == []
    assert widths_of(model) == expected["taken_up"]["widths"]
    assert living_edges_of(model) == expected["taken_up"]["living_edges"]


def test_run_that_is_taken_up_goes_on_as_it_would_have(old_run: str, rounding: str) -> None:
    """The update must not be seen in the network either: losses, weights, moments and record are bit for bit those of
    the earlier version. Opening alone would not notice moments, rates or random numbers that were lost."""
    expected = expected_of(old_run)["taken_up"]
    if rounding != expected["canary"]:
        pytest.skip("torch rounds otherwise here (another processor or version) than where the run was saved")
    assert hashes([taken_up(old_run)]) == expected["hashes"]
