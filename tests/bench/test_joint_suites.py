"""The suites of runs of all kinds are read before they are run: nothing is trained twice, or without its control."""

from dataclasses import replace

import pytest

from nerfstudio_prune.bench.file_jobs import FileRun, SplatFileRun, TinyFileRun
from nerfstudio_prune.bench.joint_suites import JOINT_SUITES, JointSuite, everything, files
from nerfstudio_prune.bench.splat_suite import SPLAT_SCALES, SplatRun, splats
from nerfstudio_prune.bench.suites import SCALES, Run, ablation, kilo, schedule_text

SCALE, SPLAT_SCALE = SCALES["cpu"], SPLAT_SCALES["cpu"]


@pytest.fixture(params=JOINT_SUITES)
def suite(request: pytest.FixtureRequest) -> JointSuite:
    """Each of them."""
    return JOINT_SUITES[request.param](SCALE, SPLAT_SCALE)


def test_each_job_stands_behind_what_it_needs(suite: JointSuite) -> None:
    """Otherwise it would find nothing to go on from. Names are unique, whatever the kind: they are names of files."""
    names = [job.name for job in suite.jobs]
    assert len(set(names)) == len(names)
    for i, job in enumerate(suite.jobs):
        assert {*job.needs, *job.sources} <= set(names[:i])


def test_every_run_is_stored_and_has_its_control() -> None:
    """A dense run of each kind and seed; the tiny networks are held against the network that taught them."""
    suite = files(SCALE, SPLAT_SCALE)
    assert suite.comparisons == []
    for seed in SCALE.seeds:
        assert suite.stored(FileRun, seed) == {
            "dense": f"dense-decay-s{seed}",
            "best": f"preset-best-decay-s{seed}",
            "tiny": f"preset-tiny-decay-s{seed}",
        }
        assert suite.stored(TinyFileRun, seed) == {"student": f"student-s{seed}"}
        assert suite.stored(SplatFileRun, seed) == {
            "splat-dense": f"dense-s{seed}",
            "splat-best": f"preset-best-s{seed}",
            "splat-tiny": f"preset-tiny-s{seed}",
        }


def test_everything_compares_what_is_stored() -> None:
    """Its plot has the files of the runs in it: those of the other suite, by the same names and settings."""
    stored, compared = files(SCALE, SPLAT_SCALE), everything(SCALE, SPLAT_SCALE)
    assert (compared.networks, compared.gaussians) == (stored.networks, stored.gaussians)
    assert [job.seed for job in compared.comparisons] == list(SCALE.seeds)
    sources = {job.sources[0] for job in stored.jobs if job.name.startswith("files-")}
    assert {name for job in compared.comparisons for name in job.sources} == sources


def test_runs_are_those_of_the_suites_of_one_kind() -> None:
    """Hours of training that are recorded already count, in one folder: the same name is the same run."""
    scale, suite = replace(SCALE, start_steps=200), files(replace(SCALE, start_steps=200), SPLAT_SCALE)
    networks = {job.name: job for job in (*ablation(scale), *kilo(scale))}
    gaussians = {job.name: job for job in splats(replace(SPLAT_SCALE, seeds=SCALE.seeds))}
    shared = [job for job in suite.networks if not job.name.startswith("files-")]
    assert len(shared) == 5 * len(SCALE.seeds) and all(networks[job.name] == job for job in shared)
    for seed in SCALE.seeds:
        for name in (f"dense-start-s{seed}", f"dense-s{seed}"):
            assert gaussians[name] in suite.gaussians
        assert f"preset-best-s{seed}" not in gaussians


def test_networks_have_one_schedule() -> None:
    """A control of another text would be none."""
    assert len({schedule_text(job, SCALE) for job in files(SCALE, SPLAT_SCALE).networks if isinstance(job, Run)}) == 1


def test_gaussians_take_as_many_steps() -> None:
    """The dense run goes on from its start; a preset takes all of its steps itself."""
    own = [job for job in files(SCALE, SPLAT_SCALE).gaussians if isinstance(job, SplatRun) and job.seed == 1]
    steps = {job.arm: job.steps or 0 for job in own}
    assert steps["preset-best"] == steps["preset-tiny"] == steps["dense-start"] + steps["dense"] == SPLAT_SCALE.steps
