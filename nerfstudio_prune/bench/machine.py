"""Where a measurement is taken, what it is timed by, and how much memory it took."""

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Optional

import torch

from nerfstudio_prune.engine.host import seconds_now
from nerfstudio_prune.engine.memory import release_memory
from nerfstudio_prune.records.schema import Clock, MachineRecord

PACKAGES = ("nerfstudio-prune", "nerfstudio", "torch", "torchvision", "numpy", "nerfacc")


def describe_machine(device: torch.device, packages: Sequence[str] = PACKAGES) -> MachineRecord:
    """The machine, the versions and the commit of a measurement.

    Args:
        device: Where the model lives.
        packages: Whose versions matter.
    """
    return MachineRecord(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        device_type=device.type,
        threads=torch.get_num_threads(),
        platform=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        git_commit=COMMIT,
    )


def processor_name() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if info.exists():
        lines = info.read_text("utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return name


def git_commit(folder: Path) -> Optional[str]:
    """Commit of the checkout that a folder is part of, with `+` when its tracked files were changed; None outside of
    one, or where it lies untracked in somebody else's."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not git("ls-files", "."):
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


# Taken now: by the time that a run ends, the files may have moved on from what this process executes.
COMMIT = git_commit(Path(__file__).parents[1])


def clock_of(device: torch.device) -> tuple[Clock, Callable[[], float]]:
    """The steadiest clock for a device, in seconds.

    With one thread on a CPU it is the processor time of this process, which does not see what else the machine does.
    With several threads that would count their idling, and on a GPU it says nothing: there it is the wall clock.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return "processor", time.process_time
    return "wall", wall_clock(device)


def wall_clock(device: torch.device) -> Callable[[], float]:
    """Wall-clock time in seconds, read when all work on the device is done."""
    return partial(seconds_now, device)


class MemoryMeter:
    """Peak memory from its creation, or the last reset, on.

    Args:
        device: A GPU's own allocations are counted; on a CPU the whole process, where the system tells (Linux).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Starts anew from what is in use now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._held = torch.cuda.memory_allocated(self.device) / 1e6
            return
        # What was freed and is kept would hide what is needed next.
        release_memory()
        if sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5", "utf-8")
            except OSError:
                pass  # without the right to reset, the peak is that of the whole process so far
        self._held = _status_mb("VmRSS") or 0.0

    @property
    def peak_mb(self) -> Optional[float]:
        """Peak in MB; None where it cannot be told."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        return _status_mb("VmHWM")

    @property
    def growth_mb(self) -> Optional[float]:
        """Peak in MB above what was in use at the reset; None where it cannot be told."""
        return None if self.peak_mb is None else max(0.0, self.peak_mb - self._held)


def _status_mb(name: str) -> Optional[float]:
    """A size from the system's notes on this process, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    kilobytes = [line.split()[1] for line in status.read_text("utf-8").splitlines() if line.startswith(f"{name}:")]
    return int(kilobytes[0]) * 1024 / 1e6 if kilobytes else None
