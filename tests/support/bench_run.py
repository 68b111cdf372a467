"""`ns-prune bench` at the scale `smoke`, in this process, on the built-in scene."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from nerfstudio_prune.bench.command import Bench
from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.records.files import read_record
from nerfstudio_prune.records.schema import RunRecord, SpeedRecord

FAST = {"optimizers.fields.optimizer.lr": "0.05"}
"""A rate at which the few steps of a smoke run move its quality visibly."""


@contextmanager
def small_host(cache: Path) -> Iterator[None]:
    """One thread, the built-in scene below a cache folder, no network of a metric, and a clean host afterwards."""

    def refuse(url: str, *args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"tried to download {url}")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("TORCH_HOME", str(cache / "torch"))
        patch.setattr(torch.hub, "download_url_to_file", refuse)
        yield
    reset_host()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")


def bench(suite: Any, output: Path, **options: Any) -> None:
    """Carries a suite out; `options` are those of the command."""
    Bench(suite=suite, output=output, scale="smoke", **options).main()


def record_of(folder: Path, name: str) -> RunRecord:
    """Record of a run."""
    record = read_record(folder / "runs" / f"{name}.json")
    assert isinstance(record, RunRecord) and record.name == name
    return record


def speed_of(folder: Path, name: str) -> SpeedRecord:
    """Record of a measurement of speed."""
    record = read_record(folder / "speed" / f"{name}.json")
    assert isinstance(record, SpeedRecord) and record.name == name
    return record


def names_in(folder: Path) -> set[str]:
    """Names of all that is recorded."""
    return {path.stem for kind in ("runs", "speed") for path in folder.glob(f"{kind}/*.json")}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """File -> bytes and time of the last change, of all records."""
    files = [path for kind in ("runs", "speed") for path in folder.glob(f"{kind}/*")]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
