"""The views of a run that is not trained, as its data manager would read them; no picture is loaded before it is
asked for."""

from pathlib import Path
from typing import Any, Optional

from nerfstudio_prune.data.pixels import CountedDataset


def read_views(datamanager: Any, data: Optional[Path], split: str) -> tuple[Any, CountedDataset]:
    """Reads cameras and names of pictures, as the host does.

    Args:
        datamanager: Options of the run's data manager; they take up where the data are.
        data: Where the data are now. None: where they were.
        split: Which views: `train`, `val` or `test`.

    Returns:
        What the data parser gives for them, and the views.

    Raises:
        ValueError: If they cannot be read; names the path.
    """
    known = data or datamanager.data  # the latter is the host's other name for the parser's
    if known is not None:
        datamanager.dataparser.data = known
    try:
        parsed = datamanager.dataparser.setup().get_dataparser_outputs(split)
        dataset = CountedDataset(parsed, datamanager.camera_res_scale_factor)
    except Exception as error:  # the host's parsers raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{getattr(datamanager.dataparser, 'data', 'data')}: {reason}") from error
    dataset.ignore_mask = getattr(datamanager.pixel_sampler, "ignore_mask", False)
    return parsed, dataset
