"""`ns-prune bench` takes hours: nothing that is done may be lost, done twice, or mixed with other settings."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from nerfstudio.engine.trainer import Trainer
from support import record_factory
from support.bench_run import bench, contents, names_in, record_of, small_host, speed_of
from support.pictures import scene

from nerfstudio_prune import cli
from nerfstudio_prune.bench import runs as runs_module
from nerfstudio_prune.bench.procedures import PROCEDURES
from nerfstudio_prune.bench.suites import SCALES, SUITES, Run
from nerfstudio_prune.records.files import read_records
from nerfstudio_prune.records.schema import RecordError, RunRecord

pytestmark = pytest.mark.usefixtures("bench_host")

FIVE = "*-0.5-s1"
"""In the suite `paper`: five branches, for which the dense start is added."""
NAMES = (
    "dense-start-s1",
    "coreset-0.5-s1",
    "importance-w_in-0.5-s1",
    "importance-w_out-0.5-s1",
    "importance-w_in_w_out-0.5-s1",
    "scratch-0.5-s1",
)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were begun."""
    seen: list[str] = []
    execute = runs_module.execute

    def watch(run: Run, *arguments: Any) -> RunRecord:
        seen.append(run.name)
        return execute(run, *arguments)

    monkeypatch.setattr(runs_module, "execute", watch)
    return seen


