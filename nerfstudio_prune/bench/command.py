"""`ns-prune bench`: carries out the runs of a suite that are not recorded yet."""

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Optional

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from nerfstudio_prune.bench.runs import Job, RunFolder, choose_jobs, estimate_seconds
from nerfstudio_prune.bench.setup import Scene, check_data, find_scene, parse_options
from nerfstudio_prune.bench.speed import step_time_ratio
from nerfstudio_prune.bench.suites import SCALES, SUITES, Run, Scale
from nerfstudio_prune.records.schema import Record, SpeedRecord


@dataclass
class Bench:
    """Train, prune and measure the runs of a suite; what is recorded already is not run again."""

    suite: tyro.conf.Positional[Literal["paper", "frontier", "speed", "peers", "ablation"]]
    """paper: tables and figures of Ding et al. 2025; frontier: every strategy and its controls; speed: dense and pruned
    in turns; peers: other libraries on the same checkpoint; ablation: the best
    recipe, and each of its parts left out."""
    data: Optional[Path] = None
    """Data set in the Blender or Nerfstudio format. None: the built-in scene."""
    output: Path = Path("benchmarks/results")
    """Folder of the records; another one for every scene, scale and schedule. `work` in it (checkpoints, logs) may be
    deleted."""
    scale: Literal["smoke", "cpu", "gpu"] = "cpu"
    """Sizes of network and runs: smoke takes a minute, cpu suits two cores, gpu has the paper's size."""
    seeds: Optional[tuple[int, ...]] = None
    """Seeds. None: the scale's."""
    start_steps: Optional[int] = None
    """Dense training steps before the cut. None: the scale's."""
    steps: Optional[int] = None
    """Training steps in all. None: the scale's."""
    views: Optional[int] = None
    """Evaluation views that quality is measured on. None: the scale's."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of the method for all runs, by dotted path, e.g. `pipeline.model.base-mlp-layer-width 128`; a value of
    several words is quoted, e.g. `pipeline.model.skip-connections "2 4"`."""
    only: Annotated[str, tyro.conf.arg(metavar="PATTERN")] = "*"
    """Names of runs to carry out, as a pattern; runs that they go on from are added."""
    threads: Optional[int] = None
    """Threads of one CPU operation; 1 gives steady times on a machine that does other things as well. None: all."""
    dry_run: bool = False
    """Print the runs and the estimated minutes, and do nothing."""

    def main(self) -> None:
        """Carries the suite out.

        Raises:
            ValueError: If an option is wrong.
            RecordError: If a record in the output folder cannot be read.
            SystemExit: If a run failed; the others are recorded.
        """
        warnings.filterwarnings("ignore", module="nerfstudio|torchmetrics|torch")
        scale, scene = self._scale()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        jobs = choose_jobs(SUITES[self.suite](scale), self.only)
        # Made before output is redirected, so that progress stays on the terminal.
        console = Console(file=sys.stdout, soft_wrap=True)
        folder = RunFolder(self.output, scale, scene, {run.name: run for run in jobs if isinstance(run, Run)})
        todo = [job for job in jobs if not folder.done(job)]
        if self.dry_run:
            _print_plan(console, jobs, todo, folder)
            return
        if todo and self.data is not None:
            check_data(scene, scale)
        failed = _carry_out(console, todo, len(jobs), folder)
        if failed:
            console.print(f"[red]{len(failed)} of {len(jobs)} runs are missing: {', '.join(failed)}")
            raise SystemExit(1)
        console.print(f"Suite {self.suite}: {len(jobs)} runs recorded in {self.output}")

    def _scale(self) -> tuple[Scale, Scene]:
        scale = SCALES[self.scale]
        given = {"seeds": self.seeds, "start_steps": self.start_steps, "steps": self.steps, "views": self.views}
        scale = replace(scale, **{name: value for name, value in given.items() if value is not None})
        if not 1 <= scale.start_steps < scale.steps - 1:
            raise ValueError(
                f"--start-steps must be in [1, --steps - 2], got {scale.start_steps} with --steps {scale.steps}"
            )
        for name, value in (("--seeds", len(scale.seeds)), ("--views", scale.views), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least one, got {value}")
        if len(set(scale.seeds)) < len(scale.seeds):
            raise ValueError(f"--seeds must differ, got {scale.seeds}")
        scene = find_scene(self.data, scale)
        options = parse_options(self.options, scene.method)
        return replace(scale, options={**scale.options, **options}), scene


def _carry_out(console: Console, todo: list[Job], total: int, folder: RunFolder) -> list[str]:
    """Runs what is left, and gives the names of what failed."""
    failed = []
    for i, job in enumerate(todo):
        label = f"[{total - len(todo) + i + 1}/{total}] {job.name}"
        log = folder.path / "work" / "logs" / f"{job.name}.txt"
        start = time.perf_counter()
        try:
            with _progress(console, label) as advance, _logged(log):
                record = folder.carry_out(job, advance)
        except KeyboardInterrupt:
            console.print(f"{label}: interrupted; the same command goes on with this run", markup=False)
            raise SystemExit(130) from None
        except Exception as error:  # one failed run must not lose the others
            console.print(f"{label}: failed: {error} (log: {log})", style="red", markup=False, highlight=False)
            failed.append(job.name)
            continue
        minutes = (time.perf_counter() - start) / 60
        console.print(f"{label}: {minutes:.1f} min, {_summary(record)}", markup=False, highlight=False)
    return failed


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Sends all output, and the traceback of an error, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
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


def _summary(record: Record) -> str:
    if isinstance(record, SpeedRecord):
        return f"{step_time_ratio(record):.2f} times faster training steps"
    psnr = [f"{stage.label} {stage.quality.psnr:.2f}" for stage in record.stages]
    return f"{record.end.sizes.parameters:,} parameters, PSNR {', '.join(psnr)} dB"


def _print_plan(console: Console, jobs: list[Job], todo: list[Job], folder: RunFolder) -> None:
    table = Table(title=f"{len(jobs)} runs, {len(jobs) - len(todo)} of them recorded", title_justify="left")
    for column in ("run", "goes on from", "steps", "minutes"):
        table.add_column(column, justify="right" if column in ("steps", "minutes") else "left", no_wrap=True)
    seconds, origin = estimate_seconds(jobs, folder.scale, folder.scene.method, folder.path)
    for job in jobs:
        minutes = f"{seconds[job.name] / 60:.1f}" if job in todo else "recorded"
        if isinstance(job, Run):
            steps = str(job.steps or "equal time")
            table.add_row(job.name, job.parent or "", steps, minutes)
        else:
            table.add_row(job.name, "", "", minutes)
    console.print(table)
    left = sum(seconds[job.name] for job in todo) / 60
    console.print(f"Estimated: {left:.0f} minutes ({origin})")
