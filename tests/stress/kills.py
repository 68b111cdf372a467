"""Kills tiny runs at chosen points, resumes them with `--load-dir` alone, and holds them against uninterrupted ones.

    python tests/stress/kills.py --count 200 --seed 0

Nerfstudio is imported once; every run is a fork of that process. A run is *lost* if a whole checkpoint had been saved
before the kill and resuming does not work, starts from an older one, or ends with other bits than the uninterrupted
run; also if any checkpoint or `config.yml` is left torn. One that had saved nothing yet starts again in the same
folder, and is counted apart.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
import tyro
import yaml
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.plain_state import plain_state
from support.tiny_run import after_each_step, form_values, make_config, same_bits, start

from nerfstudio_prune.engine import files, saving
from nerfstudio_prune.engine.checkpoints import (
    TRAINING,
    Checkpoint,
    CheckpointError,
    checkpoint_state,
    newest_checkpoint,
    read_checkpoint,
    saved_checkpoints,
)
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.steering import Steering
from nerfstudio_prune.engine.trainer import PruneTrainer, PruneTrainerConfig
from stress.fatal import Points

LAST = 12
"""Last step of every run."""
BY_HAND = 7
"""Step of a cut by hand."""
PATIENCE = 120.0
"""Seconds after which a run is taken to hang."""


@dataclass(frozen=True)
class Scenario:
    """A kind of run."""

    options: dict[str, Any]
    """Options of pruning."""
    save_every: int
    """Steps between saves; LAST is a multiple of some."""
    keep_all: bool = False
    """Whether older checkpoints stay."""
    scheduler: bool = True
    """Whether the learning rate decays."""
    by_hand: bool = False
    """Whether a person cuts at step `BY_HAND`."""


THRICE = {"schedule": "iterative", "num_events": 3, "start_step": 2, "stop_step": 10}
SCENARIOS = {
    "thrice": Scenario({**THRICE, "recovery_lr_factor": 1.5}, 5),
    "rewind": Scenario({**THRICE, "recovery": "rewind", "rewind_step": 1}, 4, scheduler=False),
    "edges": Scenario({**THRICE, "strategy": "edge", "edge_keep_fraction": 0.4}, 3, keep_all=True),
    "by hand": Scenario({"start_step": 4, "refit": "lstsq", "calibration_rays": 64}, 6, by_hand=True),
}


@dataclass(frozen=True)
class Kind:
    """A kind of point at which runs are killed."""

    arm: Callable[[Points], None]
    """Sets the points in a process that is about to run."""
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    """Kinds of runs that come by such points."""
    signalled: bool = False
    """Whether the run gets a SIGTERM at some step."""


def _tracing(*places: tuple[Any, str, Callable[..., bool]]) -> Callable[[Points], None]:
    def arm(points: Points) -> None:
        for place in places:
            points.trace(*place)

    return arm


def _always(*values: Any) -> bool:
    return True


KINDS = {
    "event: prepare": Kind(_tracing((PruneController, "_prepare", _always))),
    "event: apply, record": Kind(_tracing((PruneController, "_carry_out", _always))),
    "event by hand": Kind(_tracing((Steering, "_answer", _always)), ("by hand",)),
    "save: periodic": Kind(_tracing((PruneTrainer, "save_checkpoint", lambda trainer, step: not trainer._ending))),
    "save: at the end": Kind(
        _tracing((PruneTrainer, "save_checkpoint", lambda trainer, step: trainer._ending)), ("thrice",)
    ),
    "save: last step again": Kind(_tracing((PruneTrainer, "_after_train", _always)), ("rewind", "edges", "by hand")),
    "save: kept": Kind(_tracing((PruneTrainer, "keep_checkpoint", _always)), ("by hand",)),
    "save: by a signal": Kind(_tracing((PruneTrainer, "_save_on_leaving", _always)), signalled=True),
    "save: replace to delete": Kind(
        _tracing((files, "_sync_folder", _always), (saving.Saver, "delete_others", _always)),
        ("thrice", "rewind", "by hand"),
    ),
    "save: any byte": Kind(lambda points: points.trace_bytes(files)),
    "config.yml": Kind(_tracing((PruneTrainerConfig, "save_config", _always))),
    "any time": Kind(lambda points: None),
    "no kill but SIGTERM": Kind(lambda points: None, signalled=True),
}


@dataclass
class Kills:
    """Kill runs and resume them."""

    count: int = 200
    """Number of kills."""
    seed: int = 0
    """Seed of what is killed where."""
    output: Optional[Path] = None
    """File for the figures as JSON."""
    folder: Optional[Path] = None
    """Folder for the runs, which stays; None: a temporary one."""

    def main(self) -> None:
        """Carries out all trials and prints the figures; exit status 1 if a run was lost."""
        torch.set_num_threads(1)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.folder or Path(temporary)
            references = {name: Reference.made(name, folder) for name in SCENARIOS}
            figures: dict[str, Any] = {"count": 0, "seed": self.seed, "seconds": 0.0, "losses": []}
            figures["kinds"] = {name: dict.fromkeys(COLUMNS, 0) for name in KINDS}
            for number in range(self.count):
                kind = list(KINDS)[number % len(KINDS)]
                trial = Trial(folder / f"{number:05d}", kind, references, random.Random(f"{self.seed} {number}"))
                outcome, lost = trial.carry_out()
                for column in outcome:
                    figures["kinds"][kind][column] += 1
                figures["losses"] += [f"{trial.folder}, {kind}, {trial.scenario}: {lost}"] if lost else []
                figures.update(count=number + 1, seconds=round(time.monotonic() - started, 1))
                if self.output is not None:
                    self.output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
                if not lost and self.folder is None:
                    shutil.rmtree(trial.folder)
            Console(width=120).print(table_of(figures))
            for loss in figures["losses"]:
                print(loss)
            sys.exit(1 if figures["losses"] else 0)


COLUMNS = {
    "tried": "tried",
    "ended": "killed or ended",
    "resumed": "resumed, same bits",
    "again": "nothing saved, began again, same bits",
    "lost": "lost",
}
"""What is counted -> how the table names it."""


def table_of(figures: dict[str, Any]) -> Table:
    """The figures of a set of trials."""
    table = Table("kind", *COLUMNS.values(), title=f"{figures['count']} trials, seed {figures['seed']}")
    total = Counter[str]()
    for name, counts in figures["kinds"].items():
        table.add_row(name, *(str(counts[column]) for column in COLUMNS))
        total.update(counts)
    table.add_row("all", *(str(total[column]) for column in COLUMNS))
    return table


def forked(work: Callable[[], Any], log: Path, kill_after: Optional[float] = None) -> int:
    """Does something in a fork of this process.

    Args:
        work: What.
        log: File for what it prints.
        kill_after: Seconds after which it is killed; None: it ends by itself.

    Returns:
        The exit status; a negative one is the signal that ended it. -1000 if it hung.
    """
    sys.stdout.flush()
    process = os.fork()
    if not process:
        status = 1
        try:
            descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            work()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    deadline = time.monotonic() + (PATIENCE if kill_after is None else kill_after)
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -1000 if kill_after is None else -signal.SIGKILL


def configured(scenario: Scenario, folder: Path, name: str) -> Any:
    """Configuration of a run of LAST + 1 steps."""
    config = make_config(folder, folder.parent / "scene", name, on_error="stop", **scenario.options)
    config.max_num_iterations = LAST + 1
    # Chosen by a clock, it may be another one in the process that goes on.
    config.pipeline.compute.matmul_precision = "highest"
    config.steps_per_save, config.save_only_latest_checkpoint = scenario.save_every, not scenario.keep_all
    if scenario.scheduler:
        config.optimizers["fields"]["scheduler"] = ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20)
    return config


def started(config: Any, scenario: Scenario) -> Any:
    """A trainer that sees the same batch in a step whatever happened before, with the person who cuts by hand."""
    trainer = start(config, same_noise=True)

    def cut(step: int) -> None:
        if scenario.by_hand and step == BY_HAND:
            half = form_values("uniform", None, "none", "pruning_ratio", 0.75)
            trainer.pipeline.steering.request("prune", half)

    after_each_step(trainer, cut)
    return trainer


def result_of(trainer: Any, step: int) -> dict[str, Any]:
    """All that a training is at a step, but for what a clock says."""
    state = checkpoint_state(trainer, step)
    extra = state["pipeline"].pop("_model._extra_state")
    return {**state, "masks": extra["masks"], "pruning": plain_state(trainer.pipeline.model.prune_state)}


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run."""

    result: dict[str, Any]
    """What it ended as."""
    points: dict[str, int]
    """Kind of point -> how many of them it passed by."""
    seconds: float
    """How long it took."""

    @classmethod
    def made(cls, name: str, folder: Path) -> "Reference":
        """Runs a scenario to its end."""
        file, scenario = folder / f"{name}.pt", SCENARIOS[name]

        def run() -> None:
            points = {name: Points() for name in KINDS}
            for kind, armed in KINDS.items():
                armed.arm(points[kind])
            begun = time.monotonic()
            trainer = started(configured(scenario, folder / name, "whole"), scenario)
            trainer.train()
            seconds = time.monotonic() - begun
            trainer._save_on_leaving(KeyboardInterrupt())  # only to count its points
            torch.save([result_of(trainer, LAST), {name: found.count for name, found in points.items()}, seconds], file)

        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{name}.log"
        if forked(run, log):
            raise RuntimeError(f"the uninterrupted run failed: {log.read_text()}")
        return cls(*torch.load(file, weights_only=False))


