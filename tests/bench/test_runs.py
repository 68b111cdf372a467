"""Which runs of a suite can be gone on from."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.record_factory import dense

from nerfstudio_prune.bench.runs import RunFolder
from nerfstudio_prune.bench.suites import SCALES, Run
from nerfstudio_prune.engine.checkpoints import checkpoint_path, write_checkpoint

RECORD = dense()


def state(step: int) -> dict[str, Any]:
    return {"step": step, "pipeline": {"weight": torch.ones(3000)}, "optimizers": {}, "scalers": {}}


def renamed(path: Path) -> None:
    write_checkpoint(path.parent, state(5)).rename(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: None, True),
        (lambda path: path.unlink(), False),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), False),
        (lambda path: path.rename(path.with_name("notes.ckpt")), False),
        (lambda path: (path.unlink(), write_checkpoint(path.parent, state(5))), False),
        (renamed, False),
    ],
    ids=["whole", "missing", "torn", "put aside", "of an earlier step", "earlier step under that name"],
)
def test_only_the_end_that_is_on_record_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], Any], expected: bool
) -> None:
    """All branches of a comparison start from one network. A file that a kill cut off, and the step at which a second
    attempt was interrupted, are others: such a run has to be done again, not gone on from without a word."""
    scene: Any = SimpleNamespace(method="nerf-prune")
    folder = tmp_path / "work" / "runs" / RECORD.name / scene.method / "run" / "nerfstudio_models"
    write_checkpoint(folder, state(RECORD.steps - 1))
    change(checkpoint_path(folder, RECORD.steps - 1))
    monkeypatch.setattr(RunFolder, "record", lambda self, job: RECORD)
    runs = RunFolder(tmp_path, next(iter(SCALES.values())), scene, {})
    assert runs.has_checkpoint(Run(RECORD.name, RECORD.seed, "dense", 1)) is expected
