"""`ns-prune bench splats` at tiny sizes, end to end: what is measured, and that nothing is done twice."""

from pathlib import Path
from typing import Any

import pytest
from support.bench_run import bench, small_host

from nerfstudio_prune.records.files import SPLAT_FOLDERS, read_record
from nerfstudio_prune.records.splat_schema import SplatRecord
from nerfstudio_prune.report.writing import write_report

ONLY = "dense-s0,capped-34-s0,zero-shot*,speed*,removal-6-retrain-34-s0,sh2-mixed-s0,cut-52-s0,merge-34-s0"


@pytest.fixture(scope="module")
def recorded_splats(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with most of the suite, for reading only."""
    folder = tmp_path_factory.mktemp("splats")
    with small_host(bench_cache):
        bench("splats", folder, only=ONLY)
    return folder


def record(folder: Path, name: str) -> Any:
    """Record of a job."""
    return read_record(folder / SPLAT_FOLDERS[0] / f"{name}.json")


@pytest.mark.slow
def test_what_is_measured(recorded_splats: Path) -> None:
    """Sizes are those that were asked for, and quality is told of test and of validation views, for every stage."""
    dense, pruned = record(recorded_splats, "dense-s0"), record(recorded_splats, "removal-6-34-s0")
    assert isinstance(pruned, SplatRecord)
    assert [stage.label for stage in pruned.stages] == ["before", "right after", "end"]
    assert pruned.steps == dense.steps == 80 and pruned.end.gaussians == round(0.34 * dense.end.gaussians)
    assert pruned.end.bytes == pruned.end.gaussians * 236 and pruned.end.pairs_per_pixel < dense.end.pairs_per_pixel
    assert all(set(stage.quality) == {"test", "val"} for stage in pruned.stages)
    assert pruned.seconds.train_total > pruned.seconds.train > 0 and pruned.seconds.prune > 0
    assert (recorded_splats / pruned.images["end"]).is_file()
    cleared = record(recorded_splats, "removal-6-retrain-34-s0")
    assert cleared.history[0].recovery == "retrain" and cleared.end.quality != pruned.end.quality
    lower = record(recorded_splats, "sh2-mixed-s0")
    assert (lower.end.sh_degree, lower.end.gaussians) == (2, pruned.end.gaussians)
    assert lower.stage("before").sh_degree == 3 and len(lower.history) == 2
    assert record(recorded_splats, "cut-52-s0").history[0].step == 80 * 52 // 100
    assert record(recorded_splats, "capped-34-s0").end.gaussians <= pruned.end.gaussians


@pytest.mark.slow
def test_zero_shot_and_speed(recorded_splats: Path) -> None:
    """All choices start from the same whole model; the one by random is the worst of those by a look or none."""
    shot = record(recorded_splats, "zero-shot-s0")
    rows = {(row.rule, row.rounds, row.keep): row for row in shot.rows}
    count = rows["dense", 0, 1.0].gaussians
    assert len(rows) == len(shot.rows) == 1 + 4 * 12 + 6
    assert all(row.gaussians == round(row.keep * count) for row in shot.rows)
    assert rows["removal", 1, 0.34].psnr["test"] > rows["random", 0, 0.34].psnr["test"]
    speed = record(recorded_splats, "speed-s0")
    assert speed.pruned.gaussians == round(0.34 * speed.dense.gaussians) and len(speed.dense.frame_seconds) == 2


@pytest.mark.slow
def test_nothing_is_done_twice(
    recorded_splats: Path, bench_cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same command again trains nothing, other settings are refused, and a report can be made of what is there."""
    with small_host(bench_cache):
        bench("splats", recorded_splats, only=ONLY)
        assert "…" not in capsys.readouterr().out
        with pytest.raises(ValueError, match="recorded with other settings"):
            bench("splats", recorded_splats, only=ONLY, views=1)
    write_report(recorded_splats, tmp_path / "report", [])
    assert "Spherical harmonics" in (tmp_path / "report" / "report.md").read_text("utf-8")
