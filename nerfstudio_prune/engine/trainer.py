"""Nerfstudio's trainer, with checkpoints that nothing tears: full disks, signals, errors and kills lose no saved step.

Where the state of the training is *whole*, it is that of the end of a step. Only such a state is saved.
"""

import errno
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import torch
import yaml
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.saved_training import (
    check_saved_optimizers,
    check_saved_scaler,
    check_saved_schedulers,
    saved_shapes,
)
from nerfstudio_prune.engine.checkpoints import (
    PRECISION,
    TRAINING,
    Checkpoint,
    CheckpointError,
    checkpoint_of_step,
    checkpoint_state,
    newest_checkpoint,
    read_checkpoint,
)
from nerfstudio_prune.engine.checks import check_training
from nerfstudio_prune.engine.compute import ComputeConfig
from nerfstudio_prune.engine.files import remove_abandoned, write_whole
from nerfstudio_prune.engine.host import check_device, check_viewer, guard_event_writers
from nerfstudio_prune.engine.interrupts import Interrupts, TrainingInterrupted
from nerfstudio_prune.engine.memory import kept_memory
from nerfstudio_prune.engine.optimizers import RunOptimizers
from nerfstudio_prune.engine.saving import Saver
from nerfstudio_prune.engine.terminal import print_in_any_encoding
from nerfstudio_prune.engine.threads import Threads

BROKEN_OFF = "it came in the midst of a change of the model, which is not saved as it is"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class PruneTrainerConfig(TrainerConfig):
    """Configuration of a training whose files are written as a whole."""

    _target: type = field(default_factory=lambda: PruneTrainer)

    def print_to_terminal(self) -> None:
        """Prints the configuration; it is the first that `ns-train` prints."""
        print_in_any_encoding()
        super().print_to_terminal()

    def save_config(self) -> None:
        """Saves the configuration as `config.yml` of the run; the first thing that `ns-train` does with it.

        Raises:
            ValueError: If an option is out of its range, device or viewer cannot be had, or the file cannot be written;
                the run could save nothing else either.
        """
        check_training(self)
        check_device(self.machine.device_type)
        check_viewer(self)
        folder = self.get_base_dir()
        path = folder / "config.yml"
        CONSOLE.log(f"Saving config to: {escape(str(path))}")
        try:
            write_whole(path, lambda file: file.write(yaml.dump(self).encode()), folder)
        except OSError as error:
            raise _not_writable(self, folder, error) from error


