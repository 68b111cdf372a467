"""From a finished run of tiny networks to a file, read back and measured."""

from typing import Optional

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.comparing import Comparison, compare
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.kilo_run_file import KiloRunFile
from nerfstudio_prune.export.kilo_samples import collect_samples
from nerfstudio_prune.export.kilo_tables import kilo_bits_table
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.outcome import SEED, calibration, data_of, dense_model, encoded, written
from nerfstudio_prune.export.rendering import network_of
from nerfstudio_prune.export.tables import Whole, all_tables
from nerfstudio_prune.kilo.saved_run import load_run


def export_kilo(config: TrainerConfig, options: Export, numbers: Numbers) -> None:
    """Writes a file of a run of `kilonerf`, reads it back, and prints what it is worth.

    Args:
        config: The run's configuration.
        options: Options of the command.
        numbers: What the weights are to be.

    Raises:
        ValueError: See `Export.main`.
    """
    if options.widths == "joint":
        raise ValueError("--widths joint is for runs of nerf-prune and vanilla-nerf; ns-prune distil has narrow-to")
    run = load_run(config, options.load_config, options.step)
    data, reason = data_of(run.config.pipeline.datamanager, options)
    dense = dense_model(options)
    scene = scene_of(run.config_file, None if data is None else data.parsed)
    samples, unknown = calibration(numbers, data, reason, lambda views: collect_samples(run.model, views, SEED))
    file = KiloRunFile(run, numbers, scene, samples)
    content = encoded(options, file.encode)
    found = written(options, content)
    compared: Optional[Comparison] = None
    if data is not None and options.views:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        original = None if dense is None else dense.to(device)
        compared = compare(run.model.to(device), network_of(found).to(device), data.test, options.views, original)
    count, parameters = run.model.networks.num_networks, run.model.networks.num_parameters
    whole = Whole(f"all {parameters:,}, of {count:,} networks", "networks", parameters, kilo_bits_table)
    for part in all_tables(file, str(options.output), whole, found, compared, reason, unknown):
        CONSOLE.print(part)
