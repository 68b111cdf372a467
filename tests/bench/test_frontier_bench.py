"""`ns-prune bench frontier-all` at tiny sizes, end to end: runs of all kinds stand beside each other."""

from pathlib import Path
from typing import Any

import pytest
from support.bench_run import bench, record_of, small_host

from nerfstudio_prune.bench.frontier_suite import everything
from nerfstudio_prune.bench.splat_suite import SPLAT_SCALES
from nerfstudio_prune.bench.suites import SCALES
from nerfstudio_prune.records.files import FRONTIER_FOLDERS, KILO_FOLDERS, SPLAT_FOLDERS, read_record
from nerfstudio_prune.records.frontier_schema import FrontierRecord

SIZES: dict[str, Any] = {
    "only": "frontier-*",
    "seeds": (1,),
    "start_steps": 4,
    "steps": 20,
    # Wide enough for a tenth of the parameters to be widths that a layer may have.
    "options": {"pipeline.model.base-mlp-layer-width": "80", "pipeline.model.head-mlp-layer-width": "80"},
}
"""Room for the five cuts of the preset `tiny`."""


@pytest.fixture(scope="module")
def recorded_frontier(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all kinds of runs, for reading only."""
    folder = tmp_path_factory.mktemp("frontier")
    with small_host(bench_cache):
        bench("frontier-all", folder, **SIZES)
    return folder


def record(folder: Path, kinds: Any, name: str) -> Any:
    """Record of a job."""
    return read_record(folder / kinds[0] / f"{name}.json")


@pytest.mark.slow
def test_all_kinds_beside_each_other(recorded_frontier: Path) -> None:
    """The host's model is timed only; what was trained has the size, the quality and the time of its own record."""
    found = record(recorded_frontier, FRONTIER_FOLDERS, "frontier-s1")
    assert isinstance(found, FrontierRecord)
    families = [arm.family for arm in found.arms]
    assert families == ["stock", *["network"] * 3, "tiny networks", *["Gaussians"] * 3]
    stock, dense, best, *_ = found.arms
    assert stock.quality is None and stock.train_seconds is None and stock.rows > 1
    assert all(len(arm.frame_seconds) == 5 and min(arm.frame_seconds) > 0 for arm in found.arms)
    trained = record_of(recorded_frontier, "dense-decay-s1")
    assert dense.plain_bytes == 4 * trained.end.sizes.parameters > best.plain_bytes
    assert dense.train_seconds == pytest.approx(trained.seconds.train_total + trained.seconds.prune)
    # A run is measured as a user renders it: what its own record says of its end, on the same views.
    assert dense.quality is not None
    assert dense.quality.psnr == pytest.approx(trained.end.quality.psnr, abs=1e-3)
    tiny, student = found.arms[4], record(recorded_frontier, KILO_FOLDERS, "student-s1")
    assert tiny.quality is not None and tiny.quality.psnr == pytest.approx(student.end.quality.psnr, abs=1e-3)
    assert tiny.train_seconds == pytest.approx(student.seconds.total + student.teacher.seconds)
    gaussians, splats = found.arms[5], record(recorded_frontier, SPLAT_FOLDERS, "dense-s1")
    assert gaussians.quality is not None
    assert gaussians.quality.psnr == pytest.approx(splats.end.quality["test"].psnr, abs=1e-3)
    assert gaussians.units == splats.end.gaussians and gaussians.plain_bytes == splats.end.bytes


@pytest.mark.slow
def test_nothing_is_done_twice(recorded_frontier: Path, bench_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that was interrupted is given again, and goes on with what is missing."""
    files = {path: path.stat().st_mtime_ns for path in recorded_frontier.rglob("*.json")}
    with small_host(bench_cache):
        bench("frontier-all", recorded_frontier, **SIZES)
    assert {path: path.stat().st_mtime_ns for path in recorded_frontier.rglob("*.json")} == files
    assert "runs recorded" in capsys.readouterr().out


def test_the_suite_has_what_it_compares() -> None:
    """Each run stands before the comparison that opens it, and belongs to one kind."""
    suite = everything(SCALES["cpu"], SPLAT_SCALES["cpu"])
    names = [job.name for job in suite.jobs]
    for i, job in enumerate(suite.jobs):
        assert {*job.needs, *job.sources} <= set(names[:i])
    comparisons = set(names) - suite.networks - suite.gaussians
    assert comparisons == {f"frontier-s{seed}" for seed in SCALES["cpu"].seeds}
    assert not suite.networks & suite.gaussians
