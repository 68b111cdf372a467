"""From a finished run of one large network to a file, read back and measured."""

from collections.abc import Mapping
from typing import Optional

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.comparing import Comparison, compare
from nerfstudio_prune.export.fitting import SizeError
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.outcome import data_of, dense_model, written
from nerfstudio_prune.export.rendering import network_of
from nerfstudio_prune.export.run_data import RunData
from nerfstudio_prune.export.run_file import RunFile
from nerfstudio_prune.export.tables import all_tables
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.saved_run import load_run
from nerfstudio_prune.neurons.samples import Samples

SEED = 0
"""Of the calibration samples: the same run gives the same file."""


def export_nerf(config: TrainerConfig, options: Export, numbers: Numbers) -> None:
    """Writes a file of a run of `nerf-prune` or `vanilla-nerf`, reads it back, and prints what it is worth.

    Args:
        config: The run's configuration.
        options: Options of the command.
        numbers: What the weights are to be.

    Raises:
        ValueError: See `Export.main`.
    """
    run = load_run(config, options.load_config, options.step)
    data, reason = data_of(run.config.pipeline.datamanager, options)
    dense = dense_model(options)
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
    found = written(options, content)
    compared: Optional[Comparison] = None
    if data is not None and options.views:
        network = network_of(found).to(run.model.device)
        original = None if dense is None else dense.to(run.model.device)
        compared = compare(run.model, network, data.test, options.views, original)
    for part in all_tables(file, str(options.output), found, compared, reason, unknown):
        CONSOLE.print(part)


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
