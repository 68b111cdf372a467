"""Checkpoints of Nerfstudio's format: what is in one, which of a folder are whole, and how one is written."""

import copy
import io
import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.core.plain import MAX_INT
from nerfstudio_prune.engine.files import write_whole

NETWORK = ("pipeline",)
"""Entries of a checkpoint, besides the step, that the network is loaded from."""
TRAINING = ("pipeline", "optimizers", "scalers")
"""Entries that a training goes on from; `schedulers` may be missing, as for Nerfstudio."""
PRECISION = "matmul_precision"
"""Entry that Nerfstudio's checkpoints have not: the precision of products of the run."""

# Nerfstudio's own trainer saves the numpy numbers of its schedulers, which torch >= 2.6 refuses unless they are listed.
torch.serialization.add_safe_globals([np.float64(0).__reduce__()[0], np.dtype, type(np.dtype(float))])  # type: ignore[list-item]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message names the file or folder and what was expected."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    path: Path
    """Its file."""
    step: int
    """Training step at whose end it was saved."""
    content: dict[str, Any]
    """The entries that were asked for, on the CPU."""


def checkpoint_state(trainer: Trainer, step: int) -> dict[str, Any]:
    """What Nerfstudio saves of a training, with Python's own numbers in place of numpy's; and the products' precision,
    which a run keeps.

    Args:
        trainer: The training.
        step: Step that has just ended.
    """
    pipeline: Any = trainer.pipeline
    optimizers = trainer.optimizers
    return plain(
        {
            "step": step,
            "pipeline": getattr(pipeline, "module", pipeline).state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in optimizers.schedulers.items()},
            "scalers": trainer.grad_scaler.state_dict(),
            PRECISION: torch.get_float32_matmul_precision(),
        }
    )


def plain(value: Any) -> Any:
    """A nest of dicts, lists and tuples with numpy's numbers replaced by Python's; bit for bit the same values.

    A checkpoint then loads with `weights_only=True` wherever there is a torch.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        replaced = copy.copy(value)  # keeps the versions of modules, which a state dict carries beside its entries
        replaced.update((key, plain(item)) for key, item in value.items())
        return replaced
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    return value


def checkpoint_bytes(trainer: Trainer) -> int:
    """Size that a checkpoint would have now, in bytes."""
    buffer = io.BytesIO()
    torch.save(checkpoint_state(trainer, 0), buffer)
    return buffer.tell()


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where Nerfstudio looks for the checkpoint of a step."""
    return folder / f"step-{step:09d}.ckpt"


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> Path:
    """Writes a checkpoint as a whole; others are left alone.

    Args:
        folder: Folder of checkpoints; the unfinished file lies beside it.
        state: See `checkpoint_state`.

    Returns:
        Its file.

    Raises:
        OSError: If it cannot be written. A former file of that step is then as it was.
    """
    path = checkpoint_path(folder, state["step"])
    write_whole(path, lambda file: torch.save(state, file), folder.parent)
    return path


def saved_checkpoints(folder: Path) -> dict[int, Path]:
    """Step -> file, by rising step, of what is named like a checkpoint in a folder; the folder may be missing.

    All other names are ignored. Names cannot be compared as texts: a step of ten digits would sort before one of nine.

    Raises:
        CheckpointError: If the folder cannot be read.
    """
    found: dict[int, Path] = {}
    try:
        for file in folder.iterdir() if folder.exists() else ():
            match = re.fullmatch(r"step-([0-9]+)\.ckpt", file.name)
            step = int(match[1]) if match and file.is_file() else None
            if step is not None and (step not in found or file == checkpoint_path(folder, step)):
                found[step] = file
    except OSError as error:
        raise CheckpointError(f"{folder}: expected a folder of checkpoints: {error}") from error
    return dict(sorted(found.items()))


