"""What is pruned of a model that is not in training, and the plan that options give it, for the tests."""

from typing import Any, Optional

import pytest

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.resuming import update_plan
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.subject import subject_of


def no_samples(*args: Any) -> Any:
    """Takes the place of the calibration where none may happen."""
    pytest.fail("calibration samples were collected")


def subject_under(options: PruneConfig, model: PruneModel) -> Subject[Any]:
    """What is pruned of a model under some options, filled in."""
    return subject_of(options.strategy, model, no_samples)


def updated(
    state: PruneState,
    options: PruneConfig,
    model: PruneModel,
    first_step: int,
    num_iterations: int,
    defaults: Optional[PruneConfig] = None,
) -> tuple[PruneConfig, list[str]]:
    """`update_plan` of a model whose state this is; the options in force, and the names of those that changed it."""
    model.prune_state = state
    in_force, changed = update_plan(
        state, options, lambda filled: subject_under(filled, model), first_step, num_iterations, defaults
    )
    assert isinstance(in_force, PruneConfig)
    return in_force, changed
