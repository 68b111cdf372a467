"""The suite of tiny networks is read before it is run: every arm has its control, and the important ones come first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nerfstudio_prune.bench.kilo_jobs import KiloRun, KiloSpeed
from nerfstudio_prune.bench.runs import RunFolder, choose_jobs
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.suites import SCALES, Job, Scale, ablation, kilo

CPU = SCALES["cpu"]


def by_name(scale: Scale = CPU) -> dict[str, Job]:
    """The suite."""
    return {job.name: job for job in kilo(scale)}


def test_every_seed_has_the_student_and_its_controls() -> None:
    """Means over seeds compare like with like; what is tried at many sizes is tried with the first seed only."""
    arms = {seed: [job.arm for job in kilo(CPU) if isinstance(job, KiloRun) and job.seed == seed] for seed in CPU.seeds}
    common = ["student", "scratch", "teacher-on", "teacher-on-again", "narrow-0.5"]
    assert arms[2] == arms[3] == common and arms[1][:5] == common and len(arms[1]) > 10
    assert {job.seed for job in kilo(CPU) if isinstance(job, KiloSpeed)} == set(CPU.seeds)


def test_needs_come_before() -> None:
    """Nothing waits for what comes later, and what a job goes on from is trained first."""
    seen: set[str] = set()
    for job in kilo(CPU):
        assert set(job.needs) <= seen and set(job.sources) <= set(job.needs), job.name
        seen.add(job.name)


def test_teachers_are_the_dense_runs_of_the_ablation() -> None:
    """In one folder neither suite trains again what the other has, and the tables speak of one and the same network."""
    others = {job.name: job for job in ablation(replace(CPU, start_steps=300))}
    own = by_name(replace(CPU, start_steps=300))
    teachers = {job.teacher for job in own.values() if isinstance(job, KiloRun | KiloSpeed)}
    assert teachers == {*(f"dense-decay-s{seed}" for seed in CPU.seeds), "preset-best-decay-s1"}
    for name in teachers:
        assert own[name] == others[name]


def test_the_control_without_distilling_differs_in_nothing_else() -> None:
    """Otherwise the difference would not be what distilling is worth."""
    jobs: Any = by_name(SCALES["smoke"])
    student, scratch = jobs["student-s1"], jobs["scratch-s1"]
    assert {**student.options, "pipeline.distil.steps": 0} == scratch.options and student.teacher == scratch.teacher


def test_choice_brings_what_it_needs() -> None:
    """The teacher that is trained on for equal time waits for the student whose time it gets."""
    jobs = choose_jobs(kilo(CPU), "teacher-on-s2, kilo-speed-s3")
    assert [job.name for job in jobs] == [
        "dense-start-decay-s2",
        "dense-decay-s2",
        "student-s2",
        "teacher-on-s2",
        "dense-start-decay-s3",
        "dense-decay-s3",
        "student-s3",
        "narrow-0.5-s3",
        "kilo-speed-s3",
    ]


def test_digests_follow_the_teacher_and_the_views() -> None:
    """A record of a student of another teacher, or measured on other views, must not be taken for this one."""

    def digests(scale: Scale) -> dict[str, str]:
        folder = RunFolder(Path(), scale, Scene("x", "nerf-prune", None, "print"), by_name(scale))
        return {name: folder.digest(job) for name, job in by_name(scale).items() if isinstance(job, KiloRun)}

    first = digests(CPU)
    assert len(set(first.values())) == len(first)
    for other in (replace(CPU, views=3), replace(CPU, steps=3000), replace(CPU, options={})):
        assert not set(first.values()) & set(digests(other).values())
