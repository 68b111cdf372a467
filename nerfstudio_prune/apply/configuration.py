"""The configuration of the new run: that of the run that it comes from, as a method of this project."""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Any, Optional

from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.engine.saved_run import SavedRunError

KEPT = ("machine", "logging", "viewer", "vis", "optimizers", "mixed_precision", "max_num_iterations", "output_dir")
"""What a run of a stock method says about itself, besides data and model."""


def own_config(config: TrainerConfig, method: Optional[str], model: Any, path: Path) -> Any:
    """Configuration of a run that goes on from another one.

    Args:
        config: Configuration of that one; it is not changed.
        method: Method that a run of a stock method goes on as; None for a run of this project's, whose method stays.
        model: Options of the model.
        path: File of the configuration.

    Raises:
        SavedRunError: If the host does not know the method, so that it could not open the run.
    """
    name = config.method_name if method is None else method
    if name not in all_methods:
        raise SavedRunError(f"--load-config {path}: its method {name} is not installed, and could not be opened")
    if method is None:
        return deepcopy(config)
    own: Any = deepcopy(all_methods[name])
    for part in (*KEPT, "experiment_name"):
        setattr(own, part, deepcopy(getattr(config, part)))
    own.pipeline.datamanager, own.pipeline.model = deepcopy(config.pipeline.datamanager), deepcopy(model)
    return own


def check_data_manager(config: TrainerConfig, kind: type, managers: Collection[type], path: Path) -> None:
    """Checks that the host would open the new run with the data of the old one: it takes the class of the data manager
    from the method, whatever the file says.

    Args:
        config: Configuration of the run.
        kind: Class of the data manager's options.
        managers: Data managers of the host that the method's own stands for, and that one.
        path: File of the configuration.

    Raises:
        SavedRunError: If it has another one.
    """
    data: Any = config.pipeline.datamanager
    if type(data) is not kind or data._target not in managers:
        known = next(iter(managers)).__name__
        raise SavedRunError(
            f"--load-config {path}: expected a run with the data manager {known}, got "
            f"{getattr(data._target, '__name__', data._target)}, whose data the methods of this project do not load"
        )
