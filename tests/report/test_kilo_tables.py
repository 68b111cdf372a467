"""Tables of tiny networks: numbers worked out by hand, and nothing compared that cannot be."""

from pathlib import Path

import pytest
from support.kilo_record_factory import frames_of, kilo_run, kilo_speed, save_kilo
from support.record_factory import GPU
from support.splat_record_factory import save_splats, splat_run
from support.table_reader import column, table_cells

from nerfstudio_prune.records.files import KILO_FOLDERS, write_record
from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.collect import collect_all
from nerfstudio_prune.report.kilo_study import KiloStudy, collect_kilo
from nerfstudio_prune.report.kilo_tables import TARGETS, arms_table, frames_table, kilo_tables, targets_table
from nerfstudio_prune.report.stats import MINUS, NOTHING, TIMES, TO
from nerfstudio_prune.report.writing import write_report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of a small suite."""
    narrow = {"pipeline.grid.narrow_to": 0.5}
    for seed in (1, 2):
        save_kilo(
            tmp_path,
            kilo_run("student", seed, psnr={"teacher": 28.5, "distilled": 28.1, "end": 29.9 + 0.1 * seed}),
            kilo_run(
                "narrow-0.5",
                seed,
                psnr={"distilled": 28.1, "end": 29.7 + 0.1 * seed},
                parameters=125_000,
                config=narrow,
            ),
            kilo_run("scratch", seed, "scratch", {"end": 28.4 + 0.1 * seed}),
            kilo_run("teacher-on", seed, "teacher-on", {"end": 28.2}, parameters=146_000),
            kilo_run(
                "budget-0.5mb", seed, psnr={"end": 27.5}, parameters=100_000, config={"pipeline.grid.target_mb": 0.5}
            ),
            kilo_speed(seed),
        )
    return tmp_path


@pytest.fixture
def study(folder: Path) -> KiloStudy:
    """What these records are compared as."""
    (found,) = collect_kilo(folder)
    return found


def test_arms_stand_beside_their_controls(study: KiloStudy) -> None:
    """Controls first, then the networks as they are, then smaller ones; differences are taken seed by seed."""
    text = arms_table(study)
    assert text is not None
    names = ["teacher-on", "scratch", "student", "narrow-0.5", "budget-0.5mb"]
    assert column(text, "arm") == [f"`{name}`" for name in names]
    assert column(text, "distilled dB") == [NOTHING, NOTHING, "28.10 ± 0.00", "28.10 ± 0.00", NOTHING]
    assert column(text, "Δ teacher, end")[2] == "+2.05 ± 0.07"
    assert column(text, "MB")[2:] == ["1.00", "0.50", "0.40"]
    assert column(text, "of the teacher's")[2] == "20 %"
    assert "`dense-decay-s1` 28.00 dB, 292,616 parameters, 400 s" in text


def test_pictures_are_compared_round_by_round(study: KiloStudy) -> None:
    """Times of neighbouring pictures belong together: their ratios, not the ratio of means of a drifting machine."""
    text = frames_table(study)
    assert text is not None
    assert column(text, f"100 {TIMES} 100 ms") == ["50,000.0", "2,000.0", "1,000.0", "100.0"]
    assert column(text, "faster than stock")[3] == f"500{TIMES} (400{TO}600)"
    assert column(text, "than the widest in the cells") == [
        f"0.0{TIMES} (0.0{TO}0.1)",
        NOTHING,
        f"2.0{TIMES} (2.0{TO}2.0)",
        f"20{TIMES} (20{TO}20)",
    ]
    assert f"seed 2 500{TIMES}" in text


def test_targets_are_told_whether_reached_or_not(study: KiloStudy) -> None:
    """A target that is missed must stand there as well, with what was measured."""
    found = {cells[2]: cells[3:] for cells in table_cells(targets_table([study]))[1:]}
    assert found["right after distilling: less the teacher, at least " + MINUS + "0.2 dB"][:2] == [
        "+0.10 ± 0.00 dB",
        "yes",
    ]
    assert found["… in at most 60 s, the look at the teacher included"] == ["40 ± 0 s", "yes", "2"]
    assert found["… less the same grid without distilling, at least +1 dB"][:2] == ["+1.50 ± 0.00 dB", "yes"]
    assert found["half of the parameters pruned: less all of them, at least " + MINUS + "0.2 dB"][0] == (
        f"{MINUS}0.20 ± 0.00 dB"
    )
    # The smallest of 0.4 MB is half a decibel below the teacher, and does not count.
    assert found["the smallest at no more than 0.2 dB below the teacher, at most 1.0 MB"][0] == "0.50 ± 0.00 MB"
    assert sum(target.scene == "fox_135x240" for target in TARGETS) == 1 and "fox" not in targets_table([study])


def test_devices_are_not_mixed(tmp_path: Path) -> None:
    """A GPU's seconds beside those of a processor would make ratios of nothing."""
    save_kilo(tmp_path / "a", kilo_run("student"))
    save_kilo(tmp_path / "b", kilo_run("student", machine=GPU))
    assert [study.device for study in collect_kilo(tmp_path)] == [GPU.key, "Some Processor, 2 threads"]


def test_conflicts_are_named(tmp_path: Path) -> None:
    """Two records of one run, and files of another kind, are no repetitions."""
    save_kilo(tmp_path / "a", kilo_run("student"))
    save_kilo(tmp_path / "b", kilo_run("student"))
    with pytest.raises(RecordError, match=r"b/kilo-runs/student-s1\.json: the same run"):
        collect_kilo(tmp_path)
    write_record(splat_run("dense", 0, "dense"), tmp_path / "c" / KILO_FOLDERS[0] / "x.json")
    with pytest.raises(RecordError, match=r"x\.json: a record of another kind"):
        collect_kilo(tmp_path / "c")
    short = kilo_speed(arms=[frames_of("stock", "stock", [1.0]), frames_of("s", "tiny", [1.0, 2.0])])
    save_kilo(tmp_path / "d", short)
    with pytest.raises(RecordError, match="other pictures"):
        collect_kilo(tmp_path / "d")


def test_a_report_of_tiny_networks_alone(folder: Path, tmp_path: Path) -> None:
    """Who measured nothing else gets a report too; without records the tables say how to get them."""
    write_report(folder, tmp_path / "report", [])
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "Tiny networks" in text and f"500{TIMES}" in text
    save_splats(tmp_path / "other", splat_run("dense", 0, "dense"))
    assert "ns-prune bench kilo" in kilo_tables(collect_all(tmp_path / "other").kilo)["kilonerf-arms"]()
