"""What the runs of a suite have in common, and where they differ: that is what makes them comparable."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.engine.trainer import Trainer
from PIL import Image
from support import record_factory
from support.bench_run import FAST, bench, names_in, record_of, speed_of

from nerfstudio_prune.bench import runs as runs_module
from nerfstudio_prune.bench import suites
from nerfstudio_prune.bench import training as training_module
from nerfstudio_prune.bench.machine import clock_of
from nerfstudio_prune.bench.quality import ViewMeter
from nerfstudio_prune.bench.runs import RunFolder, estimate_seconds, macs_per_ray
from nerfstudio_prune.bench.setup import find_scene, make_config, run_options
from nerfstudio_prune.bench.speed import step_time_ratio
from nerfstudio_prune.bench.suites import SCALES, SUITES, Run, SpeedRun, digest
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.nerf.rays import FixedRays
from nerfstudio_prune.records.files import write_record
from nerfstudio_prune.records.schema import RunRecord

pytestmark = pytest.mark.usefixtures("bench_host")

SMOKE = SCALES["smoke"]
HALF = "importance-w_out-0.5"


def branches(folder: Path) -> list[RunRecord]:
    """Runs that go on from the dense start and were cut."""
    records = [record_of(folder, name) for name in sorted(names_in(folder)) if not name.startswith("speed")]
    return [record for record in records if record.recovery is not None]


def start_of(record: RunRecord) -> tuple[Any, ...]:
    """Quality and network right before the cut; a checkpoint's size also depends on the plan of what is to come."""
    stage = record.stages[0]
    assert stage.label == "before"
    return stage.quality, replace(stage.sizes, checkpoint_mb=0)


def fake_speed(folder: Path, ratio: float, times_faster: float) -> None:
    """Records a measurement in which a dense step takes as long as that many pruned ones."""
    fingerprint = find_scene(None, SMOKE).fingerprint
    record = record_factory.speed(ratio, digest=digest(SpeedRun(ratio), SMOKE, "nerf-prune", fingerprint, []))
    dense = replace(record.dense, train_step_seconds=[times_faster, 0.01, 100.0])
    pruned = replace(record.pruned, train_step_seconds=[1.0, 0.01, 100.0])
    write_record(structs.replace(record, dense=dense, pruned=pruned), folder / "speed" / f"{record.name}.json")


def test_every_branch_is_cut_at_the_same_network(recorded: Path) -> None:
    """Otherwise differences between strategies would contain differences between their starts: equal bit for bit, and
    all one step after the start."""
    found = branches(recorded)
    assert len(found) >= 20 and len({record.strategy for record in found}) >= 5
    first = start_of(found[0])
    for record in found:
        assert [stage.label for stage in record.stages] == ["before", "right after", "end"]
        assert start_of(record) == first and record.stages[0].step == SMOKE.start_steps + 1
        assert record.end.step == record.steps == SMOKE.steps
        assert record.parent == "dense-start-s1"


def test_removed_and_masked_sizes(recorded: Path) -> None:
    """Only removal makes a network smaller. Masks keep every parameter and zero some."""
    dense = record_of(recorded, "dense-s1").end.sizes
    for record in branches(recorded):
        before, after = record.stages[0].sizes, record.stages[1].sizes
        assert before.parameters == dense.parameters
        if record.role == "pruned":
            assert record.pruning_ratio is not None
            assert set(after.parts.values()) == {round(32 * (1 - record.pruning_ratio))}
            assert after.parameters < before.parameters and after.macs_per_ray < before.macs_per_ray
            assert record.end.sizes.parts == after.parts
        else:
            assert (after.parameters, after.macs_per_ray) == (before.parameters, before.macs_per_ray)
            # At the size of this scale, few weights lie below the lower threshold; none of them may come back.
            assert record.end.sizes.nonzero <= after.nonzero + dense.parameters // 100
            assert after.nonzero < before.nonzero or "threshold" in record.arm