class Trial:
    """One run that is killed and resumed.

    Args:
        folder: Where everything lies.
        kind: Kind of point at which it is killed.
        references: Uninterrupted runs.
        chance: Chooses run and point.
    """

    def __init__(self, folder: Path, kind: str, references: dict[str, Reference], chance: random.Random) -> None:
        self.folder, self.kind = folder, KINDS[kind]
        self.scenario = chance.choice(self.kind.scenarios)
        self.reference = references[self.scenario]
        points = self.reference.points[kind]
        self.fatal = chance.randrange(points) if points else None
        self.signal_at = chance.randrange(LAST) if self.kind.signalled else None
        self.kill_after = chance.uniform(0.0, self.reference.seconds) if kind == "any time" else None
        self.before = kind == "config.yml" and chance.random() < 0.5
        """Whether the folder holds the files of an earlier run."""

    def carry_out(self) -> tuple[list[str], str]:
        """Kills and resumes.

        Returns:
            Columns that it counts in, and what went wrong; empty if nothing did.
        """
        self.folder.mkdir(parents=True)
        if self.before:
            forked(lambda: configured(SCENARIOS[self.scenario], self.folder, "killed").save_config(), self.log)
        status = forked(self._run_to_death, self.log, self.kill_after)
        columns = ["tried", *(["ended"] if status else [])]
        try:
            return [*columns, self._go_on(status)], ""
        except (AssertionError, CheckpointError) as error:
            return [*columns, "lost"], str(error)

    @property
    def log(self) -> Path:
        """What the runs print."""
        return self.folder / "log.txt"

    @property
    def run_folder(self) -> Path:
        """Folder of the run that is killed."""
        return self.folder / "tiny" / "nerf-prune" / "killed"

    def _run_to_death(self) -> None:
        scenario = SCENARIOS[self.scenario]
        self._note_saves()
        self.kind.arm(Points(self.fatal))
        trainer = started(configured(scenario, self.folder, "killed"), scenario)
        if self.signal_at is not None:
            after_each_step(trainer, lambda step: step == self.signal_at and os.kill(os.getpid(), signal.SIGTERM))
        trainer.train()

    def _note_saves(self) -> None:
        inner = saving.write_checkpoint

        def noting(folder: Path, state: Any) -> Path:
            path = inner(folder, state)
            with (self.folder / "saved.txt").open("a") as file:
                file.write(f"{state['step']}\n" if folder.name == "nerfstudio_models" else "")
            return path

        saving.write_checkpoint = noting

    def _go_on(self, status: int) -> str:
        """Resumes the run as a person would; what became of it."""
        expected = (0, -signal.SIGKILL, 128 + signal.SIGTERM if self.kind.signalled else 0)
        assert status in expected, f"the run ended with status {status}"
        config = self.run_folder / "config.yml"
        if config.exists():
            assert isinstance(yaml.load(config.read_text(), Loader=yaml.Loader), PruneTrainerConfig), "torn config.yml"
        noted = self.folder / "saved.txt"
        saved = [int(line) for line in noted.read_text().splitlines()] if noted.exists() else []
        folder = self.run_folder / "nerfstudio_models"
        for path in saved_checkpoints(folder).values():
            read_checkpoint(path, TRAINING)
        try:
            newest: Optional[Checkpoint] = newest_checkpoint(folder, TRAINING)
        except CheckpointError as error:
            newest = None
            assert not saved, f"step {saved[-1]} had been saved: {error}"
        assert newest is None or not saved or newest.step >= saved[-1], f"step {saved[-1]} had been saved"
        ended = forked(lambda: self._resume(newest), self.log)
        assert ended == 0, f"resuming ended with status {ended}; see {self.log}"
        leftovers = [
            file.name for file in self.run_folder.rglob("*") if ".saving-" in file.name and file.stat().st_size
        ]
        assert not leftovers, f"left over: {leftovers}"
        return "again" if newest is None else "resumed"

    def _resume(self, newest: Optional[Checkpoint]) -> None:
        scenario = SCENARIOS[self.scenario]
        config = configured(scenario, self.folder, "killed" if newest is None else "resumed")
        if newest is not None:
            config.load_dir = self.run_folder / "nerfstudio_models"
            config.max_num_iterations = max(1, LAST - newest.step)
        trainer = started(config, scenario)
        if newest is None or newest.step < LAST:
            trainer.train()
        found, wanted = result_of(trainer, LAST), self.reference.result
        for name in wanted:
            assert same_bits(found[name], wanted[name]), f"other {name} than in the uninterrupted run"


if __name__ == "__main__":
    tyro.cli(Kills).main()