@pytest.fixture(scope="module")
def whole(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `bench paper --only FIVE` was done without interruption, for reading only."""
    folder = tmp_path_factory.mktemp("whole")
    with small_host(bench_cache):
        bench("paper", folder, only=FIVE)
    assert names_in(folder) == set(NAMES)
    return folder


@pytest.fixture
def five(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "five")


def qualities(folder: Path) -> dict[str, Any]:
    """What must not depend on how often a suite was interrupted."""
    runs, _ = read_records(folder)
    return {run.name: ([stage.quality for stage in run.stages], [point.psnr for point in run.curve]) for run in runs}


def test_what_is_recorded_is_not_run_again(five: Path, executed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again does nothing at all, not even touch a file."""
    before = contents(five)
    capsys.readouterr()
    bench("paper", five, only=FIVE)
    assert executed == [] and contents(five) == before
    assert f"Suite paper: 6 runs recorded in {five}" in capsys.readouterr().out.replace("\n", "")


def test_work_may_be_deleted_when_all_is_recorded(five: Path, executed: list[str]) -> None:
    """It holds gigabytes of checkpoints. More views of the same records, for the report, need none of it."""
    before = contents(five)
    shutil.rmtree(five / "work")
    bench("paper", five, only=FIVE)
    assert executed == [] and contents(five) == before and not (five / "work").exists()


HOLD = "import sys, filelock; x = filelock.FileLock(sys.argv[1]); x.acquire(); print(flush=True); input()"


def test_two_of_them_do_not_do_the_same_work(five: Path, executed: list[str]) -> None:
    """Two terminals, or a job that was started again too early: hours are spent twice, and each writes over the other's
    checkpoints. The lock ends with its process, however that ends."""
    (five / "runs" / f"{NAMES[2]}.json").unlink()
    command = [sys.executable, "-c", HOLD, str(five / "work" / "bench.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        (five / "work" / "bench.pid").write_text(str(other.pid))
        with pytest.raises(ValueError, match=rf"another `ns-prune bench` \(process {other.pid}\) works on this folder"):
            bench("paper", five, only=FIVE)
        assert executed == []
        bench("paper", five, only=NAMES[3])  # all recorded: there is nothing to wait for
        other.kill()
    bench("paper", five, only=FIVE)
    assert executed == [NAMES[2]] and (five / "work" / "bench.pid").read_text() == str(os.getpid())


def test_a_start_is_run_again_where_its_checkpoint_is_needed(five: Path, executed: list[str]) -> None:
    """A branch that is still to come needs the start's weights, which come out the same; other branches stay."""
    before, quality = contents(five), qualities(five)
    shutil.rmtree(five / "work")
    (five / "runs" / f"{NAMES[2]}.json").unlink()
    bench("paper", five, only=FIVE)
    assert executed == [NAMES[0], NAMES[2]] and qualities(five) == quality
    after = contents(five)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"runs/{NAMES[0]}.json", f"runs/{NAMES[2]}.json"}


def test_more_runs_go_on_from_what_is_there(five: Path, executed: list[str]) -> None:
    """Another suite, or another seed, in the same folder."""
    before = contents(five)
    bench("frontier", five, only="uniform-0.5*", seeds=(1, 2))
    assert executed == ["uniform-0.5-s1", "dense-start-s2", "uniform-0.5-s2"]
    assert {name: value for name, value in contents(five).items() if name in before} == before


@pytest.mark.parametrize("step", [2, 4 + 4 + 2])
def test_interrupted_in_the_middle_of_a_run(
    tmp_path: Path,
    whole: Path,
    executed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    """Ctrl-C in the first or third run: what was finished stays as it is, the same command finishes the rest, and the
    results are those of a suite that was never interrupted."""
    folder = tmp_path / "results"
    train_iteration, steps = Trainer.train_iteration, []

    def interrupt(self: Any, number: int) -> Any:
        steps.append(number)
        if len(steps) == step:
            raise KeyboardInterrupt
        return train_iteration(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_iteration", interrupt)
        with pytest.raises(SystemExit) as caught:
            bench("paper", folder, only=FIVE)
    assert caught.value.code == 130 and "same command goes on" in capsys.readouterr().out
    done = list(NAMES[: len(executed) - 1])
    assert len(executed) == (1 if step == 2 else 3) and names_in(folder) == set(done)
    before = contents(folder)
    executed.clear()
    bench("paper", folder, only=FIVE)
    assert executed == [name for name in NAMES if name not in done]
    after = contents(folder)
    assert all(after[name] == before[name] for name in before)
    assert qualities(folder) == qualities(whole)


@pytest.mark.slow
def test_killed_process(tmp_path: Path, bench_cache: Path, executed: list[str]) -> None:
    """Without a chance to clean up, as by a machine that is switched off or out of memory: no record is half written,
    and the same command finishes. Also the one test of the installed command."""
    folder = tmp_path / "results"
    command = [sys.executable, "-m", "nerfstudio_prune.cli", "bench", "paper", "--scale", "smoke", "--only", FIVE]
    environment = {**os.environ, "XDG_CACHE_HOME": str(bench_cache), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--output", str(folder)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    try:
        while not (folder / "work" / "logs" / f"{NAMES[2]}.txt").exists():
            assert process.poll() is None and time.monotonic() < deadline, "ended, or hung, before it was killed"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = contents(folder)
    assert {NAMES[0], NAMES[1]} <= names_in(folder) < set(NAMES)
    assert record_of(folder, NAMES[1]).command.startswith("ns-prune bench paper --scale smoke --only")
    bench("paper", folder, only=FIVE)
    assert executed == [name for name in NAMES if f"runs/{name}.json" not in before]
    after = contents(folder)
    assert all(after[name] == before[name] for name in before if name.endswith(".json"))
    assert names_in(folder) == set(NAMES)


def test_one_failed_run_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A night of runs goes on behind one that fails; what is missing is said at the end, with the reason in its log."""

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("the mask does not fit")

    with monkeypatch.context() as patch:
        patch.setitem(PROCEDURES, "mask", fail)
        with pytest.raises(SystemExit) as caught:
            bench("frontier", tmp_path, only="*importance-w_out-0.5*", seeds=(1, 2))
    failed = [f"masked-importance-w_out-0.5-s{seed}" for seed in (1, 2)]
    assert caught.value.code == 1
    text = " ".join(capsys.readouterr().out.split())
    assert f"2 of 6 runs are missing: {', '.join(failed)}" in text and "the mask does not fit" in text
    assert names_in(tmp_path) == {
        f"{arm}-s{seed}" for arm in ("dense-start", "importance-w_out-0.5") for seed in (1, 2)
    }
    for name in failed:
        log = (tmp_path / "work" / "logs" / f"{name}.txt").read_text()
        assert "Traceback" in log and "the mask does not fit" in log
    before = contents(tmp_path)
    bench("frontier", tmp_path, only="*importance-w_out-0.5*", seeds=(1, 2))
    after = contents(tmp_path)
    assert all(after[name] == before[name] for name in before) and set(failed) < names_in(tmp_path)


def test_branches_of_a_failed_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They cannot be run, and are named with what they miss; other seeds are not touched."""
    execute = runs_module.execute

    def fail(run: Run, *arguments: Any) -> RunRecord:
        if run.name == "dense-start-s1":
            raise RuntimeError("out of memory")
        return execute(run, *arguments)

    monkeypatch.setattr(runs_module, "execute", fail)
    with pytest.raises(SystemExit) as caught:
        bench("paper", tmp_path, only="uniform*", seeds=(1, 2))
    assert caught.value.code == 1 and names_in(tmp_path) == {"dense-start-s2", "uniform-0.75-s2"}
    text = " ".join(capsys.readouterr().out.split())
    assert "uniform-0.75-s1 goes on from dense-start-s1, which is missing" in text
    assert "2 of 4 runs are missing: dense-start-s1, uniform-0.75-s1" in text


def test_equal_time_without_the_measured_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its steps follow from a measurement; where that failed there is no number to fall back to."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("too busy")

    monkeypatch.setattr(runs_module, "measure_speed", fail)
    with pytest.raises(SystemExit):
        bench("frontier", tmp_path, only="small-0.5-equal*")
    assert names_in(tmp_path) == {"small-0.5-s1"}
    assert "small-0.5-equal-time-s1 needs the record speed-0.5" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 10},
        {"start_steps": 3},
        {"views": 1},
        {"options": {"pipeline.model.base-mlp-layer-width": "40"}},
    ],
)
def test_records_of_other_settings_are_kept_apart(
    five: Path, executed: list[str], options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken for these, they would be compared with runs that they are not comparable to; overwritten, they were lost.
    Nothing is begun."""
    before = contents(five)
    with pytest.raises(ValueError) as caught:
        bench("paper", five, only=FIVE, **options)
    assert not isinstance(caught.value, RecordError)
    assert str(five / "runs") in str(caught.value) and "another --output" in str(caught.value)
    assert executed == [] and contents(five) == before


def test_records_of_another_scene_are_kept_apart(five: Path, executed: list[str], tmp_path: Path) -> None:
    """The most likely mistake: the same command with another --data."""
    data = tmp_path / "lego"
    data.mkdir()
    (data / "transforms_train.json").write_text("{}")
    with pytest.raises(ValueError, match="scene demo-data"):
        bench("paper", five, only=FIVE, data=data)
    assert executed == []


@pytest.mark.parametrize("odd", [False, True])
def test_data_that_nothing_can_be_measured_on_is_refused_once(tmp_path: Path, executed: list[str], odd: bool) -> None:
    """Without evaluation views, or with a picture that cannot be trained on, each run of the suite would fail by
    itself."""
    frames = {1: {"file_path": "images/gone.png"}} if odd else {}
    data = scene(tmp_path / "data", views=10 if odd else 3, frames=frames)
    match = (
        "1 of 10 pictures cannot be trained" if odd else "no evaluation views to measure the runs on: Nerfstudio gives"
    )
    with pytest.raises(ValueError, match=match):
        bench("frontier", tmp_path / "results", data=data)
    assert executed == [] and not (tmp_path / "results").exists()
    bench("frontier", tmp_path / "results", data=data, dry_run=True)


@pytest.mark.parametrize("content", ["", "{", '{"kind": "run"}', "[]"])
def test_a_damaged_record_is_named(five: Path, executed: list[str], content: str) -> None:
    """It could be the only copy of a long run: no guess, no overwriting."""
    path = five / "runs" / f"{NAMES[3]}.json"
    path.write_text(content)
    with pytest.raises(RecordError) as caught:
        bench("paper", five, only=FIVE)
    assert str(path) in str(caught.value) and executed == [] and path.read_text() == content


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("suite", SUITES)
def test_dry_run(tmp_path: Path, wide: None, capsys: pytest.CaptureFixture[str], suite: str) -> None:
    """What will be run and how long it takes, before hours are spent; nothing is written."""
    bench(suite, tmp_path / "results", dry_run=True)
    text = capsys.readouterr().out
    for job in SUITES[suite](SCALES["smoke"]):
        (line,) = [line for line in text.splitlines() if job.name in [cell.strip() for cell in line.split("│")[1:2]]]
        assert float(line.split("│")[4]) >= 0
    assert "Estimated: " in text and not (tmp_path / "results").exists()


def test_names_of_a_plan_fit_into_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """80 columns are also what a pipe gets. A name that is cut off cannot be given to --only."""
    monkeypatch.setenv("COLUMNS", "80")
    bench("peers", tmp_path, dry_run=True)
    text = capsys.readouterr().out
    assert all(job.name in text for job in SUITES["peers"](SCALES["smoke"]))


def test_dry_run_knows_what_is_recorded(
    five: Path, wide: None, executed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what is left is estimated, by the speed of what was run here."""
    before = contents(five)
    capsys.readouterr()
    bench("paper", five, dry_run=True)
    text = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    recorded = {name for name, line in lines.items() if "recorded" in line}
    assert recorded == set(NAMES) and "18 runs, 6 of them recorded" in text
    assert "speed of 6 recorded runs" in text and executed == [] and contents(five) == before


def test_minutes_of_a_dry_run(
    tmp_path: Path, wide: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record by hand, of a machine that takes a second for one ray: 4 steps of 32 rays, and as long again to
    evaluate, are 256 seconds for the dense run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench("paper", tmp_path / "once", only="dense-s1")
    dense = record_of(tmp_path / "once", "dense-s1")
    record = structs.replace(
        record_factory.dense(9),
        rays_per_sec=1.0,
        stages=dense.stages,
        seconds=replace(dense.seconds, train=5, evaluate=5),
    )
    record_factory.save([record], tmp_path / "results")
    capsys.readouterr()
    bench("paper", tmp_path / "results", only="dense-s1", dry_run=True)
    text = capsys.readouterr().out
    assert (
        text.count(f"{256 / 60:.1f}") == 2 and f"Estimated: {512 / 60:.0f} minutes (speed of 1 recorded runs)" in text
    )


def test_overrides_arrive_in_training_and_record(tmp_path: Path) -> None:
    """An option that only one of the two knows would make a record that lies. It holds for all branches, whose widths
    are shares of it."""
    options = {"pipeline.model.base-mlp-layer-width": "64", "optimizers.fields.optimizer.lr": "1e-3"}
    bench("paper", tmp_path, only="uniform*", options=options, views=1)
    for name, width in (("dense-start-s1", 64), ("uniform-0.75-s1", 16)):
        record = record_of(tmp_path, name)
        assert record.config["pipeline.model.base_mlp_layer_width"] == 64
        assert record.config["optimizers.fields.optimizer.lr"] == 1e-3
        assert record.end.sizes.parts["field_fine.mlp_base.layers.0"] == width
        assert record.eval_views == len(record.end.quality.views) == 1


@pytest.mark.parametrize(
    ("suite", "only", "expected"),
    [
        ("paper", "uniform-*", {"dense-start-s1", "uniform-0.75-s1"}),
        ("frontier", "small-0.5-equal-time-s1", {"speed-0.5", "small-0.5-s1", "small-0.5-equal-time-s1"}),
        ("frontier", "speed-0.75", {"speed-0.75"}),
        ("peers", "dense-start*", {"dense-start-s1"}),
        ("speed", "speed-0*", {"speed-0.25", "speed-0.5", "speed-0.75"}),
    ],
)
def test_a_pattern_takes_what_its_runs_need(tmp_path: Path, suite: str, only: str, expected: set[str]) -> None:
    """Its runs with those they go on from, and no others."""
    bench(suite, tmp_path, only=only)
    assert names_in(tmp_path) == expected
    if "speed-0.25" in expected:
        assert speed_of(tmp_path, "speed-0.25").pruning_ratio == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": "coresets-*"}, "--only 'coresets-*' matches none of dense-start-s1"),
        ({"seeds": (1, 2, 1)}, "--seeds must differ, got (1, 2, 1)"),
        ({"seeds": ()}, "--seeds must be at least one"),
        ({"views": 0}, "--views must be at least one, got 0"),
        ({"start_steps": 0}, "--start-steps must be in [1, --steps - 2], got 0 with --steps 8"),
        ({"start_steps": 7}, "--start-steps must be in [1, --steps - 2], got 7 with --steps 8"),
        ({"steps": 5}, "--start-steps must be in [1, --steps - 2], got 4 with --steps 5"),
        ({"threads": 0}, "--threads must be at least one, got 0"),
        ({"options": {"pipeline.model.width": "3"}}, "pipeline.model.width"),
        ({"data": Path("/nowhere")}, "--data /nowhere"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Before anything is run or written."""
    with pytest.raises(ValueError) as caught:
        bench("paper", tmp_path / "results", **options)
    assert message in str(caught.value) and not (tmp_path / "results").exists()


def test_shortest_run(tmp_path: Path) -> None:
    """The least that the message above allows: one dense step, the cut, and one step after it."""
    bench("paper", tmp_path, only="*-0.5-s1", start_steps=1, steps=3)
    record = record_of(tmp_path, "coreset-0.5-s1")
    assert [stage.step for stage in record.stages] == [2, 2, 3] and record.rays_per_sec > 0


def test_schedule_is_recorded(tmp_path: Path, whole: Path) -> None:
    """The report keeps runs of several schedules apart by what their records say, controls included."""
    assert {record.schedule for record in read_records(whole)[0]} == {""}
    bench("paper", tmp_path / "later", only="uniform-0.75-s1", start_steps=5)
    bench("ablation", tmp_path / "ablation", only="*-0.5-decay-s1", start_steps=1, steps=3)
    for folder, names, text in (
        ("later", {"dense-start-s1", "uniform-0.75-s1"}, "cut at 5 of 8 steps"),
        (
            "ablation",
            {"dense-start-decay-s1", "recipe-0.5-decay-s1", "small-0.5-decay-s1"},
            "cut at 1 of 3 steps, rate 0.0005 decaying to 5e-05",
        ),
    ):
        found = {record.name: record.schedule for record in read_records(tmp_path / folder)[0]}
        assert set(found.values()) == {text} and names <= set(found)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls the command as a shell does and gives its exit status."""

    def run(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["ns-prune", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.entrypoint()
        return caught.value.code

    return run


@pytest.mark.parametrize(
    "arguments",
    [("bench", "frontiers"), ("bench",), ("bench", "paper", "--scale", "huge"), ("bench", "paper", "--stepz", "3")],
)
def test_wrong_command_lines(call: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    """A script must notice."""
    assert call(*arguments) not in (0, None)


def test_errors_of_the_command_are_one_line(call: Callable[..., Any], tmp_path: Path) -> None:
    """A traceback for a typing error hides what is wrong."""
    folder = tmp_path / "results"
    code = call("bench", "paper", "--scale", "smoke", "--only", "nothing", "--output", str(folder))
    assert str(code).startswith("error: --only 'nothing' matches none of") and not folder.exists()


def test_options_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wide: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option as it is typed."""
    command = "bench frontier --scale smoke --seeds 3 4 --steps 9 --start-steps 5 --views 1 --threads 1 --dry-run"
    options = ["--options", "pipeline.model.base-mlp-layer-width", "64", "--output", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["ns-prune", *command.split(), *options, "--only", "uniform-0.5-*"])
    cli.entrypoint()
    text = capsys.readouterr().out
    assert "uniform-0.5-s3" in text and "uniform-0.5-s4" in text and "4 runs, 0 of them recorded" in text
    assert not (tmp_path / "results").exists()
