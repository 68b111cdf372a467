"""Carries out what a suite still lacks, run by run, with progress, logs and a summary."""

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from nerfstudio_prune.bench.command import Bench
from nerfstudio_prune.bench.joint_folder import JointFolder
from nerfstudio_prune.bench.joint_suites import JOINT_SUITES
from nerfstudio_prune.bench.runs import JobSkipped, RunFolder, choose_jobs
from nerfstudio_prune.bench.setup import check_data, find_scene, parse_options
from nerfstudio_prune.bench.splat_folder import SplatFolder
from nerfstudio_prune.bench.splat_setup import RESERVED as SPLAT_RESERVED
from nerfstudio_prune.bench.splat_setup import find_splat_scene
from nerfstudio_prune.bench.splat_suite import SPLAT_SCALES, splats
from nerfstudio_prune.bench.suites import SCALES, SUITES
from nerfstudio_prune.engine.interrupts import TrainingInterrupted
from nerfstudio_prune.engine.memory import kept_memory


def run_suite(asked: Bench) -> None:
    """Carries a suite out, or prints what there is to do.

    Args:
        asked: Options of the command.

    Raises:
        ValueError: If an option is wrong, or another process works on the same folder.
        RecordError: If a record in the output folder cannot be read.
        SystemExit: If a run failed; the others are recorded.
    """
    warnings.filterwarnings("ignore", module="nerfstudio|torchmetrics|torch")
    if asked.threads is not None:
        if asked.threads < 1:
            raise ValueError(f"--threads must be at least one, got {asked.threads}")
        torch.set_num_threads(asked.threads)
    jobs, folder, check = WORK.get(asked.suite, _networks)(asked)
    # Made before output is redirected, so that progress stays on the terminal.
    console = Console(file=sys.stdout, soft_wrap=True)
    todo = [job for job in jobs if not folder.done(job)]
    if asked.dry_run:
        _print_plan(console, jobs, todo, folder)
        return
    failed = []
    if todo:
        check()
        with folder.alone():
            # Another process may have recorded some of them in the meantime.
            failed = _carry_out(console, [job for job in todo if not folder.done(job)], len(jobs), folder)
    if failed:
        console.print(f"[red]{len(failed)} of {len(jobs)} runs are missing: {', '.join(failed)}")
        raise SystemExit(1)
    recorded = sum(folder.done(job) for job in jobs)
    console.print(f"Suite {asked.suite}: {recorded} runs recorded in {asked.output}")


class Folder(Protocol):
    """Records of one output folder, and how those that are missing are made."""

    path: Path

    def done(self, job: Any) -> bool:
        """Whether a job need not be run."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keeps other processes from making the same records."""
        ...

    def carry_out(self, job: Any, advance: Callable[[float], None]) -> Any:
        """Runs a job and writes its record; `advance` is told which share is done."""
        ...

    def summary(self, record: Any) -> str:
        """What came out, in a few words."""
        ...

    def row(self, job: Any) -> tuple[str, str]:
        """What a job goes on from, and its steps, for the plan."""
        ...

    def estimate(self, jobs: Sequence[Any]) -> tuple[dict[str, float], str]:
        """Seconds of each job, and where the speed comes from."""
        ...


Work = tuple[list[Any], Folder, Callable[[], None]]
"""Jobs, the folder of their records, and a look at the data before the first of them."""


def _networks(asked: Bench) -> Work:
    scale = _with_sizes(SCALES[asked.scale], asked)
    scene = find_scene(asked.data, scale)
    scale = replace(scale, options={**scale.options, **parse_options(asked.options, scene.method)})
    jobs = choose_jobs(SUITES[asked.suite](scale), asked.only)
    folder = RunFolder(asked.output, scale, scene, {job.name: job for job in jobs})
    return jobs, folder, lambda: check_data(scene, scale) if asked.data is not None else None


def _splats(asked: Bench) -> Work:
    scene, scale = find_splat_scene(asked.data, SPLAT_SCALES[asked.scale])
    scale = _with_sizes(scale, asked)
    options = parse_options(asked.options, scene.method, SPLAT_RESERVED)
    scale = replace(scale, options={**scale.options, **options})
    suite = splats(scale)
    jobs = choose_jobs(suite, asked.only)
    return jobs, SplatFolder(asked.output, scale, scene, {job.name: job for job in jobs}), lambda: None


