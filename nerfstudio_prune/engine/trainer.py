"""Nerfstudio's trainer, with checkpoints that nothing tears: full disks, signals, errors and kills lose no saved step.

Where the state of the training is *whole*, it is that of the end of a step. Only such a state is saved.
"""

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import yaml
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.engine.checkpoints import (
    TRAINING,
    Checkpoint,
    CheckpointError,
    checkpoint_of_step,
    checkpoint_path,
    checkpoint_state,
    newest_checkpoint,
    read_checkpoint,
    saved_checkpoints,
    write_checkpoint,
)
from nerfstudio_prune.engine.files import remove_abandoned, write_whole
from nerfstudio_prune.engine.interrupts import Interrupts, TrainingInterrupted
from nerfstudio_prune.engine.optimizers import RunOptimizers
from nerfstudio_prune.engine.terminal import print_in_any_encoding

KEPT = "_kept"
"""Ends the name of the folder beside the checkpoints, whose files no save deletes."""


@dataclass
class PruneTrainerConfig(TrainerConfig):
    """Configuration of a training whose files are written as a whole."""

    _target: type = field(default_factory=lambda: PruneTrainer)

    def print_to_terminal(self) -> None:
        """Prints the configuration; it is the first that `ns-train` prints."""
        print_in_any_encoding()
        super().print_to_terminal()

    def save_config(self) -> None:
        """Saves the configuration as `config.yml` of the run.

        Raises:
            ValueError: If it cannot be written; the run could save nothing else either.
        """
        folder = self.get_base_dir()
        path = folder / "config.yml"
        CONSOLE.log(f"Saving config to: {path}")
        try:
            write_whole(path, lambda file: file.write(yaml.dump(self).encode()), folder)
        except OSError as error:
            raise _not_writable(self, folder, error) from error


def _not_writable(config: TrainerConfig, folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"--output-dir {config.output_dir}: nothing can be saved in {folder}: {error}. Make room there, or give "
        "another folder; nothing was trained"
    )


