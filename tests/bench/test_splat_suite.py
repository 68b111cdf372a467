"""The suite of Gaussians is read before it is run: every arm has its control, and the important ones come first."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from nerfstudio_prune.bench.runs import choose_jobs
from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.splat_folder import ESTIMATES, MAKERS, SplatFolder
from nerfstudio_prune.bench.splat_setup import find_splat_scene
from nerfstudio_prune.bench.splat_suite import (
    SPLAT_SCALES,
    SplatJob,
    SplatRun,
    SplatScale,
    splat_digest,
    splats,
)

CPU = SPLAT_SCALES["cpu"]


def by_name(scale: SplatScale = CPU) -> dict[str, SplatJob]:
    """The suite."""
    return {job.name: job for job in splats(scale)}


def test_counts_and_names() -> None:
    """Names are unique, and every seed has the same arms: means over seeds compare like with like."""
    jobs = splats(CPU)
    assert len(by_name()) == len(jobs) == 3 * 32
    arms = {seed: [job.name.removesuffix(f"-s{seed}") for job in jobs if job.seed == seed] for seed in CPU.seeds}
    assert arms[0] == arms[1] == arms[2]


def test_first_seed_first_and_needs_before() -> None:
    """After an interruption the most important rows exist, and nothing waits for what comes later."""
    jobs = splats(CPU)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert [job.name for job in jobs[:6]] == [
        "dense-start-s0",
        "dense-s0",
        "removal-6-34-s0",
        "capped-34-s0",
        "capped-34-equal-time-s0",
        "zero-shot-s0",
    ]
    seen: set[str] = set()
    for job in jobs:
        assert set(job.needs) <= seen and set(job.sources) <= set(job.needs)
        seen.add(job.name)


def test_controls_of_equal_steps() -> None:
    """A pruned run, the dense one and the capped one have taken the same number of steps at their end."""
    jobs = by_name()

    def whole(name: str) -> int:
        job = jobs[name]
        assert isinstance(job, SplatRun) and job.steps is not None
        return job.steps + (whole(job.parent) if job.parent else 0)

    arms = ("dense-s0", "removal-6-34-s0", "significance-34-s0", "capped-34-s0", "cut-52-s0", "merge-34-s0")
    assert {whole(name) for name in arms} == {CPU.steps}


def test_harmonics_go_on_from_the_recovered_model() -> None:
    """Ten ways to lower the degree of one model; the teacher has the 200 steps behind the event."""
    runs = [job for job in splats(CPU) if isinstance(job, SplatRun) and job.role == "harmonics" and job.seed == 0]
    assert len(runs) == 10 and {run.parent for run in runs} == {"removal-6-34-s0"}
    for run in runs:
        assert run.steps == 201 and run.options["pipeline.prune.sh_step"] == CPU.steps
        assert run.options["pipeline.prune.distil.steps"] == 200


def test_one_name_one_digest() -> None:
    """Equal settings have equal fingerprints, others have others: options, views, the run that one goes on from."""
    scene = Scene("x", "splat-prune", None, "print")

    def digests(scale: SplatScale) -> dict[str, str]:
        folder = SplatFolder(Path(), scale, scene, by_name(scale))
        return {name: folder.digest(job) for name, job in by_name(scale).items()}

    first = digests(CPU)
    assert first == digests(CPU) and len(set(first.values())) == len(first)
    for other in (replace(CPU, views=3), replace(CPU, options={"pipeline.model.sh_degree": 2})):
        assert not set(first.values()) & set(digests(other).values())
    longer = digests(replace(CPU, start_steps=2999))
    # Only the run that is cut by its own preset knows nothing of the others' dense start.
    same = {name for name, value in first.items() if longer[name] == value}
    assert same == {f"cut-52-s{seed}" for seed in CPU.seeds}
    assert splat_digest(by_name()["dense-s0"], CPU, "other", []) != splat_digest(
        by_name()["dense-s0"], CPU, "print", []
    )


def test_choice_brings_what_it_needs() -> None:
    """`--only` takes several patterns; the time of the capped run follows from two other runs."""
    jobs = choose_jobs(splats(CPU), "capped-34-equal-time-s1, sh2-photo-s0")
    assert [job.name for job in jobs] == [
        "dense-start-s0",
        "removal-6-34-s0",
        "sh2-photo-s0",
        "dense-start-s1",
        "removal-6-34-s1",
        "capped-34-s1",
        "capped-34-equal-time-s1",
    ]
    with pytest.raises(ValueError, match="matches none"):
        choose_jobs(splats(CPU), "dense-s0,nothing*")


def test_photographs_have_their_own_steps(tmp_path: Path) -> None:
    """They have several times as many Gaussians; every 8th view is left out, on every machine the same ones."""
    (tmp_path / "transforms.json").write_text("{}", "utf-8")
    scene, scale = find_splat_scene(tmp_path, CPU)
    assert (scale.start_steps, scale.steps, scale.harmonics_steps) == (2000, 2300, 150)
    assert (scene.dataparser.eval_mode, scene.dataparser.eval_interval) == ("interval", 8)
    scene, scale = find_splat_scene(None, CPU)
    assert scale is CPU and scene.method == "splat-prune"


def test_every_job_has_a_maker() -> None:
    """A kind that is added to the suite and to nothing else would fail after hours."""
    assert set(get_args(SplatJob)) == set(MAKERS) == set(ESTIMATES) >= {type(job) for job in splats(CPU)}
