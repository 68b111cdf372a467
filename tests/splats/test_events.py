"""Events of Gaussians in a run: how many leave, what is cut with them, when, and what a run is told."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from support.tiny_run import after_each_step, checkpoint, resume, same_bits
from support.tiny_splats import (
    NAMES,
    SETTLED,
    STEPS,
    check_whole,
    copies,
    counts,
    moments,
    pictures,
    saving,
    start,
    train,
)

from nerfstudio_prune.engine.host import seed_host

Config = Callable[..., Any]
LAST = STEPS - 1
ONCE = {"start_step": 10, "sh_degree": None, "preset": "best", "rounds": 1}


def config_of(tiny_config: Config, name: str = "run", **options: Any) -> Any:
    """A run with one cut at step 10 and no other degree, unless options say so."""
    return tiny_config(name, **{"start_step": 10, "sh_degree": 3, "rounds": 1, "score": "opacity", **options})


def before_event(trainer: Any, step: int = 10) -> dict[str, Any]:
    """What there is at the end of a step before pruning looks at it; filled when the step is passed."""
    found: dict[str, Any] = {}
    model = trainer.pipeline.model

    def look(step: int, at: int = step) -> None:
        if step == at:
            found.update(
                parameters=copies(model.gauss_params),
                moments=moments(trainer),
                running=copies(model.running),
                random=torch.get_rng_state(),
            )

    # Behind the host's densification, which is a callback of the model, and before the controller.
    place = next(i for i, c in enumerate(trainer.callbacks) if "PruneController" in str(c.func))
    trainer.callbacks.insert(place, _callback(look))
    return found
