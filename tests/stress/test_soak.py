"""A short soak; `soak.py` does it for as long as one likes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny_run import make_config

from nerfstudio_prune.engine import controller as controller_module
from nerfstudio_prune.engine import display as display_module
from nerfstudio_prune.engine.host import reset_host
from stress.soak import KINDS, soak, soak_config


@pytest.mark.slow
def test_evening_at_the_panel(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, in any order: the training must go on, with a whole network, optimizers that hold its very tensors,
    and losses that are numbers; nobody waits for ever, and nothing is printed raw."""
    for module in (controller_module, display_module):
        monkeypatch.setattr(module, "CONSOLE", SimpleNamespace(print=lambda *args: None))  # tables take time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    make: Callable[..., Any] = partial(make_config, tmp_path, tmp_path / "scene")
    try:
        figures = soak(soak_config(make), 10.0)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        reset_host()
    assert all(figures[kind] > 0 for kind in KINDS) and figures["checkpoints"] == 1
    printed = capfd.readouterr()
    # What goes wrong by more than a wrong wish is told with a traceback, and ends nothing.
    assert "Traceback" not in printed.out + printed.err