def test_masked_neurons_are_as_good_as_removed_ones(recorded: Path) -> None:
    """The control that shows that surgery changes nothing but size: same neurons, same batches, same quality right
    after the cut and after training on. Rounding differs, since sums have other lengths."""
    removed, masked = (record_of(recorded, f"{name}-s1") for name in (HALF, f"masked-{HALF}"))
    assert masked.role == "masked" and masked.notes["kept"] == removed.stages[1].sizes.parts
    for label in ("right after", "end"):
        ours, theirs = removed.stage(label), masked.stage(label)
        assert ours is not None and theirs is not None
        assert theirs.quality.psnr == pytest.approx(ours.quality.psnr, abs=1e-3)
        assert theirs.quality.ssim == pytest.approx(ours.quality.ssim, abs=1e-4)
    # Training on has moved quality by much more than the tolerance, or the end would say nothing.
    assert abs(removed.stages[2].quality.psnr - removed.stages[1].quality.psnr) > 0.02


def test_masks_follow_random_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A masked control of a random strategy must draw the neurons that its counterpart lost, or it controls nothing."""
    base = suites.pruned(1, SMOKE, "uniform", None, 0.5)
    options = {**base.options, "pipeline.prune.strategy": "none"}
    control = replace(base, arm=f"masked-{base.arm}", role="masked", options=options, procedure="mask")
    monkeypatch.setattr(suites, "_masked", lambda seed, scale: control)
    bench("frontier", tmp_path, only="*uniform-0.5*", options=FAST)
    removed, masked = (record_of(tmp_path, f"{name}uniform-0.5-s1").stages[1].quality for name in ("", "masked-"))
    assert masked.psnr == pytest.approx(removed.psnr, abs=1e-3) and masked.ssim == pytest.approx(removed.ssim, abs=1e-4)


def test_small_networks_are_as_large_as_pruned_ones(recorded: Path) -> None:
    """The question behind them is whether pruning beats a network of that size from scratch."""
    for ratio in (0.5, 0.75):
        pruned = record_of(recorded, f"uniform-{ratio}-s1").end.sizes
        for name in (f"small-{ratio}-s1", f"small-{ratio}-equal-time-s1"):
            record = record_of(recorded, name)
            assert record.end.sizes.parts == pruned.parts and record.end.sizes.part_costs == pruned.part_costs
            assert [stage.label for stage in record.stages] == ["end"]
        assert record_of(recorded, f"small-{ratio}-s1").steps == SMOKE.steps


def test_small_networks_of_odd_widths(tmp_path: Path) -> None:
    """Users give any width; half of 33 is 17 for the one and must not be 16 for the other."""
    for name in ("small-0.5-s1", "uniform-0.5-s1"):
        bench("frontier", tmp_path, only=name, options={"pipeline.model.base-mlp-layer-width": "33"})
    small, pruned = (record_of(tmp_path, name).end.sizes for name in ("small-0.5-s1", "uniform-0.5-s1"))
    assert small.parts == pruned.parts and set(small.parts.values()) == {17, 16}


@pytest.mark.parametrize(("times_faster", "more"), [(3.0, 8), (1.6, 2), (0.5, 1)])
def test_equal_time_is_the_time_of_the_dense_start(tmp_path: Path, times_faster: float, more: int) -> None:
    """A small network has the time that the pruned one spent on dense steps for further small steps: with a step three
    times as fast, two more per dense step. The ratio is that of medians, so that one slow block counts little."""
    fake_speed(tmp_path, 0.5, times_faster)
    before = names_in(tmp_path)
    bench("frontier", tmp_path, only="small-0.5-equal-time-s1")
    assert names_in(tmp_path) == before | {"small-0.5-s1", "small-0.5-equal-time-s1"}
    assert step_time_ratio(speed_of(tmp_path, "speed-0.5")) == pytest.approx(times_faster)
    record = record_of(tmp_path, "small-0.5-equal-time-s1")
    assert record.steps == SMOKE.steps + more
    assert more == max(1, round(SMOKE.start_steps * (times_faster - 1)))


def test_equal_time_from_scratch_is_the_whole_time_of_a_pruned_run(tmp_path: Path) -> None:
    """A run of fewer steps at a rate that falls to its own end is what a user would have started instead: a longer one
    that had decayed before would waste its last steps."""
    bench("ablation", tmp_path, only="small-0.5-equal-time-decay-s1", start_steps=1)
    names = ("preset-best-decay-s1", "small-0.5-decay-s1", "small-0.5-equal-time-decay-s1")
    assert names_in(tmp_path) == {"dense-start-decay-s1", *names}
    pruned, small, as_long = (record_of(tmp_path, name) for name in names)
    seconds = pruned.seconds.train_total + pruned.seconds.prune
    assert as_long.steps == max(1, round(seconds * small.steps / small.seconds.train))
    assert as_long.role == "small-equal-time" and as_long.end.sizes.parts == small.end.sizes.parts
    run = next(job for job in SUITES["ablation"](replace(SMOKE, start_steps=1)) if job.name == names[2])
    assert isinstance(run, Run)
    config = make_config(run, SMOKE, find_scene(None, SMOKE), as_long.steps, tmp_path, None)
    assert {part["scheduler"].max_steps for part in config.optimizers.values()} == {as_long.steps}


def test_equal_time_from_scratch_needs_both_records(tmp_path: Path) -> None:
    """Its steps follow from two measurements; where one failed there is no number to fall back to."""
    folder = RunFolder(tmp_path, SMOKE, find_scene(None, SMOKE), {})
    scale = replace(SMOKE, start_steps=1)
    folder.jobs = {job.name: job for job in SUITES["ablation"](scale)}
    job = folder.jobs["small-0.5-equal-time-decay-s1"]
    assert isinstance(job, Run)
    with pytest.raises(FileNotFoundError, match=r"small-0\.5-equal-time-\S+ needs the record preset-best-decay-s1"):
        folder.steps(job)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Name of a run -> its training rays and the random state right before them, in order."""
    seen: dict[str, list[Any]] = {}
    next_train, execute = VanillaDataManager.next_train, runs_module.execute

    def watch_run(run: Run, *arguments: Any) -> RunRecord:
        seen[run.name] = []
        return execute(run, *arguments)

    def watch_batch(self: Any, step: int) -> Any:
        numpy_state: Any = np.random.get_state()  # noqa: NPY002  the host's samplers use the global state
        states = [torch.get_rng_state().double(), torch.as_tensor(numpy_state[1].astype(float))]
        rays, batch = next_train(self, step)
        content = [rays.directions.flatten().double(), batch["image"].flatten().double()]
        seen[list(seen)[-1]].append(torch.cat(states + content))
        return rays, batch

    monkeypatch.setattr(runs_module, "execute", watch_run)
    monkeypatch.setattr(VanillaDataManager, "next_train", watch_batch)
    return seen


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_all_branches_see_the_same_batches(tmp_path: Path, batches: dict[str, list[Any]]) -> None:
    """A pruned network and the dense control differ in what was cut, not in luck: the same rays with the same samples
    along them. Another seed has others."""
    bench("frontier", tmp_path, only="*-0.5-s1")
    bench("frontier", tmp_path, only="dense-s*", seeds=(1, 2))
    bench("paper", tmp_path, only="edge-keep-0.2*")
    dense = batches["dense-s1"]
    assert len(dense) == SMOKE.steps - SMOKE.start_steps
    cut = [name for name in batches if name.endswith("-s1") and not name.startswith(("dense", "small"))]
    assert len(cut) == 12
    for name in cut:
        assert same(batches[name], dense), name
    assert not any(same([a], [b]) for a, b in pairwise(dense))
    assert not same(batches["dense-s2"], dense)
    assert not same(batches["dense-start-s2"], batches["dense-start-s1"])


