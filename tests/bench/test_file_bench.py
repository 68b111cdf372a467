"""`ns-prune bench files` at tiny sizes, end to end: what is measured is what was written."""

from pathlib import Path

import pytest
from support.bench_run import bench, small_host

from nerfstudio_prune.bench.file_jobs import FORMS, LABELS_OF_DENSE
from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.records.file_schema import FileRecord
from nerfstudio_prune.records.files import FILE_FOLDERS, read_record
from nerfstudio_prune.report.writing import write_report


@pytest.fixture(scope="module")
def recorded_files(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a dense and of a pruned run, for reading only."""
    folder = tmp_path_factory.mktemp("files")
    with small_host(bench_cache):
        bench("files", folder, only="files-dense*,files-best*")
    return folder


def record(folder: Path, arm: str) -> FileRecord:
    """Record of a run's files."""
    return read_record(folder / FILE_FOLDERS[0] / f"files-{arm}-s1.json")


@pytest.mark.slow
def test_what_is_measured(recorded_files: Path) -> None:
    """Bytes are those of the file that lies there, and it can be opened. As it was trained it shows what the
    checkpoint shows; fewer bits take fewer bytes and agree less."""
    dense, best = record(recorded_files, "dense"), record(recorded_files, "best")
    assert tuple(form.label for form in dense.forms) == LABELS_OF_DENSE and dense.role == "dense"
    forms = {form.label: form for form in best.forms}
    assert set(forms) == set(FORMS) and best.units < dense.units
    folder = recorded_files / "work" / "files" / best.name
    for label, form in forms.items():
        assert (folder / f"{label.replace(' ', '-')}.safetensors").stat().st_size == form.bytes
    assert load_exported(folder / "mixed-4.safetensors").metadata.storage == "lzma"
    assert forms["float32"].quality.psnr == pytest.approx(best.checkpoint.psnr, abs=1e-3)
    exact, rough = forms["float32"].agreement, forms["mixed 3"].agreement
    assert rough is not None and (exact is None or exact > 80 > rough)
    assert forms["float32"].bytes > forms["float16"].bytes > forms["int8"].bytes > forms["mixed 4"].bytes
    assert best.plain_bytes == 4 * best.units < best.checkpoint_bytes
    assert len(best.checkpoint.views) == len(forms["int4"].quality.views) == 2


@pytest.mark.slow
def test_nothing_is_done_twice(recorded_files: Path, bench_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that was interrupted is given again, and goes on with what is missing."""
    files = {path: path.stat().st_mtime_ns for path in recorded_files.rglob("*.json")}
    with small_host(bench_cache):
        bench("files", recorded_files, only="files-dense*,files-best*")
    assert {path: path.stat().st_mtime_ns for path in recorded_files.rglob("*.json")} == files
    assert "runs recorded" in capsys.readouterr().out


@pytest.mark.slow
def test_a_report_of_them(recorded_files: Path, tmp_path: Path) -> None:
    """The tables take what the suite wrote."""
    write_report(recorded_files, tmp_path, ())
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "mixed 4 to nearest" in text and (tmp_path / "plots" / "files-1.svg").is_file()
