"""`ns-prune bench frontier-all` at tiny sizes, end to end: runs of all kinds stand beside each other."""

from pathlib import Path
from typing import Any

import pytest
from support.bench_run import bench, record_of, small_host

from nerfstudio_prune.bench.file_jobs import LABELS_OF_TINY, SPLAT_FORMS
from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.records.files import FILE_FOLDERS, FRONTIER_FOLDERS, KILO_FOLDERS, SPLAT_FOLDERS, read_record
from nerfstudio_prune.records.frontier_schema import FrontierRecord
from nerfstudio_prune.report.writing import write_report
from nerfstudio_prune.splat_files.formats import read_splats

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


@pytest.fixture(scope="module")
def with_files(recorded_frontier: Path, bench_cache: Path) -> Path:
    """The same folder with files of tiny networks and of Gaussians, by the other suite."""
    with small_host(bench_cache):
        bench("files", recorded_frontier, **{**SIZES, "only": "files-student*,files-splat-dense*,files-splat-best*"})
    return recorded_frontier


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


@pytest.mark.slow
def test_files_of_tiny_networks(with_files: Path) -> None:
    """Bytes are those of the file that lies there, and a user's reader opens it: what it shows at first is what the
    checkpoint shows, and fewer bits take fewer bytes. It is held against the dense network of the same schedule."""
    files, student = (
        record(with_files, FILE_FOLDERS, "files-student-s1"),
        record(with_files, KILO_FOLDERS, "student-s1"),
    )
    assert tuple(form.label for form in files.forms) == LABELS_OF_TINY and (files.role, files.run) == (
        "pruned",
        "student-s1",
    )
    assert files.units == student.end.parameters and files.plain_bytes == 4 * files.units < files.checkpoint_bytes
    assert files.schedule == record(with_files, FRONTIER_FOLDERS, "frontier-s1").schedule
    assert files.checkpoint.psnr == pytest.approx(student.end.quality.psnr, abs=1e-3)
    folder, forms = with_files / "work" / "files" / files.name, {form.label: form for form in files.forms}
    assert {label: (folder / f"{label.replace(' ', '-')}.safetensors").stat().st_size for label in forms} == {
        label: form.bytes for label, form in forms.items()
    }
    assert load_exported(folder / "int4.safetensors").metadata.storage == "lzma"
    exact, rough = forms["float32"].agreement, forms["int4"].agreement
    assert rough is not None and (exact is None or exact > 80 > rough)
    for labels in (
        ("float32", "float16", "int8", "int6", "int5", "int4"),
        ("mixed 6", "mixed 5", "mixed 4", "mixed 3"),
    ):
        sizes = [forms[label].bytes for label in labels]
        assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)


@pytest.mark.slow
def test_files_of_gaussians(with_files: Path) -> None:
    """The whole `.ply` shows what the checkpoint shows; each other file is smaller, can be read, and has as many
    Gaussians. Quality is that of the run's own record, on the same views."""
    for arm, run in (("dense", "dense-s1"), ("best", "preset-best-s1")):
        files, splats = (
            record(with_files, FILE_FOLDERS, f"files-splat-{arm}-s1"),
            record(with_files, SPLAT_FOLDERS, run),
        )
        assert tuple(form.label for form in files.forms) == tuple(SPLAT_FORMS) and files.run == run
        assert (files.unit, files.units, files.plain_bytes) == ("Gaussians", splats.end.gaussians, splats.end.bytes)
        assert files.checkpoint.psnr == pytest.approx(splats.end.quality["test"].psnr, abs=1e-3)
        folder, (ply, *others) = with_files / "work" / "files" / files.name, files.forms
        assert ply.label == ".ply" and ply.quality.psnr == pytest.approx(files.checkpoint.psnr, abs=1e-3)
        found = {path.stat().st_size: read_splats(path) for path in folder.iterdir()}
        assert sorted(found) == sorted(form.bytes for form in files.forms)
        assert {len(stored.gaussians) for stored in found.values()} == {files.units}
        assert all(form.bytes < ply.bytes and form.agreement < 80 for form in others)


@pytest.mark.slow
def test_pruned_gaussians_are_those_of_the_preset(with_files: Path) -> None:
    """What a user gets who gives nothing: a third of the Gaussians, and harmonics of degree 2."""
    best, tiny = (record(with_files, SPLAT_FOLDERS, f"preset-{name}-s1") for name in ("best", "tiny"))
    assert (best.end.sh_degree, tiny.end.sh_degree) == (2, 1) and best.keep == 0.34 and tiny.keep == 0.15
    assert best.steps == record(with_files, SPLAT_FOLDERS, "dense-s1").steps


@pytest.mark.slow
def test_a_report_of_them(with_files: Path, tmp_path: Path) -> None:
    """Tables of both units, and the smallest file beside each run that was stored."""
    write_report(with_files, tmp_path, ())
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "of dense `.ply`" in text and "bits a parameter" in text and "`splat-best`" in text and "`student`" in text