def test_gradients_of_a_criterion_do_not_move_the_batches(tmp_path: Path, batches: dict[str, list[Any]]) -> None:
    """Criterion `taylor` looks at batches of its own; the run must go on as if it had not."""
    pytest.importorskip("torch_pruning", reason="the optional dependency torch-pruning is not installed")
    for only in ("torch-pruning-taylor*", "dense-s1"):
        bench("peers", tmp_path, only=only)
    taylor, dense = batches["torch-pruning-taylor-0.5-s1"], batches["dense-s1"]
    extra = len(taylor) - len(dense)
    assert extra == 16 and same([*taylor[:1], *taylor[1 + extra :]], dense)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which a training step takes 1 second, measuring 100, and an event 10000."""
    time_now = [0.0]

    def takes(seconds: float, holder: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(holder, name)

        def slow(*arguments: Any, **options: Any) -> Any:
            time_now[0] += seconds
            return function(*arguments, **options)

        monkeypatch.setattr(holder, name, slow)

    takes(1, Trainer, "train_iteration")
    takes(100, ViewMeter, "__call__")
    takes(100, FixedRays, "__call__")
    takes(10_000, PruneController, "_carry_out")
    monkeypatch.setattr(training_module, "clock_of", lambda device: ("wall", lambda: time_now[0]))


@pytest.mark.parametrize(
    ("suite", "only", "name"),
    [("frontier", "coreset-0.5-s1", "coreset-0.5-s1"), ("frontier", "masked*", f"masked-{HALF}-s1")],
)
def test_clock_counts_training_steps_only(tmp_path: Path, clock: None, suite: str, only: str, name: str) -> None:
    """Quality against time is the claim of the project. Looking at a run, and the cut, which has its own number, must
    not be in the time of its steps; the time of the start must."""
    bench(suite, tmp_path, only=only)
    start, record = record_of(tmp_path, "dense-start-s1"), record_of(tmp_path, name)
    assert (start.seconds.train, start.seconds.train_total) == (4, 4)
    assert (record.seconds.train, record.seconds.train_total) == (4, 8)
    assert [(point.step, point.train_seconds) for point in start.curve] == [(2, 2), (4, 4)]
    assert [(point.step, point.train_seconds) for point in record.curve] == [(2, 2), (4, 4), (5, 5), (6, 6), (8, 8)]
    assert record.curve[:2] == start.curve


def test_time_adds_up_over_the_runs_before(tmp_path: Path, clock: None) -> None:
    """For equal time a run goes on from one that took all steps already."""
    fake_speed(tmp_path, 0.5, 3.0)
    bench("frontier", tmp_path, only="small-0.5-equal-time-s1")
    record = record_of(tmp_path, "small-0.5-equal-time-s1")
    assert (record.seconds.train, record.seconds.train_total) == (8, 16)
    assert [point.step for point in record.curve] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [point.train_seconds for point in record.curve] == [2, 4, 6, 8, 10, 12, 14, 16]


@pytest.mark.parametrize(("threads", "name"), [(1, "processor"), (2, "wall")])
def test_clock_of_one_thread_does_not_see_other_programs(
    monkeypatch: pytest.MonkeyPatch, threads: int, name: str
) -> None:
    """Waiting is what a busy machine adds. With several threads processor time would count their idling instead."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found, clock = clock_of(torch.device("cpu"))
    start = clock()
    time.sleep(0.05)
    assert found == name and (clock() - start < 0.04) == (name == "processor")


