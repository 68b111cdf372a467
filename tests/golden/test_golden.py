"""Tiny runs come to what they came to when they were recorded, bit for bit."""

import json
from pathlib import Path

import pytest
from golden.record import HASHES
from golden.runs import ASPECTS, RUNS, hashes

RECORDED = json.loads(HASHES.read_text())


def test_all_runs_are_recorded() -> None:
    """A run without a hash would hold nothing, and a hash without a run would look as if it did."""
    assert set(RECORDED["runs"]) == set(RUNS)
    assert all(set(found) == set(ASPECTS) for found in RECORDED["runs"].values())


@pytest.mark.parametrize("name", RUNS)
def test_run_is_the_recorded_one(name: str, tmp_path: Path, scene_cache: Path, rounding: str) -> None:
    """Published results hold for the code only as long as the same options give the same network. A change of the
    code's form must leave every loss, weight, moment and record as it was; a change of what a run does must be meant.
    What differs says where to look; `record.py --dump` writes it out for a comparison."""
    if rounding != RECORDED["canary"]:
        pytest.skip("torch rounds otherwise here (another processor or version) than where the hashes were recorded")
    found, recorded = hashes(RUNS[name](tmp_path, scene_cache)), RECORDED["runs"][name]
    differing = ", ".join(aspect for aspect in ASPECTS if found[aspect] != recorded[aspect])
    assert not differing, f"run {name} differs from the recorded one in: {differing}"