def newest_checkpoint(folder: Path, entries: Collection[str] = NETWORK) -> Checkpoint:
    """The newest whole checkpoint of a folder; newer ones that are not whole are passed over and named.

    Args:
        folder: Folder of checkpoints.
        entries: What it has to hold, besides the step.

    Raises:
        CheckpointError: If there is none.
    """
    reasons: list[str] = []
    for step, path in reversed(saved_checkpoints(folder).items()):
        try:
            found = _read_named(path, step, entries)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            CONSOLE.print(f"[yellow]Passed over {escape(reason)}", soft_wrap=True)
        if reasons:
            CONSOLE.print(f"[yellow]The newest whole checkpoint is {escape(str(path))}", soft_wrap=True)
        return found
    if reasons:
        raise CheckpointError(f"{folder}: holds no whole checkpoint: {'; '.join(reasons)}")
    hint = folder / "nerfstudio_models"
    raise CheckpointError(
        f"{folder}: holds no checkpoint; expected step-*.ckpt" + (f", as in {hint}" if hint.is_dir() else "")
    )


def checkpoint_of_step(folder: Path, step: int, entries: Collection[str] = NETWORK) -> Checkpoint:
    """The checkpoint of a step that was asked for; no other stands in for it.

    Args:
        folder: Folder of checkpoints.
        step: The step.
        entries: What it has to hold, besides the step.

    Raises:
        CheckpointError: If it is missing, or not whole.
    """
    saved = saved_checkpoints(folder)
    if step not in saved:
        there = f"there are {', '.join(map(str, saved))}" if saved else "it holds none"
        raise CheckpointError(f"{folder}: holds no checkpoint of step {step}; {there}")
    return _read_named(saved[step], step, entries)


def read_checkpoint(path: Path, entries: Collection[str] = NETWORK) -> Checkpoint:
    """Reads a checkpoint, if it is whole: every byte as it was written, and all that it has to hold.

    Args:
        path: The file.
        entries: What it has to hold, besides the step.

    Raises:
        CheckpointError: If it is not.
    """
    try:
        return _read(path, entries)
    except Exception as error:  # what is read may be any file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path}: expected a whole checkpoint of Nerfstudio: {reason}") from error


def _read_named(path: Path, step: int, entries: Collection[str]) -> Checkpoint:
    found = read_checkpoint(path, entries)
    if found.step != step:
        raise CheckpointError(f"{path}: expected the checkpoint of step {step}: it is the one of step {found.step}")
    return found


def _read(path: Path, entries: Collection[str]) -> Checkpoint:
    content = _load(path)
    step = content.get("step") if isinstance(content, Mapping) else None
    if type(step) is not int or not 0 <= step < MAX_INT:
        raise ValueError("it holds no step of a training")
    missing = [name for name in entries if not isinstance(content.get(name), Mapping)]
    if missing:
        raise ValueError(f"it holds no {', '.join(missing)}")
    if not all(isinstance(name, str) for name in content.get("pipeline", ())):
        raise ValueError("its pipeline has entries without a name")
    wanted = [name for name in (*entries, "schedulers", PRECISION) if name in content]
    return Checkpoint(path, step, {name: _own(name, content[name]) for name in wanted})


def _load(path: Path) -> Any:
    """Reads a file of `torch.save`; tensors come from the disk as they are used, where that is possible."""
    if not path.is_file():
        raise ValueError("there is no such file")
    if not path.stat().st_size:
        raise ValueError("it is empty")
    mapped = zipfile.is_zipfile(path)
    if mapped:
        _check_bytes(path)
    elif _begins_as_zip(path):
        raise ValueError("it is cut off")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except RuntimeError:
        if not mapped:
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # not every disk can be mapped


def _begins_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_bytes(path: Path) -> None:
    """Holds the file against its checksums, which torch does not look at: a loss of power leaves zeros."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries overlap, and take more than the file holds")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"it is damaged: {damaged} differs from its checksum")


def _own(name: str, value: Any) -> Any:
    """Copies what is kept as it is loaded: the file below it may be written anew, or go. Weights are copied anyway."""
    if name != "pipeline":
        return copy.deepcopy(value)
    return {key: item if torch.is_tensor(item) else copy.deepcopy(item) for key, item in value.items()}


def network_entries(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of the network among those of the host's pipeline, by their names in the model.

    Args:
        loaded: Entries of the pipeline; those of a run on several devices have one more prefix.
    """
    entries = {key.removeprefix("module."): value for key, value in loaded.items()}
    return {
        key.removeprefix("_model.").removeprefix("module."): value
        for key, value in entries.items()
        if key.startswith("_model.")
    }
