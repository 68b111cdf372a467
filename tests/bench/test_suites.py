"""Suites are data: what is compared with what is decided here, long before anything is measured."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

import pytest
import torch

from nerfstudio_prune.bench.cost_jobs import Scaling, StockSpeed
from nerfstudio_prune.bench.suites import SCALES, SUITES, Job, Run, Scale, SpeedRun, digest, schedule_text
from nerfstudio_prune.nerf.presets import PRESETS
from nerfstudio_prune.neurons.strategies import STRATEGIES, Selection, Strategy, register_strategy

CPU = SCALES["cpu"]


def runs_of(suite: str, scale: Scale = CPU) -> list[Run]:
    return [job for job in SUITES[suite](scale) if isinstance(job, Run)]


def seeds_of(runs: Sequence[Run]) -> dict[str, tuple[int, ...]]:
    """Arm -> its seeds."""
    return {arm: tuple(run.seed for run in runs if run.arm == arm) for arm in dict.fromkeys(run.arm for run in runs)}


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_names_are_unique_and_parents_come_first(suite: str, scale: Scale) -> None:
    """Jobs are carried out in this order, and a name is a file: a second run of that name would never be run, and a
    child before its parent would fail."""
    jobs = SUITES[suite](scale)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for i, job in enumerate(jobs):
        if isinstance(job, Run) and job.parent is not None:
            assert job.parent in names[:i]
        if isinstance(job, Run) and job.steps is None:
            assert {*(job.as_long_as or (f"speed-{job.pruning_ratio:g}",))} <= {*names[:i]}


@pytest.mark.parametrize(("one", "other"), combinations(SUITES, 2))
def test_equal_names_are_equal_runs(one: str, other: str) -> None:
    """A run that one suite has recorded serves the others in the same folder."""
    first = {job.name: job for job in SUITES[one](CPU)}
    second = {job.name: job for job in SUITES[other](CPU)}
    for name in first.keys() & second.keys():
        assert first[name] == second[name], name


def test_the_suites_share_runs() -> None:
    """Otherwise the test above compares nothing."""
    shared = {run.arm for run in runs_of("paper")} & {run.arm for run in runs_of("frontier")}
    assert {"dense-start", "dense", "coreset-0.5", "importance-w_out-0.5"} <= shared
    assert "coreset-mussay-0.5" in {run.arm for run in runs_of("peers")} & {run.arm for run in runs_of("frontier")}


def test_matrix_of_the_paper() -> None:
    """Tables 1 to 4 of the paper: each of its rows, in both readings of "retrain"; what is drawn at random with three
    seeds, what is not with one."""
    three = {
        "dense-start",
        "dense",
        "coreset-0.5",
        "coreset-0.75",
        "importance-w_in-0.5",
        "importance-w_out-0.5",
        "importance-w_in_w_out-0.5",
        "uniform-0.75",
        "scratch-0.5",
        "scratch-0.75",
    }
    edges = {
        f"edge-{target}{recovery}"
        for target in ("threshold-0.05", "threshold-0.1", "keep-0.4", "keep-0.2")
        for recovery in ("", "-scratch")
    }
    assert seeds_of(runs_of("paper")) == {**dict.fromkeys(three, (1, 2, 3)), **dict.fromkeys(edges, (1,))}
    for run in runs_of("paper"):
        prune = {key.removeprefix("pipeline.prune."): value for key, value in run.options.items()}
        if run.role == "edges":
            _, option, value, *scratch = run.arm.split("-")
            name = {"threshold": "edge_threshold", "keep": "edge_keep_fraction"}[option]
            assert prune["strategy"] == "edge" and prune[name] == float(value) and run.pruning_ratio is None
            assert prune["recovery"] == run.recovery == ("scratch" if scratch else "continue")
        if run.role == "pruned":
            assert prune["pruning_ratio"] == run.pruning_ratio == float(run.arm.rpartition("-")[2])
            assert prune.get("recovery", "continue") == run.recovery
            assert (run.recovery == "scratch") == run.arm.startswith("scratch")


def test_matrix_of_the_frontier() -> None:
    """Half width with every seed, quarter width with one, and each with the controls that its claims need."""
    half = {
        "coreset-0.5",
        "uniform-0.5",
        "importance-w_out-0.5",
        "importance-w_in_w_out-0.5",
        "coreset-mussay-0.5",
        "small-0.5",
        "small-0.5-equal-time",
    }
    controls = {"dense-start", "dense", "masked-importance-w_out-0.5"}
    quarter = {arm.replace("0.5", "0.75") for arm in half}
    refitted = {
        "obs-lstsq-0.5",
        "pivoted-qr-lstsq-0.5",
        "importance-lstsq-w_out-0.5",
        "importance-lstsq-activation-0.5",
    }
    expected = {**dict.fromkeys(half | controls, (1, 2, 3)), **dict.fromkeys(quarter | refitted, (1,))}
    assert seeds_of(runs_of("frontier")) == expected
    assert {job.name for job in SUITES["frontier"](CPU) if isinstance(job, SpeedRun)} == {"speed-0.5", "speed-0.75"}


WITHOUT = ("obs", "refit", "budget", "gradients")


def test_arms_of_a_late_ablation() -> None:
    """The whole recipe and its controls are what claims rest on: all seeds; each part is left out once. Every arm, the
    dense one too, has the same decaying rate; otherwise the recipe would be credited with what the decay is worth."""
    scale = replace(CPU, start_steps=3000, steps=3300)
    everywhere = {"dense-start", "dense", "recipe-0.5", "recipe-0.625", "recipe-0.7", "importance-w_out-0.5"}
    once = {f"recipe-0.5-without-{part}" for part in (*WITHOUT, "rate", "teacher")} | {"uniform-0.5"}
    expected = {**dict.fromkeys(everywhere | {"small-0.5"}, (1, 2, 3)), **dict.fromkeys(once, (1,))}
    runs = runs_of("ablation", scale)
    assert seeds_of(runs) == {f"{arm}-decay": seeds for arm, seeds in expected.items()}
    assert {run.decay for run in runs} == {(0.1, 3300)}
    recipe = {run.arm: run for run in runs}["recipe-0.5-decay"].options
    assert (recipe["pipeline.prune.teacher.steps"], recipe["pipeline.prune.recovery_decay"]) == (100, 300)
    assert recipe["pipeline.prune.recovery_lr"] == 1e-3


def test_arms_of_an_early_ablation() -> None:
    """An early cut is followed by most of the training. Presets are measured as they are; the small network has as many
    steps as they have, and as much time, its rate lowered to the end of each, for the comparison to be fair."""
    scale = replace(CPU, start_steps=450, steps=3000)
    runs = runs_of("ablation", scale)
    seeds = seeds_of(runs)
    for name in ("preset-paper", "preset-fast", "preset-best", "preset-tiny", "small-0.5", "small-0.5-equal-time"):
        assert seeds[f"{name}-decay"] == (1, 2, 3)
    arms = {run.arm: run for run in runs if run.seed == 1}
    assert {arm for arm in arms if "without" in arm} == {f"recipe-0.5-without-{part}-decay" for part in WITHOUT}
    assert not any("teacher" in option or "lr" in option for option in arms["recipe-0.5-decay"].options)
    best = arms["preset-best-decay"]
    assert best.options["pipeline.prune.preset"] == "best" and best.options["pipeline.prune.start_step"] == 450
    assert {option.split(".")[-1] for option in best.options} <= {"preset", "start_step", "stop_step"}
    assert (arms["preset-tiny-decay"].pruning_ratio, best.pruning_ratio) == (0.75, 0.5)
    faster = arms["preset-best-twice-the-rate-decay"]
    assert faster.options == {**best.options, "pipeline.prune.recovery_lr_factor": 2.0}
    small, as_long = arms["small-0.5-decay"], arms["small-0.5-equal-time-decay"]
    assert (small.steps, small.decay) == (3000, (0.1, 3000))
    assert (as_long.steps, as_long.decay, as_long.parent) == (None, (0.1, None), None)
    assert as_long.needs == ("preset-best-decay-s1", "small-0.5-decay-s1")
    assert as_long.options == small.options and as_long.width_ratio == small.width_ratio


@pytest.mark.parametrize("start_steps", [450, 1500])
def test_leaving_a_part_out_changes_that_part_only(start_steps: int) -> None:
    """Otherwise the table of ingredients would credit one part with the work of another."""
    scale = replace(CPU, start_steps=start_steps, steps=3000)
    arms = {run.arm: dict(run.options) for run in runs_of("ablation", scale) if run.seed == 1}
    whole = arms["recipe-0.5-decay"]
    allowed = {
        "obs": {"strategy", "score"},
        "refit": {"refit"},
        "budget": {"target_parameters", "pruning_ratio"},
        "gradients": {"calibration_weights"},
        "rate": {"recovery_lr", "recovery_decay"},
        "teacher": {"teacher.steps"},
    }
    for part in (*WITHOUT, *(["rate", "teacher"] if start_steps == 1500 else [])):
        left_out = arms[f"recipe-0.5-without-{part}-decay"]
        different = {key for key in whole | left_out if whole.get(key) != left_out.get(key)}
        assert different and {key.removeprefix("pipeline.prune.") for key in different} <= allowed[part], part


def test_a_new_strategy_is_in_the_frontier() -> None:
    """Somebody who registers a method of his own gets it compared without touching the benchmark."""

    @register_strategy("temporary")
    @dataclass
    class Temporary(Strategy):
        @property
        def default_score(self) -> str:
            return "w_in"

        def select(self, scores: torch.Tensor, n_keep: int, generator: torch.Generator) -> Selection:
            return Selection(torch.arange(n_keep))

    try:
        seeds = seeds_of(runs_of("frontier"))
        found = {run.arm: run for run in runs_of("frontier")}["temporary-0.5"]
    finally:
        del STRATEGIES["temporary"]
    assert seeds["temporary-0.5"] == (1, 2, 3) and seeds["temporary-0.75"] == (1,)
    assert (found.strategy, found.score, found.options["pipeline.prune.strategy"]) == (
        "temporary",
        "w_in",
        "temporary",
    )
    assert not any("temporary" in run.arm for run in runs_of("frontier"))


@pytest.mark.parametrize("suite", ["paper", "frontier", "peers"])
def test_all_branches_have_the_same_start_and_length(suite: str) -> None:
    """What is cut is compared with the dense control: same start, same step of the cut, same number of steps."""
    for run in runs_of(suite):
        if run.parent is not None and run.steps is not None:
            assert (run.parent, run.steps) == (f"dense-start-s{run.seed}", CPU.steps - CPU.start_steps)
        if run.procedure == "method" and run.recovery is not None:
            assert run.options["pipeline.prune.start_step"] == CPU.start_steps
        if run.role == "small":
            assert (run.parent, run.steps) == (None, CPU.steps)


@pytest.mark.parametrize(
    ("sizes", "decay", "text"),
    [
        ({}, None, ""),
        ({"seeds": (7,), "views": 1, "options": {}}, None, ""),
        ({"start_steps": 450}, None, "cut at 450 of 2,000 steps"),
        ({"steps": 3000}, None, "cut at 1,000 of 3,000 steps"),
        ({}, (0.1, 2000), "cut at 1,000 of 2,000 steps, rate 0.002 decaying to 0.0002"),
        (
            {"start_steps": 3000, "steps": 3300},
            (0.125, 3300),
            "cut at 3,000 of 3,300 steps, rate 0.002 decaying to 0.00025",
        ),
    ],
)
def test_schedules_in_words(sizes: dict[str, Any], decay: Any, text: str) -> None:
    """Runs are compared where the text is the same: it has to hold all that was replaced on the command line, and
    nothing for what the scale itself says, as that is what records without it mean."""
    assert schedule_text(replace(RUN, decay=decay), replace(CPU, **sizes)) == text


@pytest.mark.parametrize("suite", [name for name in SUITES if name not in ("speed", "scaling")])
def test_the_runs_of_a_suite_have_one_schedule(suite: str) -> None:
    """A control of another text would be none."""
    scale = replace(CPU, start_steps=450)
    (text,) = {schedule_text(run, scale) for run in runs_of(suite, scale)}
    assert text.startswith("cut at 450 of 2,000 steps") and ("decaying" in text) == (suite in ("ablation", "kilo"))


def test_peers_prune_to_the_same_width() -> None:
    """Libraries are compared by what they choose, so all have one ratio and one start."""
    runs = runs_of("peers")
    assert {run.seed for run in runs} == {1}
    assert {run.pruning_ratio for run in runs if run.recovery} == {0.5}
    criteria = {(run.procedure, run.score) for run in runs if run.role == "peer"}
    assert criteria == {
        *(("torch-pruning", name) for name in ("random", "magnitude-l1", "magnitude-l2", "taylor", "fpgm")),
        *(("torch-prune", name) for name in ("l1", "l2")),
    }


RUN = Run("arm", 1, "pruned", 4, "start-s1", {"a.b": 0.5})
START = Run("start", 1, "start", 4)
SCALE = Scale("tiny", {"c.d": 2}, 4, 8, (1,), 2, 32, 2, 2, 2, {"image_size": 16})


def of(run: Job = RUN, scale: Scale = SCALE, method: str = "m", scene: str = "s", parents: Any = ()) -> str:
    return digest(run, scale, method, scene, [START, *parents])


def other(value: Any) -> Any:
    """A different value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, dict):
        return {**value, "new": 1}
    return value + "x" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("name", [f.name for f in fields(Run)])
