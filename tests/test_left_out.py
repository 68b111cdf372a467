"""The end of a run of the tests tells what was left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.gpu
@pytest.mark.parametrize("i", range(3))
def test_gpu(i): ...

@pytest.mark.slow
def test_slow(): ...

@pytest.mark.skip(reason="no Chromium on this machine")
def test_browser(): ...

def test_plain(): ...
"""
GPU = "3 tests marked gpu left out; to run: pytest -m gpu, on a machine with CUDA"
SLOW = "1 test marked slow left out; to run: pytest -m slow"
BROWSER = "1 test skipped: no Chromium on this machine"


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [BROWSER]),
        (["-m", "not gpu"], [GPU, BROWSER]),
        (["-m", "not (gpu or slow)"], [GPU, SLOW, BROWSER]),
        (["-m", "not gpu", "-k", "plain"], []),
    ],
    ids=str,
)
def test_what_is_left_out_is_said(tmp_path: Path, processes: int, options: list[str], expected: list[str]) -> None:
    """A green line without this reads as if the GPU and the browser had been tried. pytest-xdist does not pass on what
    its processes deselect, so it is tried with and without."""
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  gpu: cuda\n  slow: slow\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist.plugin", "-n", str(processes), *options],
        cwd=tmp_path,
        env={**_own_environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    said = [line for line in lines if "left out;" in line or "skipped:" in line]
    assert said == expected
    assert any(line.strip("=") == " left out " for line in lines) == bool(expected)


def _own_environment() -> dict[str, str]:
    """Environment variables without those of the run that this test is a part of."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
