"""The checkpoints of a run that goes on: saved and kept, the older ones deleted, and what a full disk makes of it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.engine.checkpoints import (
    CheckpointError,
    checkpoint_path,
    saved_checkpoints,
    write_checkpoint,
)

KEPT = "_kept"
"""Ends the name of the folder beside the checkpoints, whose files no save deletes."""


class Saver:
    """Saves the checkpoints of one run.

    Args:
        folder: Folder of its checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept_folder = folder.with_name(folder.name + KEPT)
        """Checkpoints that no save deletes; in the format and under the names of the others."""
        self.failure = ""
        """Why the last save failed; empty if it did not."""
        self._last: Optional[tuple[int, os.stat_result]] = None
        self._own: set[int] = set()
        with suppress(CheckpointError):
            self._own.update(saved_checkpoints(folder))

    def save(self, state: Mapping[str, Any]) -> bool:
        """Saves a checkpoint. If it cannot be written, the console says so, and what was saved before stays.

        Args:
            state: See `checkpoint_state`.

        Returns:
            Whether it is saved.
        """
        path = checkpoint_path(self.folder, state["step"])
        try:
            write_checkpoint(self.folder, state)
            self._last, self.failure = (state["step"], path.stat()), ""
            self._own.add(state["step"])
        except (OSError, MemoryError) as error:
            self.failure = f"{path} cannot be written: {error or type(error).__name__}. {self._newest()}"
            CONSOLE.print(f"[red]Step {state['step']} is not saved: {escape(self.failure)}", soft_wrap=True)
        return not self.failure

    def keep(self, state: Mapping[str, Any]) -> Path:
        """Saves a checkpoint where no later save deletes it, and gives its file.

        Args:
            state: See `checkpoint_state`.

        Raises:
            CheckpointError: If it cannot be written; what was saved before stays.
        """
        try:
            return write_checkpoint(self.kept_folder, state)
        except (OSError, MemoryError) as error:
            path = checkpoint_path(self.kept_folder, state["step"])
            raise CheckpointError(f"{path} cannot be written: {error or type(error).__name__}") from error

    def is_saved(self, step: int) -> bool:
        """Whether the checkpoint of a step lies on the disk as it was saved last, and the state is still that one."""
        if self._last is None or self._last[0] != step:
            return False
        with suppress(OSError):
            return _signature(checkpoint_path(self.folder, step).stat()) == _signature(self._last[1])
        return False

    def state_changes(self) -> None:
        """From here on no checkpoint holds the present state."""
        self._last = None

    def delete_others(self, step: int) -> None:
        """Deletes the checkpoints that this run found or wrote, but for one.

        Other files stay, and so does what another run saves into the same folder meanwhile.
        """
        for other, path in saved_checkpoints(self.folder).items():
            if other in self._own - {step}:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    CONSOLE.print(f"[yellow]An older checkpoint cannot be deleted: {escape(str(error))}")

    def _newest(self) -> str:
        with suppress(CheckpointError):
            if saved := saved_checkpoints(self.folder):
                return f"The newest checkpoint is still {saved[max(saved)]}"
        return "There is no checkpoint yet"


def _signature(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_size
