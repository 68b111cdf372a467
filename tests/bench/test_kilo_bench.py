"""`ns-prune bench kilo` at tiny sizes, end to end: what is measured, and that nothing is done twice."""

from pathlib import Path
from typing import Any

import pytest
from support.bench_run import bench, record_of, small_host

from nerfstudio_prune.bench.kilo_speed import opened
from nerfstudio_prune.records.files import KILO_FOLDERS, read_record
from nerfstudio_prune.records.kilo_schema import KiloRecord, KiloSpeedRecord
from nerfstudio_prune.report.writing import write_report

ONLY = "student*,scratch*,teacher-on-s1,narrow-0.5*,kilo-speed*,budget-1mb*"


@pytest.fixture(scope="module")
def recorded_kilo(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with most of the suite, for reading only."""
    folder = tmp_path_factory.mktemp("kilo")
    with small_host(bench_cache):
        bench("kilo", folder, only=ONLY)
    return folder


def record(folder: Path, name: str) -> Any:
    """Record of a job."""
    return read_record(folder / KILO_FOLDERS[0] / f"{name}.json")


@pytest.mark.slow
def test_what_is_measured(recorded_kilo: Path) -> None:
    """Each phase is measured at its end, and the teacher is told as its own record tells it."""
    student, teacher = record(recorded_kilo, "student-s1"), record_of(recorded_kilo, "dense-decay-s1")
    assert isinstance(student, KiloRecord)
    assert [stage.label for stage in student.stages] == ["teacher", "distilled", "fine-tuned", "end"]
    assert [stage.step for stage in student.stages] == [0, 3, 6, 6]
    assert student.teacher.psnr == teacher.end.quality.psnr and student.teacher.steps == 8
    assert student.end.parameters == student.end.networks * 572 and student.end.widths == {"8": student.end.networks}
    assert student.seconds.distil > 0 and student.seconds.finetune > 0
    assert student.stages[1].quality != student.stages[2].quality
    assert all((recorded_kilo / image).is_file() for image in student.images.values())
    scratch = record(recorded_kilo, "scratch-s1")
    assert [stage.label for stage in scratch.stages] == ["fine-tuned", "end"] and scratch.seconds.distil == 0
    assert scratch.end.networks == student.end.networks
    narrow = record(recorded_kilo, "narrow-0.5-s1")
    assert [stage.label for stage in narrow.stages][2] == "narrowed" and len(narrow.end.widths) > 1
    assert narrow.end.parameters <= 0.5 * student.end.parameters and narrow.end.macs_per_ray is None
    budget = record(recorded_kilo, "budget-1mb-s1")
    assert budget.end.parameters * 4 <= 1e6


@pytest.mark.slow
def test_the_teacher_is_trained_on_for_as_long(recorded_kilo: Path) -> None:
    """Its steps follow from the student's seconds and from how fast its last steps were; it goes on from its end."""
    on, student = record(recorded_kilo, "teacher-on-s1"), record(recorded_kilo, "student-s1")
    teacher = record_of(recorded_kilo, "dense-decay-s1")
    expected = round(student.seconds.total * teacher.rays_per_sec / teacher.rays_per_batch)
    assert on.end.step == expected and on.steps == 8 + expected
    assert on.end.quality != teacher.end.quality and on.end.networks == 1


@pytest.mark.slow
def test_pictures_in_turns(recorded_kilo: Path) -> None:
    """Dense networks are looked at in the cells of the student, so that both evaluate the same samples."""
    speed = record(recorded_kilo, "kilo-speed-s1")
    assert isinstance(speed, KiloSpeedRecord)
    assert [arm.network for arm in speed.arms] == ["stock", "dense", "dense", "dense", "tiny", "tiny"]
    stock, _, wide, own, tiny, _ = speed.arms
    assert len(stock.frames) == 1 and all(len(arm.frames) == 2 for arm in speed.arms[1:])
    assert wide.cells and own.cells and not stock.cells
    assert wide.frames[0].samples_per_ray == own.frames[0].samples_per_ray == tiny.frames[0].samples_per_ray
    macs = [arm.macs_per_point or 0.0 for arm in (wide, own, tiny)]
    assert macs[0] > 10 * macs[1] and 10 * macs[1] > macs[2] > 0
    assert stock.frames[0].samples_per_ray == 64 + 64 + 128 + 1


@pytest.mark.slow
def test_the_teacher_is_rendered_as_a_user_renders_it(recorded_kilo: Path) -> None:
    """Empty space is skipped only where it is known how far the views reach; without that the dense network would be
    timed with all samples, and tiny ones look better than they are."""
    (path,) = (recorded_kilo / "work" / "runs" / "dense-decay-s1").rglob("config.yml")
    assert opened(path).model.empty_space.space is not None


@pytest.mark.slow
def test_nothing_is_done_twice(
    recorded_kilo: Path, bench_cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same command again trains nothing, other settings are refused, and a report can be made of what is there."""
    with small_host(bench_cache):
        bench("kilo", recorded_kilo, only=ONLY)
        assert "…" not in capsys.readouterr().out
        with pytest.raises(ValueError, match="recorded with other settings"):
            bench("kilo", recorded_kilo, only=ONLY, views=1)
    write_report(recorded_kilo, tmp_path / "report", [])
    assert "Pictures in turns" in (tmp_path / "report" / "report.md").read_text("utf-8")
