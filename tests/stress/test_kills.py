"""Twenty kills in every run of the tests; two hundred by hand, see `kills.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_kill_loses_a_saved_step(tmp_path: Path) -> None:
    """Machines are switched off, schedulers end what takes too long, and memory runs out, at any line. Whatever had
    been saved by then has to be there, and to lead to the very network that the uninterrupted run ends with; a torn
    checkpoint beside a deleted one cost people whole runs."""
    script, output = Path(__file__).with_name("kills.py"), tmp_path / "figures.json"
    command = [sys.executable, str(script), "--count", "20", "--seed", "1", "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=480, check=False)
    assert output.exists(), done.stdout + done.stderr
    figures = json.loads(output.read_text())
    assert figures["losses"] == [] and done.returncode == 0
    kinds = figures["kinds"]
    assert all(counts["tried"] for counts in kinds.values())
    # A few points lie behind the end of a run, where chance has it finish before.
    assert sum(counts["ended"] for counts in kinds.values()) >= 15
    assert sum(counts["resumed"] for counts in kinds.values()) >= 10
