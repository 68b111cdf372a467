"""From a finished run of one large network to a file, read back and measured."""

from typing import Optional

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.comparing import Comparison, compare
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.joint import SHARES, JointFiles, Tried, best_of
from nerfstudio_prune.export.joint_tables import widths_table
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.outcome import SEED, calibration, data_of, dense_model, encoded, written
from nerfstudio_prune.export.rendering import network_of
from nerfstudio_prune.export.run_data import RunData
from nerfstudio_prune.export.run_file import RunFile
from nerfstudio_prune.export.schema import Scene
from nerfstudio_prune.export.tables import Whole, all_tables, bits_table
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.saved_run import load_run


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
    unknown = ""
    if options.widths == "joint":
        best, tried = encoded(options, lambda: _joint(run, numbers, scene, data, reason))
        file, content = best.file, best.content
        CONSOLE.print(widths_table(tried, best))
    else:
        samples, unknown = calibration(
            numbers, data, reason, lambda views: collect_samples(run.model, views, Calibration(), SEED)
        )
        file = RunFile(run, numbers, scene, samples)
        content = encoded(options, file.encode)
    found = written(options, content)
    compared: Optional[Comparison] = None
    if data is not None and options.views:
        network = network_of(found).to(run.model.device)
        original = None if dense is None else dense.to(run.model.device)
        compared = compare(run.model, network, data.test, options.views, original)
    parameters = sum(p.numel() for own in run.model.fields().values() for p in own.parameters())
    told = f"{found.metadata.parameters:,} of {parameters:,}, without the coarse field's colour"
    whole = Whole(told, "both fields", parameters, bits_table)
    for part in all_tables(file, str(options.output), whole, found, compared, reason, unknown):
        CONSOLE.print(part)


def _joint(
    run: SavedRun[PruneModel], numbers: Numbers, scene: Scene, data: Optional[RunData], reason: str
) -> tuple[Tried, list[Tried]]:
    """The best file of several widths, and all that were tried.

    Raises:
        ValueError: If there are no training views, or none fits.
    """
    if data is None:
        raise ValueError(f"--widths joint needs training views: {reason}")
    assert numbers.largest is not None
    return best_of(SHARES, JointFiles(run, numbers, scene, data.training).attempt, numbers.largest)
