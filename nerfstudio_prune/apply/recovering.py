"""Some steps of training after the cut, by the host's trainer, in the folder of the new run."""

from copy import deepcopy
from typing import Any

from nerfstudio.scripts import train

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.engine.options import MAX_STEPS


def check_recovery(steps: int, without_data: str) -> None:
    """Checks that there can be a training.

    Args:
        steps: Training steps; 0 for none.
        without_data: Why there are no data; empty where there are.

    Raises:
        ValueError: If there cannot.
    """
    if not 0 <= steps <= MAX_STEPS:
        raise ValueError(f"--recovery-steps must be in [0, {MAX_STEPS}], got {shown(steps)}")
    if steps and without_data:
        raise ValueError(f"--recovery-steps {steps} trains on the data of the run: {without_data}")


def recover(config: Any, steps: int) -> None:
    """Trains the new run on, with the moments, and at the rates, that the run ended with. Its checkpoint is replaced by
    that of the last step.

    Args:
        config: Configuration of the new run.
        steps: Training steps.
    """
    on = deepcopy(config)
    on.max_num_iterations = steps
    on.vis = "tensorboard"  # a viewer would wait at the end
    reset_host()
    train.main(on)