class PruneTrainer(Trainer):
    """Trains as Nerfstudio does, and sees to it that no saved step is lost.

    Checkpoints are written beside their folder and replace the former ones when they are whole. On a full disk the
    training goes on. A signal, and an error, end it with a checkpoint of the last whole step.

    Args:
        config: Configuration of the run.
        local_rank: Rank of this process on its machine.
        world_size: Number of processes.
    """

    optimizers: RunOptimizers

    def __init__(self, config: PruneTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        super().__init__(config, local_rank, world_size)
        self.kept_dir = self.checkpoint_dir.with_name(self.checkpoint_dir.name + KEPT)
        """Checkpoints that no save deletes; in the format and under the names of the others."""
        self._interrupts = Interrupts()
        self._whole: Optional[int] = None
        """Step whose end the state is; None while a step changes it."""
        self._saved: Optional[tuple[int, os.stat_result]] = None
        """Step that this process saved last, if nothing has changed since, and the file as it was written."""
        self._failed: Optional[str] = None
        """Why the last save failed, if it did."""
        self._ending = False

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Sets everything up, as Nerfstudio does.

        Args:
            test_mode: Views to evaluate on.

        Raises:
            ValueError: If the run could save nothing, or the checkpoint to go on from cannot be used.
        """
        try:
            self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.checkpoint_dir):
                pass
        except OSError as error:
            raise _not_writable(self.config, self.checkpoint_dir, error) from error
        former = self.config.load_dir
        for folder in {self.checkpoint_dir, *([] if former is None else [former])}:
            remove_abandoned(folder.parent)
            remove_abandoned(folder)
        super().setup(test_mode)
        self.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self._begin_step))
        for optimizer in self.optimizers.optimizers.values():
            optimizer.register_step_pre_hook(self._begin_change)

    def setup_optimizers(self) -> RunOptimizers:
        """Optimizers whose schedulers know how long the run is."""
        config = self.config
        return RunOptimizers(config.optimizers, self.pipeline.get_param_groups(), config.max_num_iterations)

    def train(self) -> None:
        """Trains. What ends it early leaves a checkpoint of the last whole step.

        Raises:
            TrainingInterrupted: If a signal ended it; the exit status is 128 plus the signal's number.
            CheckpointError: If it ended as planned, but the last step could not be saved.
        """
        self._whole, self._saved, self._failed, self._ending = self._start_step - 1, None, None, False
        with self._interrupts.listening():
            try:
                super().train()
            except (Exception, SystemExit) as error:
                self._save_on_leaving(error)
                raise
        if self._failed is not None:
            raise CheckpointError(f"The end of the run is not saved: {self._failed}")

    def train_iteration(self, step: int) -> Any:
        """Runs one step.

        Args:
            step: Training step.
        """
        result = super().train_iteration(step)
        self._whole = step
        return result

    def save_checkpoint(self, step: int) -> None:
        """Saves the present state as the checkpoint of a step, and deletes older ones if so configured.

        If it cannot be written, the console says so, all that was saved before stays, and the training goes on.

        Args:
            step: Training step that has just ended.
        """
        if self._ending and self._is_saved(step):
            return
        with self._interrupts.held():
            if self._save(step) and self.config.save_only_latest_checkpoint:
                self._delete_others(step)

    def keep_checkpoint(self, step: int) -> Path:
        """Saves the present state where no later save deletes it.

        It can be gone on from with `--load-checkpoint`, and the newest of all kept ones with `--load-dir`.

        Args:
            step: Training step that has just ended.

        Returns:
            The file.

        Raises:
            CheckpointError: If it cannot be written; all that was saved before stays.
        """
        with self._interrupts.held():
            try:
                return write_checkpoint(self.kept_dir, checkpoint_state(self, step))
            except OSError as error:
                raise CheckpointError(f"{self.kept_dir}: step {step} cannot be saved: {error}") from error

    def _save(self, step: int) -> bool:
        """Saves the present state; whether it succeeded. What fails is told."""
        state = checkpoint_state(self, step)
        try:
            path = write_checkpoint(self.checkpoint_dir, state)
            self._saved, self._failed = (step, path.stat()), None
            return True
        except OSError as error:
            self._failed = f"step {step} cannot be saved in {self.checkpoint_dir}: {error}. {self._newest()}"
            CONSOLE.print(f"[red]Step {step} is not saved: {escape(str(error))}. {escape(self._newest())}")
            return False

    def _newest(self) -> str:
        """Says which checkpoint a run would go on from."""
        with suppress(CheckpointError):
            if saved := saved_checkpoints(self.checkpoint_dir):
                return f"The newest checkpoint is {saved[max(saved)]}"
        return "There is no checkpoint yet"

    def _is_saved(self, step: int) -> bool:
        """Whether the state of a step lies on the disk as this process wrote it."""
        if self._saved is None or self._saved[0] != step:
            return False
        with suppress(OSError):
            found, written = checkpoint_path(self.checkpoint_dir, step).stat(), self._saved[1]
            return (found.st_ino, found.st_mtime_ns, found.st_size) == (
                written.st_ino,
                written.st_mtime_ns,
                written.st_size,
            )
        return False

    def _delete_others(self, step: int) -> None:
        for other, path in saved_checkpoints(self.checkpoint_dir).items():
            if other != step:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    CONSOLE.print(f"[yellow]An older checkpoint cannot be deleted: {escape(str(error))}")

    def _begin_step(self, step: int) -> None:
        self._interrupts.hold()

    def _begin_change(self, optimizer: Any, arguments: Any, options: Any) -> None:
        """Is called before an optimizer changes anything."""
        self._whole = self._saved = None

    def _update_viewer_state(self, step: int) -> None:
        """Is called when a step has ended, with its callbacks, before anything is evaluated or saved."""
        self._interrupts.release()
        super()._update_viewer_state(step)

    def _after_train(self) -> None:
        self._ending = True
        try:
            if self._whole is not None:
                self.step = max(0, self._whole)  # Nerfstudio also counts a step that was asked not to begin
            super()._after_train()
        finally:
            self._ending = False

    def _train_complete_viewer(self) -> None:
        """Waits with the viewer, where Ctrl+C ends everything as in Nerfstudio."""
        self._interrupts.restore()
        if self._failed is not None:
            CONSOLE.print(f"[red]The end of the run is not saved: {escape(self._failed)}. It is tried again on ctrl+c")
        try:
            super()._train_complete_viewer()
        finally:
            if self._failed is not None:
                self.save_checkpoint(self.step)

    def _save_on_leaving(self, error: BaseException) -> None:
        """Saves the last whole step before an error or a signal leaves the training; raises nothing itself."""
        self._interrupts.hold()
        interrupted = isinstance(error, TrainingInterrupted)
        cause = error.signal.name if isinstance(error, TrainingInterrupted) else type(error).__name__
        try:
            if self._whole is None:
                told = f"[red]{cause} in the middle of a step, whose network is not saved. {escape(self._newest())}"
            elif self._whole < self._start_step:
                told = f"[yellow]{cause} before the end of the first step: there is nothing to save"
            else:
                self._settle()
                if not self._is_saved(self._whole) and not self._save(self._whole):
                    return
                # After an error the older ones stay: they may be from before it came about.
                if interrupted and self.config.save_only_latest_checkpoint:
                    self._delete_others(self._whole)
                told = (
                    f"[yellow]{cause}: the run is saved as of step {self._whole}. "
                    f"Go on with --load-dir {escape(str(self.checkpoint_dir))}"
                )
            CONSOLE.print(told, soft_wrap=True)
        except Exception as second:  # the terminal may have gone, or the device; the first error is the one to tell
            with suppress(OSError):
                CONSOLE.print(f"[red]{cause}, and then: {escape(str(second))}")

    def _settle(self) -> None:
        """Lets the pipeline put back what holds within a step only, such as the learning rate after a cut."""
        settle = getattr(self.pipeline, "settle", None)
        if settle is not None:
            settle()

    def _load_checkpoint(self) -> None:
        """Loads the checkpoint to go on from: the newest whole one of `load_dir`, or the one that was asked for.

        Raises:
            CheckpointError: If there is none, it is not whole, or it is not one of this network.
        """
        config = self.config
        if config.load_dir is not None and config.load_step is not None:
            found = checkpoint_of_step(config.load_dir, config.load_step, TRAINING)
        elif config.load_dir is not None:
            found = newest_checkpoint(config.load_dir, TRAINING)
        elif config.load_checkpoint is not None:
            found = read_checkpoint(config.load_checkpoint, TRAINING)
        else:
            super()._load_checkpoint()
            return
        self._start_step = found.step + 1
        try:
            self.pipeline.load_pipeline(found.content["pipeline"], found.step)
        except ValueError as error:
            raise CheckpointError(f"{found.path}: {error}") from error
        self._load_optimizers(found)
        CONSOLE.print(f"Done loading Nerfstudio checkpoint from {found.path}", soft_wrap=True)

    def _load_optimizers(self, found: Checkpoint) -> None:
        parts: dict[str, Any] = {"optimizers": self.optimizers.optimizers}
        if "schedulers" in found.content and self.config.load_scheduler:
            parts["schedulers"] = self.optimizers.schedulers
        for part, own in parts.items():
            for name, state in found.content[part].items():
                if name not in own:
                    raise CheckpointError(
                        f"{found.path}: holds {part} of {name}; this run has {', '.join(own) or 'none'}"
                        + (". --load-scheduler False leaves them out" if part == "schedulers" else "")
                    )
                self._load(own[name], state, f"{found.path}: the {part} of {name}")
        if "schedulers" in parts:
            self.optimizers.begin_schedulers_without(found.content["schedulers"])
        self._load(self.grad_scaler, found.content["scalers"], f"{found.path}: the gradient scaler")

    @staticmethod
    def _load(target: Any, state: Any, what: str) -> None:
        try:
            target.load_state_dict(state)
        except Exception as error:  # torch checks little of what it takes apart
            raise CheckpointError(f"{what} cannot be used: {error}") from error
