"""Runs of all kinds beside each other: numbers worked out by hand, and nothing compared that cannot be."""

from pathlib import Path
from typing import Any

import pytest
from support.file_record_factory import file_record, save_files
from support.frontier_record_factory import frontier_record, save_frontier
from support.record_factory import GPU
from support.table_reader import column

from nerfstudio_prune.records.files import FRONTIER_FOLDERS, read_record, record_files
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.file_study import collect_files
from nerfstudio_prune.report.frontier_charts import frontier_charts, sent
from nerfstudio_prune.report.frontier_study import collect_frontier
from nerfstudio_prune.report.frontier_tables import frontier_all_table, frontier_tables
from nerfstudio_prune.report.stats import NOTHING, TIMES
from nerfstudio_prune.report.writing import write_report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds, with files of one of the runs."""
    for seed in (1, 2):
        save_frontier(tmp_path, frontier_record(seed))
        forms = {
            "float16": (160_000, 28.0 + 0.1 * seed),
            "mixed 4": (40_000, 27.95 + 0.1 * seed),
            "mixed 3": (30_000, 27.5 + 0.1 * seed),
        }
        save_files(tmp_path, file_record("best", seed, psnr=28.0 + 0.1 * seed, forms=forms))
    return tmp_path


def test_a_row_a_run(folder: Path) -> None:
    """Times are medians of the rounds; the host's is the measure of the others; the smallest file is the smallest that
    still shows the run: the one of 3 bits has lost half a decibel."""
    (study,) = collect_frontier(folder)
    text = frontier_all_table(study, collect_files(folder))
    assert column(text, "run") == ["vanilla-nerf", "NeRF, dense", "NeRF, best", "Gaussians"]
    assert column(text, "holds")[2:] == ["80,000 parameters", "11,000 Gaussians"]
    assert column(text, "fp32 kB") == ["4,000", "400", "320", "44.0"]
    assert column(text, "smallest file kB") == [NOTHING, NOTHING, "40.0 (mixed 4)", NOTHING]
    assert column(text, "PSNR dB") == [NOTHING, "28.50 ± 0.00", "28.15 ± 0.07", "31.50 ± 0.00"]
    assert column(text, "picture ms") == ["50,000", "1,000", "500", "20.0"]
    assert column(text, "faster than stock") == [NOTHING, f"50{TIMES}", f"100{TIMES}", f"2,500{TIMES}"]
    assert column(text, "training s") == [NOTHING, "1,200", "1,000", "150"]
    assert column(text, "n") == ["2"] * 4


def test_files_belong_to_runs(folder: Path) -> None:
    """A file of another scene, run, device or schedule is no point of this one, and none of a network of the same name
    is one of Gaussians: names come again in every folder."""
    save_files(folder / "other", file_record("best", 1, scene="lego_200"), file_record("tiny", 1))
    save_files(folder / "gpu", file_record("best", 1, machine=GPU))
    save_files(folder / "late", file_record("best", 1, schedule="cut at 2,250 of 15,000 steps"))
    save_files(folder / "same", file_record("dense", 1, run="dense-s1"))
    (study,) = collect_frontier(folder)
    points = list(study.files(collect_files(folder)))
    assert [(point.row.label, point.label) for point in points] == [
        ("best", "float16"),
        ("best", "mixed 4"),
        ("best", "mixed 3"),
    ]
    assert points[0].bytes.values == (160_000, 160_000)


def test_files_of_gaussians_belong_to_them(folder: Path) -> None:
    """Their schedule is one of their own; told is the smallest file that shows the run nearly as it is."""
    forms = {".ply": (2_600_000, 31.5), "small": (220_000, 31.48), "tiny": (140_000, 31.2)}
    for seed in (1, 2):
        own: dict[str, Any] = {"unit": "Gaussians", "run": f"dense-s{seed}", "schedule": "3,400 steps"}
        save_files(folder, file_record("splat-dense", seed, "dense", 11_000, 31.5, forms, **own))
    (study,) = collect_frontier(folder)
    stored = collect_files(folder)
    assert [point.label for point in study.files(stored) if point.row.family == "Gaussians"] == list(forms)
    assert column(frontier_all_table(study, stored), "smallest file kB")[-1] == "220 (small)"


def test_a_file_is_held_against_the_run_that_it_was_made_of(folder: Path) -> None:
    """Stored of one seed of two, it would seem to have lost what that seed is below the other, or to have won it."""
    own: dict[str, Any] = {"unit": "Gaussians", "run": "dense-s1", "schedule": "3,400 steps"}
    forms = {"small": (220_000, 30.98), "tiny": (140_000, 30.7)}
    save_files(folder, file_record("splat-dense", 1, "dense", 11_000, 31.0, forms, **own))
    (study,) = collect_frontier(folder)
    text = frontier_all_table(study, collect_files(folder))
    assert (
        column(text, "smallest file kB")[-1] == "220 (small, 1 seed)" and column(text, "PSNR dB")[-1] == "31.50 ± 0.00"
    )


def test_the_plot_has_what_one_would_send(folder: Path) -> None:
    """The file of 50 kB shows less than one that is smaller, and is left out; the largest stays, though that of 40 kB
    shows as much."""
    forms = {"float16": (160_000, 28.0), "int8": (50_000, 27.4), "mixed 4": (40_000, 28.0), "mixed 3": (30_000, 27.5)}
    save_files(folder, *(file_record("best", seed, forms=forms) for seed in (1, 2)))
    (study,) = collect_frontier(folder)
    assert sent(study.files(collect_files(folder))) == [(30_000, 27.5), (40_000, 28.0), (160_000, 28.0)]


def test_the_plot_and_the_report_have_them(folder: Path, tmp_path: Path) -> None:
    """Every run that was trained is in the legend; the page has the table and the plot."""
    (plot,) = frontier_charts(collect_frontier(folder), collect_files(folder))
    assert all(name in plot.svg for name in ("dense", "best", "Gaussians")) and "vanilla" not in plot.svg
    write_report(folder, tmp_path / "report", ())
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "Everything beside each other" in text and (tmp_path / "report" / "plots" / "frontier-all-1.svg").is_file()


def test_without_records_nothing_is_claimed(tmp_path: Path) -> None:
    """The table says how to make them."""
    assert collect_frontier(tmp_path) == [] and frontier_charts([], []) == []
    assert all("ns-prune bench frontier-all" in make() for make in frontier_tables([], []).values())


def test_round_trip_and_devices(folder: Path) -> None:
    """What is written is what is read; times of two machines are two tables."""
    save_frontier(folder / "gpu", frontier_record(machine=GPU))
    path, *_ = record_files(folder, FRONTIER_FOLDERS)
    assert read_record(path) == frontier_record()
    assert len(collect_frontier(folder)) == 2


@pytest.mark.parametrize("break_in", ["twice", "labels", "times", "quality"])
def test_what_cannot_be_is_refused(break_in: str, tmp_path: Path) -> None:
    """The file is named; a table of it would look like any other."""
    save_frontier(tmp_path, frontier_record(1))
    other = frontier_record(2)
    if break_in == "twice":
        save_frontier(tmp_path / "again", frontier_record(1))
    elif break_in == "labels":
        other.arms[1].label = other.arms[2].label
    elif break_in == "times":
        other.arms[1].frame_seconds[0] = 0.0
    else:
        quality = other.arms[1].quality
        assert quality is not None
        quality.psnr = 1e9
    save_frontier(tmp_path, other)
    with pytest.raises(RecordError, match=r"frontier-s\d\.json"):
        collect_frontier(tmp_path)
