"""From a finished run to a file, read back and measured."""

from collections.abc import Mapping
from typing import Optional

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.core.files import write_file
from nerfstudio_prune.engine.saved_run import read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.comparing import Comparison, compare
from nerfstudio_prune.export.fitting import SizeError
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.numbers import Numbers, numbers_of
from nerfstudio_prune.export.reading import read_exported
from nerfstudio_prune.export.rendering import ExportedNeRF
from nerfstudio_prune.export.run_data import RunData, read_data
from nerfstudio_prune.export.run_file import RunFile
from nerfstudio_prune.export.tables import all_tables
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.saved_run import load_run
from nerfstudio_prune.neurons.samples import Samples

SEED = 0
"""Of the calibration samples: the same run gives the same file."""


def export(options: Export) -> None:
    """Writes a file, reads it back, and prints what it is worth.

    The file is there before anything is rendered, so that whoever interrupts the measurement has it.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `Export.main`.
    """
    numbers = numbers_of(options)
    run = load_run(read_config(options.load_config), options.load_config, options.step)
    data, reason = _data(run.config.pipeline.datamanager, options)
    run.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    scene = scene_of(run.config_file, None if data is None else data.parsed)
    samples, unknown = None, ""
    if numbers.reads_samples:
        samples, unknown = _samples(run.model, data, numbers, reason)
    file = RunFile(run, numbers, scene, samples)
    try:
        content = file.encode()
    except SizeError:
        raise
    except ValueError as error:
        raise ValueError(f"--load-config {options.load_config}: {error}") from error
    try:
        write_file(options.output, content)
    except OSError as error:
        raise ValueError(f"--output {options.output}: cannot be written: {error}") from error
    found = read_exported(options.output)
    compared: Optional[Comparison] = None
    if data is not None and options.views:
        network = ExportedNeRF(found).to(run.model.device)
        compared = compare(run.model, network, data.test, options.views)
    for part in all_tables(file, str(options.output), found, compared, reason, unknown):
        CONSOLE.print(part)


def _data(datamanager: object, options: Export) -> tuple[Optional[RunData], str]:
    """The run's data, and why they are not used or not there."""
    try:
        data = read_data(datamanager, options.data)
    except ValueError as error:
        if options.data is not None:
            raise ValueError(f"--data {error}") from error
        return None, f"{error}. Give the path of the data with --data where they have moved"
    return data, "--views 0"


def _samples(
    model: PruneModel, data: Optional[RunData], numbers: Numbers, reason: str
) -> tuple[Optional[Mapping[str, Samples]], str]:
    """Calibration samples, and why there are none."""
    if data is not None:
        try:
            return collect_samples(model, data.training, Calibration(), SEED), ""
        except ValueError as error:
            reason = str(error)
    if numbers.rounding == "compensated":
        raise ValueError(f"--rounding compensated needs training views: {reason}")
    return None, reason
