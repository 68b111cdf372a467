"""What is asked of the host and the machine: device, clock, random state, module-level state."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.utils import profiler, writer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

MAX_PORT = 2**16 - 1


def default_machine() -> MachineConfig:
    """The first GPU if there is one, else the CPU, so that no option is needed on machines without a GPU."""
    return MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu")


def local_viewer(**options: Any) -> ViewerConfig:
    """A viewer that only this machine reaches; what its pages can do is more than to look.

    Args:
        **options: Further options of the viewer.
    """
    return ViewerConfig(websocket_host="127.0.0.1", **options)


def check_device(device_type: str) -> None:
    """Checks that there is a device to train on, before any data are loaded.

    Args:
        device_type: Option `machine.device_type`.

    Raises:
        ValueError: If this machine, or its PyTorch, has none of the kind.
    """
    try:
        torch.zeros(1, device=device_type)
    except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch that was built without it
        reason = " ".join(str(error).split())
        text = f"machine.device_type {device_type} is not there: {reason}. cpu is on every machine"
        raise ValueError(text) from error


def check_viewer(config: Any) -> None:
    """Checks where the viewer of a training is to listen, if it has one; the host would wait for it for ever.

    Args:
        config: The host's `TrainerConfig`.

    Raises:
        ValueError: If there is no such port or address, or nobody could ever start a training that begins paused.
    """
    if not config.is_viewer_enabled():
        if config.start_paused:
            raise ValueError(f"start_paused needs the viewer, where training is started; vis is {config.vis}")
        return
    host, port = config.viewer.websocket_host, config.viewer.websocket_port
    if port is not None and not 1 <= port <= MAX_PORT:
        raise ValueError(f"viewer.websocket_port must be in [1, {MAX_PORT}], got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.bind(address)
    except (OSError, UnicodeError) as error:
        text = f"viewer.websocket_host {host!r} is no address of this machine: {error}. 127.0.0.1 always is"
        raise ValueError(text) from error


def default_eval_chunk() -> int:
    """Rays that are rendered at once: as in the host on a GPU, fewer on a CPU, whose caches are small. What a network
    makes of their points is computed in smaller parts again."""
    return 4096 if torch.cuda.is_available() else 1024


def seconds_now(device: torch.device) -> float:
    """Wall-clock seconds, once all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def forked(device: torch.device) -> Iterator[None]:
    """Leaves the random states of the CPU and of a device as they were.

    `torch.manual_seed` seeds every GPU, so that work on the CPU changes those in use as well; they are put back too.

    Args:
        device: Where numbers are drawn.
    """
    devices = range(torch.cuda.device_count()) if device.type == "cuda" or torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield


def reset_host() -> None:
    """Forgets what the host's writers and profilers leave behind, before another training in the same process."""
    for event_writer in writer.EVENT_WRITERS:
        if hasattr(event_writer, "tb_writer"):
            with suppress(OSError):  # on a full disk
                event_writer.tb_writer.close()
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    writer.GLOBAL_BUFFER.clear()
    profiler.PROFILER.clear()


def seed_host(seed: int) -> None:
    """Seeds all generators that a training draws from, as `ns-train` does."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the host's samplers use the global state
    torch.manual_seed(seed)


class GuardedWriter:
    """An event writer of Nerfstudio, TensorBoard's for example, that a full disk silences; the training goes on.

    Args:
        inner: The event writer.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._failed = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._write, found) if name.startswith("write_") else found

    def _write(self, function: Callable[..., None], *values: Any) -> None:
        if self._failed:
            return
        try:
            function(*values)
        except OSError as error:
            self._failed = True
            name = type(self._inner).__name__
            CONSOLE.print(f"[red]{name}: nothing more is logged in this run: {escape(str(error))}")


def guard_event_writers() -> None:
    """Puts a guard around all event writers of Nerfstudio but the console."""
    writer.EVENT_WRITERS[:] = [
        found if isinstance(found, writer.LocalWriter) else GuardedWriter(found) for found in writer.EVENT_WRITERS
    ]


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Leaves all generators as they were, Python's and NumPy's too.

    Args:
        device: Device that may be drawn on besides the CPU.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the host's samplers use the global state
    try:
        with forked(device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Everything that is drawn in the body follows from a seed; all generators are left as they were.

    Args:
        seed: The seed, in [0, 2**32).
        device: Device that may be drawn on besides the CPU.
    """
    with generators_kept(device):
        seed_host(seed)
        yield


def free_memory(device: torch.device) -> Optional[int]:
    """Bytes that a training could still take; None where that is not known.

    Args:
        device: Where it would live.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
