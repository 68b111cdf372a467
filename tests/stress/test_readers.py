"""No input may be taken by half, hang, cost memory that it did not bring, or end in a traceback: 200 of each kind, the
same ones in every run of the tests. The scripts try as many as one likes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fuzz import CLEAR, TAKEN, Trial, attempts
from support.host_fixtures import clean_host, one_thread  # noqa: F401

from stress import checkpoints, configurations, exported, packed, records, special_files, splat_formats

SCRIPTS: dict[str, Trial] = {
    "checkpoints": checkpoints.trial,
    "configurations": configurations.trial,
    "exported files": exported.trial,
    "packed files": packed.trial,
    "records": records.trial,
    "special files": special_files.trial,
    **{f"files of Gaussians, {suffix}": trial for suffix, trial in splat_formats.TRIALS.items()},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a file that something ran would leave its traces."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("script", SCRIPTS)
def test_mutations(script: str) -> None:
    """Both kinds of good ends have to come about: mutations that are all refused would test the first check only."""
    outcomes = attempts(SCRIPTS[script], 200)
    assert outcomes.bad == {}
    assert min(outcomes.counts[CLEAR], outcomes.counts[TAKEN]) >= 5
