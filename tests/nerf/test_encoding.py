"""A whole training on a console of ASCII."""

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from nerfstudio.engine.trainer import Trainer
from support.tiny_run import train

Config = Callable[..., Any]


def test_training_prints_in_ascii(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host prints a line of box characters before it trains, and ours are in every table of an event; either would
    end the run, the second one in the middle of an event."""
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="ascii"))
    config = tiny_config(start_step=3, pruning_ratio=0.5)
    config.print_to_terminal()
    trainer = train(config)
    sys.stdout.flush()
    text = file.getvalue().decode("ascii")
    assert "16 -> 8" in text and "Training Finished" in text
    assert len(trainer.pipeline.model.prune_state.history) == 1


def test_training_by_an_old_configuration_prints_in_ascii(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the host's own trainer, so that nothing of ours is heard before the pipeline is made."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    config = tiny_config(start_step=3, pruning_ratio=0.5)
    config._target = Trainer
    config.optimizers["fields"]["scheduler"] = None
    assert len(train(config).pipeline.model.prune_state.history) == 1
