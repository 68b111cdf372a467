"""The views that a run was trained and measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.data.pixels import CountedDataset


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
    known = data or datamanager.data  # the latter is the host's other name for the parser's
    if known is not None:
        datamanager.dataparser.data = known
    try:
        parser = datamanager.dataparser.setup()
        parsed = {split: parser.get_dataparser_outputs(split) for split in ("train", "test")}
        training, test = (CountedDataset(own, datamanager.camera_res_scale_factor) for own in parsed.values())
    except Exception as error:  # the host's parsers raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{getattr(datamanager.dataparser, 'data', 'data')}: {reason}") from error
    if not len(test):
        raise ValueError(f"{datamanager.dataparser.data}: no test views")
    for dataset in (training, test):
        dataset.ignore_mask = getattr(datamanager.pixel_sampler, "ignore_mask", False)
    return RunData(parsed["train"], training, test)