def test_curves(recorded: Path) -> None:
    """A chart of them must be a function of time: from the first dense step through the cut to the end."""
    for record in branches(recorded):
        assert record.parent is not None
        start = record_of(recorded, record.parent)
        assert record.curve[: len(start.curve)] == start.curve
        assert all(a.step < b.step and a.train_seconds < b.train_seconds for a, b in pairwise(record.curve))
        assert SMOKE.start_steps + 1 in [point.step for point in record.curve]
        assert record.curve[-1].step == record.steps
        assert record.curve[-1].train_seconds == pytest.approx(record.seconds.train_total)
        assert record.seconds.train_total == pytest.approx(start.seconds.train_total + record.seconds.train)
    dense = record_of(recorded, "dense-s1")
    assert [point.step for point in dense.curve] == [2, 4, 6, 8]
    # Right after the same cut masks and removal are on the same height.
    at_cut = [record_of(recorded, f"{name}-s1").curve[2].psnr for name in (HALF, f"masked-{HALF}")]
    assert at_cut[0] == pytest.approx(at_cut[1], abs=1e-3)


def test_time_of_measuring_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes up most of a short run, and the estimate of the next runs is made from it."""
    for holder, name in ((ViewMeter, "_measure"), (FixedRays, "__call__")):
        function: Any = getattr(holder, name)
        monkeypatch.setattr(holder, name, lambda *a, f=function: (time.sleep(0.05), f(*a))[1])
    bench("paper", tmp_path, only="uniform*")
    record = record_of(tmp_path, "uniform-0.75-s1")
    # Three stages and the three points of the curve after the start.
    assert record.seconds.evaluate >= 6 * 0.05


def test_stage_that_cannot_be_measured_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training goes on without a measurement that fails. A benchmark must not: the stages that are left would stand
    under the wrong labels, and a table would show the dense network as the pruned one."""
    inner, calls = ViewMeter.__call__, []

    def failing(meter: ViewMeter, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError("no room for the views")
        return inner(meter, *args)

    monkeypatch.setattr(ViewMeter, "__call__", failing)
    with pytest.raises(SystemExit):
        bench("frontier", tmp_path, only=f"{HALF}*")
    assert not any(name.startswith(HALF) for name in names_in(tmp_path))


def test_what_a_record_says_of_its_run(recorded: Path) -> None:
    """A record is read long after its files are gone."""
    record = record_of(recorded, "coreset-mussay-0.5-s1")
    assert (record.arm, record.seed, record.role) == ("coreset-mussay-0.5", 1, "pruned")
    assert (record.scene, record.scale, record.data, record.method) == (
        "demo-data",
        "smoke",
        "DemoDataParser",
        "nerf-prune",
    )
    assert record.config["optimizers.fields.optimizer.lr"] == 0.05
    assert record.config["pipeline.prune.coreset_variant"] == "mussay"
    (event,) = record.history
    assert (event.strategy, event.step, event.error) == ("coreset", SMOKE.start_steps, "")
    assert event.after.costs["parameters"] == record.stages[1].sizes.parameters
    assert event.metrics_after["psnr"] == record.stages[1].quality.psnr
    assert 0 < event.seconds == record.seconds.prune
    assert (record.rays_per_batch, record.eval_views, record.curve_rays) == (32, 2, 32)
    assert record.rays_per_sec > 0 and record.eval_rays_per_sec > 0 and math.isfinite(record.seconds.train_cpu)
    assert record.anatomy is None and record_of(recorded, "dense-start-s1").anatomy is not None


def test_anatomy_of_the_dense_start(recorded: Path) -> None:
    """Every weight of the fine field's hidden layers is in one bin: 63 and 27 encoded inputs, 32 wide layers, and a
    skip in the fifth."""
    anatomy = record_of(recorded, "dense-start-s1").anatomy
    assert anatomy is not None
    weights = 63 * 32 + 4 * 32 * 32 + (63 + 32) * 32 + (27 + 32) * 32 + 32 * 32
    assert sum(anatomy.histogram_counts) == weights


def test_pictures(recorded: Path) -> None:
    """A report shows them beside the truth; names in the record are relative, so that the folder can be moved."""
    record = record_of(recorded, "uniform-0.5-s1")
    ((view, pictures),) = record.images.items()
    assert view == "0" and set(pictures) == {"truth", "right after", "end"}
    for path in pictures.values():
        with Image.open(recorded / path) as picture:
            assert picture.size == (16, 16)
    assert (recorded / pictures["end"]).read_bytes() != (recorded / pictures["right after"]).read_bytes()


def test_speed_is_measured_in_turns(recorded: Path) -> None:
    """Equally many blocks of both; the pruned network is pruned before the first of them."""
    for ratio in (0.5, 0.75):
        record = speed_of(recorded, f"speed-{ratio}")
        width = round(32 * (1 - ratio))
        assert set(record.dense.sizes.parts.values()) == {32} and set(record.pruned.sizes.parts.values()) == {width}
        for arm in (record.dense, record.pruned):
            assert len(arm.train_step_seconds) == len(arm.eval_rays_per_sec) == SMOKE.speed_blocks
            assert min(arm.train_step_seconds + arm.eval_rays_per_sec + arm.image_seconds) > 0
        assert record.image_size == [16, 16] and record.rays_per_batch == 32


def test_estimate_without_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess, said to be one; work that is cut costs less, masks save nothing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    jobs = SUITES["frontier"](SCALES["cpu"])
    seconds, origin = estimate_seconds(jobs, SCALES["cpu"], "nerf-prune", tmp_path)
    assert set(seconds) == {job.name for job in jobs} and min(seconds.values()) > 0
    assert "guess" in origin
    assert seconds["uniform-0.5-s1"] < seconds["masked-importance-w_out-0.5-s1"] == seconds["dense-s1"]
    assert seconds["uniform-0.75-s1"] < seconds["uniform-0.5-s1"]


def test_estimate_from_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of the records on this kind of device: one that another program disturbed, and those of a GPU, must
    not decide. By hand: 1000 steps of 256 rays at 3200 rays per second, and half as long again for evaluation."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    scale = SCALES["cpu"]
    macs = macs_per_ray(run_options(Run("", 0, "dense", 1), scale, "nerf-prune"), "nerf-prune")
    records = []
    for seed, rays_per_sec in ((1, 3200.0), (2, 3200.0), (3, 32.0)):
        record = record_factory.dense(seed, rays_per_sec=rays_per_sec)
        record.end.sizes.costs["macs_per_ray"] = macs
        record.seconds.train, record.seconds.evaluate = 60.0, 30.0
        records.append(record)
    records += [record_factory.dense(seed, machine=record_factory.GPU, rays_per_sec=1e9) for seed in range(4, 9)]
    record_factory.save(records, tmp_path)
    seconds, origin = estimate_seconds(SUITES["frontier"](scale), scale, "nerf-prune", tmp_path)
    assert seconds["dense-s1"] == pytest.approx(1000 * 256 / 3200 * 1.5)
    assert seconds["small-0.5-s1"] == pytest.approx(2000 * 256 / 3200 * 1.5 / 4)
    assert origin == "speed of 3 recorded runs"


def test_estimate_counts_operations_as_records_do(recorded: Path) -> None:
    """The speed of a record is only of use if both count the same."""
    options = run_options(Run("", 0, "dense", 1), SMOKE, "nerf-prune")
    assert macs_per_ray(options, "nerf-prune") == record_of(recorded, "dense-s1").end.sizes.macs_per_ray


def test_peers(peers: Path) -> None:
    """Other libraries start from the very same network, and what they leave is as large as what they say."""
    before = start_of(record_of(peers, f"{HALF}-s1"))
    half = record_of(peers, f"{HALF}-s1").end.sizes
    for criterion in ("random", "magnitude-l1", "magnitude-l2", "taylor", "fpgm"):
        record = record_of(peers, f"torch-pruning-{criterion}-0.5-s1")
        assert record.notes["surgery_agrees"] is True and record.notes["criterion"] == criterion
        assert start_of(record) == before and record.end.sizes.parts == half.parts == record.notes["kept"]
        assert record.seconds.prune > 0 and record.history == []
    for criterion in ("l1", "l2"):
        record = record_of(peers, f"torch-prune-{criterion}-0.5-s1")
        assert start_of(record) == before and record.notes["kept"] == half.parts
        assert record.end.sizes.parameters == before[1].parameters
        assert record.end.sizes.nonzero < before[1].nonzero


def test_peers_go_on_from_what_is_recorded(peers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suites share their start and some runs in one folder; also afterwards nothing is left to be run."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a run is carried out again")

    monkeypatch.setattr(runs_module, "execute", refuse)
    monkeypatch.setattr(runs_module, "measure_speed", refuse)
    for suite in ("frontier", "paper", "peers"):
        bench(suite, peers, options=FAST)