def _joint(asked: Bench) -> Work:
    scale = _with_sizes(SCALES[asked.scale], asked)
    scene = find_scene(asked.data, scale)
    scale = replace(scale, options={**scale.options, **parse_options(asked.options, scene.method)})
    splat_scene, splat_scale = find_splat_scene(asked.data, SPLAT_SCALES[asked.scale])
    # Steps and options are those of networks.
    splat_scale = replace(splat_scale, views=scale.views)
    suite = JOINT_SUITES[asked.suite](scale, splat_scale)
    jobs = choose_jobs(suite.jobs, asked.only)
    networks, gaussians = ({job.name: job for job in jobs if job in own} for own in (suite.networks, suite.gaussians))
    folder = JointFolder(
        RunFolder(asked.output, scale, scene, networks),
        SplatFolder(asked.output, splat_scale, splat_scene, gaussians),
        {job.name: job for job in jobs},
    )
    return jobs, folder, lambda: check_data(scene, scale) if asked.data is not None else None


WORK: Mapping[str, Callable[[Bench], Work]] = {"splats": _splats, **dict.fromkeys(JOINT_SUITES, _joint)}
"""Suites that are not of networks only."""


def _with_sizes(scale: Any, asked: Bench) -> Any:
    """The scale with what was asked for in place of its own.

    Raises:
        ValueError: If a number is out of range.
    """
    given = {"seeds": asked.seeds, "start_steps": asked.start_steps, "steps": asked.steps, "views": asked.views}
    scale = replace(scale, **{name: value for name, value in given.items() if value is not None})
    if not 1 <= scale.start_steps < scale.steps - 1:
        raise ValueError(
            f"--start-steps must be in [1, --steps - 2], got {scale.start_steps} with --steps {scale.steps}"
        )
    for name, value in (("--seeds", len(scale.seeds)), ("--views", scale.views)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least one, got {value}")
    if len(set(scale.seeds)) < len(scale.seeds):
        raise ValueError(f"--seeds must differ, got {scale.seeds}")
    return scale


def _carry_out(console: Console, todo: list[Any], total: int, folder: Folder) -> list[str]:
    """Runs what is left, and gives the names of what failed."""
    failed = []
    for i, job in enumerate(todo):
        label = f"[{total - len(todo) + i + 1}/{total}] {job.name}"
        log = folder.path / "work" / "logs" / f"{job.name}.txt"
        start = time.perf_counter()
        try:
            # As in a training, for what is timed step by step.
            with _progress(console, label) as advance, _logged(log), kept_memory(True):
                record = folder.carry_out(job, advance)
        except (KeyboardInterrupt, TrainingInterrupted):
            console.print(f"{label}: interrupted; the same command goes on with this run", markup=False)
            raise SystemExit(130) from None
        except JobSkipped as error:
            console.print(f"{label}: skipped: {error}", style="yellow", markup=False, highlight=False)
            continue
        except Exception as error:  # one failed run must not lose the others
            console.print(f"{label}: failed: {error} (log: {log})", style="red", markup=False, highlight=False)
            failed.append(job.name)
            continue
        minutes = (time.perf_counter() - start) / 60
        console.print(f"{label}: {minutes:.1f} min, {folder.summary(record)}", markup=False, highlight=False)
    return failed


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Sends all output, and the traceback of an error, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1, encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            yield
        except Exception:
            traceback.print_exc(file=file)
            raise


@contextmanager
def _progress(console: Console, label: str) -> Iterator[Callable[[float], None]]:
    """A bar for one run on a terminal; elsewhere, in a log, a line when it starts."""
    if not console.is_terminal:
        console.print(f"{label} …", markup=False, highlight=False)
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # The run's own output goes to its log; the bar must not catch it.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(label, total=1.0)
        yield lambda done: progress.update(task, completed=done)


def _print_plan(console: Console, jobs: list[Any], todo: list[Any], folder: Folder) -> None:
    table = Table(title=f"{len(jobs)} runs, {len(jobs) - len(todo)} of them recorded", title_justify="left")
    for column in ("run", "goes on from", "steps", "minutes"):
        table.add_column(column, justify="right" if column in ("steps", "minutes") else "left", no_wrap=True)
    seconds, origin = folder.estimate(jobs)
    for job in jobs:
        minutes = f"{seconds[job.name] / 60:.1f}" if job in todo else "recorded"
        table.add_row(job.name, *folder.row(job), minutes)
    console.print(table)
    left = sum(seconds[job.name] for job in todo) / 60
    minutes = f"{left:.0f} minutes" if left >= 1.5 else "about a minute"
    console.print(f"Estimated: {minutes} ({origin})")