def test_digest_covers_every_setting_of_a_run_and_its_parents(name: str) -> None:
    """A record with the digest of a run is taken for that run. One setting left out, and a changed suite would go on
    with what was measured before the change."""
    change: Any = {name: other(getattr(RUN, name))}
    assert of(replace(RUN, **change)) != of()
    parent = Run("earlier", 1, "start", 2)
    assert of(parents=[replace(parent, **change)]) != of(parents=[parent])


RUN_SIZES = {"options", "views", "curve_rays", "curve_every"}


@pytest.mark.parametrize("name", [f.name for f in fields(Scale)])
@pytest.mark.parametrize(
    ("job", "sizes"),
    [
        (RUN, RUN_SIZES),
        (replace(RUN, steps=None), {*RUN_SIZES, "start_steps"}),
        (SpeedRun(0.5), {"options", "speed_blocks", "speed_steps"}),
        (StockSpeed(1), {"options", "views"}),
        (Scaling(1), {"options"}),
    ],
    ids=["run", "equal-time", "speed", "stock", "scaling"],
)
def test_digest_covers_the_sizes_that_decide_a_job_and_no_others(job: Job, sizes: set[str], name: str) -> None:
    """More seeds or another number of speed blocks must not throw away runs that are recorded. Steps count through the
    runs themselves, options of the built-in scene through its fingerprint; only for equal time steps follow from the
    scale."""
    value = getattr(SCALE, name)
    changed = replace(SCALE, **{name: (*value, 7) if name == "seeds" else other(value)})
    assert (of(job, scale=changed) != of(job)) == (name in sizes)


