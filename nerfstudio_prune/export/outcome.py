"""What every export has in common: its data, and a file that is written and read back."""

from collections.abc import Callable
from typing import Optional, TypeVar

from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.data.pixels import CountedDataset
from nerfstudio_prune.engine.saved_run import SavedRunError, read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.fitting import SizeError
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.reading import Exported, read_exported
from nerfstudio_prune.export.run_data import RunData, read_data
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.saved_run import load_run

SEED = 0
"""Of the calibration samples: the same run gives the same file."""
Evidence = TypeVar("Evidence")
Content = TypeVar("Content")


def data_of(datamanager: object, options: Export) -> tuple[Optional[RunData], str]:
    """The run's data, and why they are not used or not there.

    Args:
        datamanager: Options of the run's data manager.
        options: Options of the command.

    Raises:
        ValueError: If data that were given are not there.
    """
    try:
        data = read_data(datamanager, options.data)
    except ValueError as error:
        if options.data is not None:
            raise ValueError(f"--data {error}") from error
        return None, f"{error}. Give the path of the data with --data where they have moved"
    return data, "--views 0"


def calibration(
    numbers: Numbers, data: Optional[RunData], reason: str, collect: Callable[[CountedDataset], Evidence]
) -> tuple[Optional[Evidence], str]:
    """Calibration samples where they are of use, and why there are none where they would have been.

    Args:
        numbers: What the weights are to be.
        data: The run's data.
        reason: Why they are not there.
        collect: Takes them from training views.

    Raises:
        ValueError: If rounding needs them.
    """
    if not numbers.reads_samples:
        return None, ""
    if data is not None:
        try:
            return collect(data.training), ""
        except ValueError as error:
            reason = str(error)
    if numbers.rounding == "compensated":
        raise ValueError(f"--rounding compensated needs training views: {reason}")
    return None, reason


def encoded(options: Export, encode: Callable[[], Content]) -> Content:
    """The content of a file, or what it is a part of.

    Args:
        options: Options of the command.
        encode: Makes it.

    Raises:
        ValueError: If it cannot be made, or not as small as asked for.
    """
    try:
        return encode()
    except SizeError:
        raise
    except ValueError as error:
        raise ValueError(f"--load-config {options.load_config}: {error}") from error


def dense_model(options: Export) -> Optional[PruneModel]:
    """The dense network that is measured beside; None where none was asked for.

    Args:
        options: Options of the command.

    Raises:
        ValueError: If there is no such run.
    """
    if options.dense_config is None:
        return None
    try:
        return load_run(read_config(options.dense_config), options.dense_config).model
    except SavedRunError as error:
        raise ValueError(str(error).replace("--load-config", "--dense-config")) from error


def written(options: Export, content: bytes) -> Exported:
    """Writes a file, and reads it back.

    Args:
        options: Options of the command.
        content: What the file is to hold.

    Raises:
        ValueError: If it cannot be written.
    """
    try:
        write_file(options.output, content)
    except OSError as error:
        raise ValueError(f"--output {options.output}: cannot be written: {error}") from error
    return read_exported(options.output)
