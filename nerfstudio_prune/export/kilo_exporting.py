"""From a finished run of tiny networks to a file, read back and measured."""

from typing import Optional

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.text import Text

from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.comparing import Comparison, compare
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.kilo_from_run import kilo_content
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.outcome import data_of, dense_model, written
from nerfstudio_prune.export.rendering import network_of
from nerfstudio_prune.export.tables import Whole, numbers_in_words, overview, quality_table
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
    _check(options, numbers)
    run = load_run(config, options.load_config, options.step)
    dense = dense_model(options)
    data, reason = data_of(run.config.pipeline.datamanager, options)
    scene = scene_of(run.config_file, None if data is None else data.parsed)
    try:
        content = kilo_content(run, numbers, scene)
    except ValueError as error:
        raise ValueError(f"--load-config {options.load_config}: {error}") from error
    found = written(options, content)
    compared: Optional[Comparison] = None
    if data is not None and options.views:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        original = None if dense is None else dense.to(device)
        compared = compare(run.model.to(device), network_of(found).to(device), data.test, options.views, original)
    count, parameters = run.model.networks.num_networks, run.model.networks.num_parameters
    whole = Whole(f"all {parameters:,}, of {count:,} networks", "networks", parameters)
    numbers_told = numbers_in_words(numbers, "nearest", found.metadata)
    CONSOLE.print(overview(run, str(options.output), numbers_told, found, whole))
    CONSOLE.print(Text(f"Quality was not measured: {reason}") if compared is None else quality_table(compared))


def _check(options: Export, numbers: Numbers) -> None:
    """Refuses what is for one large network alone."""
    if options.target_mb is not None:
        raise ValueError("--target-mb is for runs of nerf-prune and vanilla-nerf; give whole --bits for kilonerf")
    if numbers.mixed:
        raise ValueError("--dtype mixed is for runs of nerf-prune and vanilla-nerf; give whole --bits for kilonerf")
    if numbers.rounding == "compensated":
        raise ValueError("--rounding compensated is for runs of nerf-prune and vanilla-nerf; kilonerf has nearest")
