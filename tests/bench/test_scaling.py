"""Time and memory by size, end to end at tiny sizes, and the bound."""

from pathlib import Path

import pytest
from support.bench_run import bench, small_host

from nerfstudio_prune.bench.cost_jobs import SCALINGS
from nerfstudio_prune.bench.scaling import memory_bound
from nerfstudio_prune.records.cost_schema import ScalingRecord
from nerfstudio_prune.records.files import read_record
from nerfstudio_prune.report.writing import write_report


@pytest.mark.slow
def test_what_is_measured(bench_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every size that was asked for, with the number of its rays or pixels; the same command again measures nothing."""
    with small_host(bench_cache):
        bench("scaling", tmp_path)
        capsys.readouterr()
        bench("scaling", tmp_path)
        assert "…" not in capsys.readouterr().out
    found, job = read_record(tmp_path / "costs" / "scaling.json"), SCALINGS["smoke"]
    assert isinstance(found, ScalingRecord)
    assert [point.width for point in found.steps if point.axis == "width"] == list(job["widths"])
    assert [tuple(point.samples) for point in found.frames if point.axis == "samples"] == list(job["samples"])
    assert [point.count for point in found.steps if point.axis == "rays"] == list(job["rays"])
    assert [point.count for point in found.frames if point.axis == "pixels"] == [rows**2 for rows in job["heights"]]
    assert all(point.points == 3 * point.samples[0] + 1 for point in (*found.steps, *found.frames))
    whole, few = found.large.frames
    assert found.large.image_size == [32, 32] and whole.points == {"field_coarse": 8.0, "field_fine": 17.0}
    assert few.skipping and sum(few.points.values()) <= 25 and found.large.bound_mb == memory_bound(32**2, 1024, 25)
    write_report(tmp_path, tmp_path / "report", [])
    assert "A large picture" in (tmp_path / "report" / "report.md").read_text("utf-8")


def test_the_bound_by_hand() -> None:
    """It grows with the pixels by their rays and outputs, and with the samples by those of one part only."""
    assert memory_bound(1_000_000, 256, 100) == pytest.approx(4 * (32 + 136 * 0.032768 + 64 * 256 * 100 / 1e6) + 32)
    assert memory_bound(10, 256, 100) == pytest.approx(4 * (320 + 1360 + 64 * 10 * 100) / 1e6 + 32)
    assert memory_bound(1_000_000, 256, 200) - memory_bound(1_000_000, 256, 100) < 8
