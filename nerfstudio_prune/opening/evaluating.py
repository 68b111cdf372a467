"""From a file and a data set to a table."""

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track

from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.opening.data_sets import check_scene, read_data_set
from nerfstudio_prune.opening.eval_command import Eval
from nerfstudio_prune.opening.measuring import measured, spread
from nerfstudio_prune.opening.tables import measured_tables


def evaluate(options: Eval) -> None:
    """Measures a file on test views and prints what was found.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `Eval.main`.
    """
    if options.views is not None and options.views < 1:
        raise ValueError(f"--views must be at least 1, got {options.views}")
    if options.worst < 0:
        raise ValueError(f"--worst must be at least 0, got {options.worst}")
    network = load_exported(options.file)
    data = read_data_set(options.data, options.dataparser)
    unknown = check_scene(network.metadata.scene, data.parsed, options.file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = len(data.test)
    views = spread(min(options.views or there, there), there)
    found = measured(network.to(device), data.test, views, device)
    every = list(track(found, "Rendering", len(views), console=CONSOLE, transient=True))
    size = options.file.stat().st_size
    for part in measured_tables(str(options.file), size, network.metadata, every, there, options.worst):
        CONSOLE.print(part)
    if unknown:
        CONSOLE.print(f"[yellow]Not checked: {unknown}.")
