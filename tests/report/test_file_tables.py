"""Tables and plots of small files: numbers worked out by hand, and nothing compared that cannot be."""

from pathlib import Path

import pytest
from support.file_record_factory import file_record, save_files
from support.record_factory import GPU
from support.table_reader import column, table_cells

from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.collect import collect_all
from nerfstudio_prune.report.file_charts import file_charts
from nerfstudio_prune.report.file_study import FileStudy, collect_files
from nerfstudio_prune.report.file_tables import file_tables, forms_table, targets_table
from nerfstudio_prune.report.stats import MINUS, NOTHING
from nerfstudio_prune.report.writing import write_report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds: a dense run of 100,000 parameters, and one of 80,000."""
    for seed in (1, 2):
        dense = {"int8": (100_500, 28.5 + 0.1 * seed)}
        save_files(
            tmp_path,
            file_record("best", seed, psnr=28.0 + 0.1 * seed),
            file_record("dense", seed, "dense", units=100_000, psnr=28.5 + 0.1 * seed, forms=dense),
        )
    return tmp_path


@pytest.fixture
def study(folder: Path) -> FileStudy:
    """What these records are compared as."""
    (found,) = collect_files(folder)
    return found


def test_every_form_stands_beside_checkpoint_and_dense(study: FileStudy) -> None:
    """The dense run comes first; what a file loses is told against its own checkpoint and against the dense one, and
    its size as a share of the dense network in float32 (400 kB here)."""
    text = forms_table(study)
    assert column(text, "run") == ["`dense`", "`best`", ""]
    assert column(text, "file") == ["int8", "float16", "mixed 4"]
    assert column(text, "kB") == ["100.5", "160.5", "40.0"]
    assert column(text, "of dense fp32") == ["25.1 %", "40.1 %", "10.0 %"]
    assert column(text, "bits a parameter") == ["8.04", "16.05", "4.00"]
    assert column(text, "Δ checkpoint dB") == ["0.00 ± 0.00", "0.00 ± 0.00", f"{MINUS}0.10 ± 0.00"]
    assert column(text, "Δ dense dB") == ["0.00 ± 0.00", f"{MINUS}0.50 ± 0.00", f"{MINUS}0.60 ± 0.00"]
    assert "`best`: 80,000 parameters, 320 kB as float32, a checkpoint of 960 kB with the moments" in text


def test_a_share_needs_the_dense_run_of_the_seed(tmp_path: Path) -> None:
    """That of another seed is another network: nothing is said rather than something wrong."""
    save_files(
        tmp_path, file_record("best", 1), file_record("dense", 2, "dense", units=100_000, forms={"int8": (1000, 28.0)})
    )
    (study,) = collect_files(tmp_path)
    text = forms_table(study)
    assert column(text, "Δ dense dB") == ["0.00", NOTHING, NOTHING]
    assert column(text, "of dense fp32")[1:] == [NOTHING, NOTHING]


def test_gaussians_are_told_in_bytes(tmp_path: Path) -> None:
    """Nobody counts bits of a Gaussian; and they are no row of a table of networks."""
    save_files(tmp_path, file_record("small", units=5_000, unit="Gaussians"), file_record("best"))
    studies = collect_files(tmp_path)
    assert [study.unit for study in studies] == ["Gaussians", "parameters"]
    assert column(forms_table(studies[0]), "bytes a Gaussian") == ["32.10", "8.00"]


@pytest.fixture
def gaussians(tmp_path: Path) -> FileStudy:
    """A dense run of 10,000 Gaussians of degree 3, and one of 3,400 of degree 2."""
    forms = {".ply": (557_600, 32.0), "small": (68_000, 31.97), "tiny": (66_300, 31.6), "paper": (170_000, 31.0)}
    best = file_record("splat-best", units=3_400, unit="Gaussians", psnr=32.0, forms=forms)
    best.forms[0].agreement = None
    dense = {".ply": (2_480_000, 33.0)}
    save_files(
        tmp_path,
        best,
        file_record("splat-dense", role="dense", units=10_000, unit="Gaussians", psnr=33.0, forms=dense),
        file_record("dense", role="dense", units=1_000),
    )
    found, networks = collect_files(tmp_path)
    assert networks.unit == "parameters"
    return found


def test_gaussians_stand_beside_the_dense_ply(gaussians: FileStudy) -> None:
    """Their share is one of the file that one had before, header and all; what shows no difference is equal."""
    text = forms_table(gaussians)
    assert column(text, "run") == ["`splat-dense`", "`splat-best`", "", "", ""]
    assert column(text, "of dense `.ply`") == ["100.0 %", "22.5 %", "2.7 %", "2.7 %", "6.9 %"]
    assert column(text, "bytes a Gaussian") == ["248.00", "164.00", "20.00", "19.50", "50.00"]
    assert column(text, "agreement dB")[1:3] == ["equal", "45.0"]
    assert column(text, "Δ dense dB")[1] == f"{MINUS}1.00"


def test_targets_of_gaussians(gaussians: FileStudy) -> None:
    """A twentieth of the dense `.ply` are 124 kB, a fortieth 62 kB: the one was reached, the other was not."""
    found = table_cells(targets_table([gaussians]))[1:]
    assert [cells[3:5] for cells in found] == [
        ["2.7 %", "yes"],
        ["20.0 bytes", "yes"],
        [f"{MINUS}0.03 dB", "yes"],
        ["2.7 %", "no"],
        ["19.5 bytes", "no"],
        [f"{MINUS}0.40 dB", "no"],
        ["50.0 bytes", "no"],
    ]


def test_targets_are_told_as_they_are(folder: Path, study: FileStudy) -> None:
    """A goal that was missed says no: 160.5 kB are 40.1 % of the dense network, 14.5 % were asked for."""
    found = table_cells(targets_table([study]))[1:]
    assert len(found) == 4
    size, loss, mixed, over_dense = found
    assert size[3:5] == ["40.1 ± 0.0 %", "no"] and "14.5 %" in size[2]
    assert loss[3:5] == ["0.00 ± 0.00 dB", "yes"] and f"{MINUS}0.05 dB" in loss[2]
    assert mixed[3:5] == ["10.0 ± 0.0 %", "no"]
    assert over_dense[3:5] == [f"{MINUS}0.60 ± 0.00 dB", "no"]
    assert [cells[-1] for cells in found] == ["2"] * 4


def test_a_plot_has_every_arm(study: FileStudy) -> None:
    """Its legend names the runs; without records there is none."""
    (plot,) = file_charts([study])
    assert plot.svg.count("best") >= 1 and plot.svg.count("dense") >= 1
    assert file_charts([]) == []


def test_the_report_has_them(folder: Path, tmp_path: Path) -> None:
    """Also where there is nothing but small files."""
    output = tmp_path / "report"
    write_report(folder, output, ())
    text = (output / "report.md").read_text("utf-8")
    assert "Small files" in text and "mixed 4" in text and (output / "plots" / "files-1.svg").is_file()


def test_without_records_nothing_is_claimed(tmp_path: Path) -> None:
    """The tables say how to make them."""
    assert collect_files(tmp_path) == []
    assert all("ns-prune bench files" in make() for make in file_tables([]).values())


def test_devices_are_not_mixed(folder: Path) -> None:
    """A file is the same anywhere, but what was trained is not."""
    save_files(folder / "gpu", file_record(machine=GPU))
    assert len(collect_all(folder).files) == 2


@pytest.mark.parametrize("break_in", ["twice", "role", "two dense", "labels", "quality"])
def test_what_cannot_be_is_refused(break_in: str, tmp_path: Path) -> None:
    """The file is named; a table of it would look like any other."""
    save_files(tmp_path, file_record("dense", 1, "dense"), file_record("best", 1))
    other = file_record("best", 2)
    if break_in == "twice":
        save_files(tmp_path / "again", file_record("best", 1))
    elif break_in == "role":
        save_files(tmp_path, file_record("dense", 2, "pruned"))
    elif break_in == "two dense":
        save_files(tmp_path, file_record("other", 1, "dense"))
    elif break_in == "labels":
        other.forms[1].label = other.forms[0].label
        save_files(tmp_path, other)
    else:
        other.forms[0].quality.psnr = 1e9
        save_files(tmp_path, other)
    with pytest.raises(RecordError, match=r"files-\w+-s\d\.json"):
        collect_files(tmp_path)