def _not_writable(config: TrainerConfig, folder: Path, reason: object) -> ValueError:
    return ValueError(
        f"--output-dir {config.output_dir}: nothing can be saved in {folder}: {reason}. Make room there, or give "
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
        self._saver = Saver(self.checkpoint_dir)
        self._interrupts = Interrupts()
        self._whole: Optional[int] = None
        """Step whose end the state is; None while a step changes it."""
        self._ending = False
        self._precision_before = torch.get_float32_matmul_precision()
        compute = getattr(config.pipeline, "compute", ComputeConfig())
        self._keep_memory = compute.keep_memory
        self.threads = Threads(compute.num_threads, torch.device(self.device))
        """How many of them a step takes."""

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Sets everything up, as Nerfstudio does.

        Args:
            test_mode: Views to evaluate on.

        Raises:
            ValueError: If an option is out of its range, the run could save nothing, or the checkpoint to go on from
                cannot be used.
        """
        config, folder = self.config, self.checkpoint_dir
        check_training(config)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(config, folder, error) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _not_writable(config, folder, "it is read-only")
        former = config.load_dir or (config.load_checkpoint and config.load_checkpoint.parent) or folder
        for place in (folder, former):
            remove_abandoned(place.parent)
            remove_abandoned(place)
        try:
            super().setup(test_mode)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise _not_writable(config, self.base_dir, error) from error  # TensorBoard opens its file here
        guard_event_writers()
        self.callbacks.insert(0, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self._begin_step))
        for optimizer in self.optimizers.optimizers.values():
            optimizer.register_step_pre_hook(self._begin_change)
        controller = getattr(self.pipeline, "controller", None)
        if controller is not None:
            controller.listeners.append(self.threads)

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
        self._whole, self._ending = self._start_step - 1, False
        self._saver.state_changes()
        with self._interrupts.listening():
            try:
                with kept_memory(self._keep_memory), self.threads.in_force():
                    super().train()
            except (Exception, SystemExit) as error:
                self._save_on_leaving(error)
                raise
            finally:
                torch.set_float32_matmul_precision(self._precision_before)
        if self._saver.failure:
            raise CheckpointError(f"The end of the run is not saved: {self._saver.failure}")

    def train_iteration(self, step: int) -> Any:
        """Runs one step.

        Args:
            step: Training step.
        """
        with self.threads.step():
            result = super().train_iteration(step)
        self._whole = step
        return result

    def eval_iteration(self, step: int) -> None:
        """Evaluates where it is due. That is for information only: what goes wrong there is told, and ends nothing.

        Args:
            step: Training step that has just ended.
        """
        try:
            super().eval_iteration(step)
        except Exception as error:  # a picture that has gone, memory, metrics that the pictures are too small for
            reason = str(error) or type(error).__name__
            CONSOLE.print(f"[yellow]Step {step} is not evaluated: {escape(reason)}", soft_wrap=True)

    def save_checkpoint(self, step: int) -> None:
        """Saves the present state as the checkpoint of a step, and deletes older ones if so configured.

        If it cannot be written, the console says so, all that was saved before stays, and the training goes on.

        Args:
            step: Training step that has just ended.
        """
        if self._ending and self._saver.is_saved(step):
            return
        with self._interrupts.held():
            if self._saver.save(checkpoint_state(self, step)) and self.config.save_only_latest_checkpoint:
                self._saver.delete_others(step)

    def keep_checkpoint(self, step: int) -> Path:
        """Saves the present state where no later save deletes it, in a folder beside the others.

        It can be gone on from with `--load-checkpoint`, and the newest of all kept ones with `--load-dir`.

        Args:
            step: Training step that has just ended.

        Returns:
            The file.

        Raises:
            CheckpointError: If it cannot be written; all that was saved before stays.
        """
        with self._interrupts.held():
            return self._saver.keep(checkpoint_state(self, step))

    def _begin_step(self, step: int) -> None:
        self._interrupts.hold()

    def _begin_change(self, optimizer: Any, arguments: Any, options: Any) -> None:
        """Is called before an optimizer changes anything."""
        self._whole = None
        self._saver.state_changes()

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
        """Waits with the viewer, if there is one; Ctrl+C ends everything there as in Nerfstudio."""
        if self.viewer_state is None:
            return
        self._interrupts.restore()
        if self._saver.failure:
            told = f"The end of the run is not saved: {self._saver.failure}. It is tried again on ctrl+c"
            CONSOLE.print(f"[red]{escape(told)}", soft_wrap=True)
        try:
            super()._train_complete_viewer()
        finally:
            if self._saver.failure:
                self.save_checkpoint(self.step)

    def _save_on_leaving(self, error: BaseException) -> None:
        """Saves the last whole step before an error or a signal leaves the training; raises nothing itself."""
        self._interrupts.hold()
        cause = error.signal.name if isinstance(error, TrainingInterrupted) else type(error).__name__
        try:
            told = self._saved_on_leaving(isinstance(error, TrainingInterrupted))
            CONSOLE.print(f"[yellow]{cause}: {escape(told)}", soft_wrap=True)
        except Exception as second:  # the terminal may have gone, or the device; the first error is the one to tell
            with suppress(OSError):
                CONSOLE.print(f"[red]{cause}, and then: {escape(str(second))}", soft_wrap=True)

    def _saved_on_leaving(self, wanted: bool) -> str:
        """Saves the last whole step; what became of it."""
        step, saver = self._whole, self._saver
        if step is None:
            return BROKEN_OFF
        if step < self._start_step:
            return "no step of this run had ended yet, so there is nothing to save"
        try:
            self._settle()
        except ValueError:  # Gaussians are added behind the step of the optimizers, one parameter after the other
            return BROKEN_OFF
        if not saver.is_saved(step) and not saver.save(checkpoint_state(self, step)):
            return "the run ends without its last steps"
        # After an error the older checkpoints stay: they may be from before it came about.
        if wanted and self.config.save_only_latest_checkpoint:
            saver.delete_others(step)
        return f"the run is saved as of step {step}; go on with --load-dir {shlex.quote(str(saver.folder))}"

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
        try:
            self._check(found)
            self.pipeline.load_pipeline(found.content["pipeline"], found.step)
        except ValueError as error:
            raise CheckpointError(f"{found.path}: {error}") from error
        self._start_step = found.step + 1
        self._load_optimizers(found)
        goes_on_with = getattr(self.pipeline, "goes_on_with", None)
        if goes_on_with is not None:
            goes_on_with(found.content.get(PRECISION))
        CONSOLE.print(f"Done loading Nerfstudio checkpoint from {escape(str(found.path))}", soft_wrap=True)

    def _check(self, found: Checkpoint) -> None:
        """Checks all parts before the first is loaded: the pipeline's, if it can, and what PyTorch takes as it is."""
        content, optimizers = found.content, self.optimizers.optimizers
        check_entries = getattr(self.pipeline, "check_entries", None)
        if check_entries is not None:
            check_entries(content["pipeline"])
        shapes = saved_shapes(optimizers, self.pipeline, content["pipeline"])
        check_saved_optimizers(content["optimizers"], optimizers, shapes)
        if self.config.load_scheduler:
            check_saved_schedulers(content.get("schedulers", {}), self.optimizers.schedulers)
        check_saved_scaler(content["scalers"], self.grad_scaler)

    def _load_optimizers(self, found: Checkpoint) -> None:
        content = found.content
        self.optimizers.load_optimizers(content["optimizers"])
        if "schedulers" in content and self.config.load_scheduler:
            self.optimizers.load_schedulers(content["schedulers"])
            self.optimizers.begin_schedulers_without(content["schedulers"])
        self.grad_scaler.load_state_dict(content["scalers"])
