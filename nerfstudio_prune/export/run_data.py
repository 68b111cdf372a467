"""The views that a run was trained and measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.data.pixels import CountedDataset
from nerfstudio_prune.data.reading import read_views


@dataclass(frozen=True)
class RunData:
    """What a run was trained on, as far as a file needs it."""

    parsed: Any
    """What the data parser gives for the training views."""
    training: CountedDataset
    """The training views."""
    test: CountedDataset
    """The test views."""


def read_data(datamanager: Any, data: Optional[Path]) -> RunData:
    """Reads cameras and names of pictures, as the host does; no training picture is loaded.

    Args:
        datamanager: Options of the run's data manager.
        data: Where the data are now. None: where they were.

    Raises:
        ValueError: If they cannot be read, or have no test views; names the path.
    """
    parsed, training = read_views(datamanager, data, "train")
    _, test = read_views(datamanager, data, "test")
    if not len(test):
        raise ValueError(f"{datamanager.dataparser.data}: no test views")
    return RunData(parsed, training, test)