def digests(suite: str, scale: Scale) -> dict[str, str]:
    """Name of each job of a suite -> its fingerprint."""
    jobs = {job.name: job for job in SUITES[suite](scale)}
    found = {}
    for job in jobs.values():
        parents, run = [], job
        while isinstance(run, Run) and run.parent is not None:
            run = jobs[run.parent]
            parents.append(run)
        found[job.name] = digest(job, scale, "nerf-prune", "lego", parents)
    return found


@pytest.mark.parametrize("suite", [name for name in SUITES if name not in ("ablation", "kilo")])
def test_steps_count_where_they_decide(suite: str) -> None:
    """The runs of a longer suite start from the same dense start; a later cut changes everything but networks that are
    small from the beginning."""
    before, longer = digests(suite, CPU), digests(suite, replace(CPU, steps=3000))
    same = {name for name in before if before[name] == longer[name]}
    assert same == {name for name in before if name.startswith(("dense-start", "speed", "scaling"))}
    later = digests(suite, replace(CPU, start_steps=1500))
    same = {name for name in before if before[name] == later[name]}
    assert same == {
        name for name in before if name.startswith(("speed", "small", "scaling")) and not name.count("equal-time")
    }
    assert len(set(before.values())) == len(before)


def test_digest_covers_what_a_preset_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that is improved later is another recipe; records of the old one must not count as its measurement."""
    scale = replace(CPU, start_steps=450, steps=3000)
    before = digests("ablation", scale)
    monkeypatch.setitem(PRESETS, "best", {**PRESETS["best"], "target_parameters": 0.3})
    after = digests("ablation", scale)
    changed = {f"preset-best-decay-s{i}" for i in (1, 2, 3)} | {"preset-best-twice-the-rate-decay-s1"}
    assert {name for name in before if before[name] != after[name]} == changed


def test_digest_covers_method_and_scene() -> None:
    """Two scenes in one folder would be mixed up."""
    assert len({of(), of(method="n"), of(scene="t"), of(SpeedRun(0.5)), of(SpeedRun(0.25))}) == 5


def test_digest_is_the_same_in_every_process() -> None:
    """Written out, from another process: Python's own hashes differ from one to the next. Where it changes, no
    earlier record is taken up any more."""
    assert of() == "1b4ef73911fcac5b"
