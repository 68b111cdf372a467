"""What holds for every run of the tests, and what it says at its end: which tests it left out, why, how to run them."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

# Before torch is imported, and for the processes that tests start: trainings that are compared bit for bit must not
# choose their number of threads by a clock, and several threads may add in another order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

COMMANDS = {
    "gpu": "pytest -m gpu, on a machine with CUDA",
    "browser": "pytest -m browser, where there is a Chromium",
    "slow": "pytest -m slow",
}
"""Marker -> how its tests are run where they are left out."""

_deselected = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Makes room for the count."""
    config.stash[_deselected] = Counter()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Counts tests that `-m` takes out, by marker; one with several counts for the first. Who names tests by `-k` knows
    what is left out."""
    for item in items:
        if item.config.getoption("keyword"):
            continue
        marker = next((name for name in COMMANDS if item.get_closest_marker(name)), None)
        if marker is not None:
            item.config.stash[_deselected][marker] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Lets the process that prints the summary know, where pytest-xdist runs the tests in others."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["deselected"] = dict(session.config.stash[_deselected])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Takes over what a process of pytest-xdist counted; all of them see the same tests."""
    node.config.stash[_deselected] |= Counter(getattr(node, "workeroutput", {}).get("deselected", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Names what was left out, and what was skipped with its reason."""
    skipped = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    left_out = [
        f"{_tests(count)} marked {marker} left out; to run: {COMMANDS[marker]}"
        for marker, count in config.stash[_deselected].items()
    ] + [f"{_tests(count)} skipped: {reason}" for reason, count in skipped.items()]
    if left_out:
        terminalreporter.section("left out")
        for line in left_out:
            terminalreporter.line(line)


def _tests(count: int) -> str:
    return f"{count} test" if count == 1 else f"{count} tests"
