"""From a finished run to a file, read back and measured."""

from typing import Optional

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_prune.engine.saved_run import read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.errors import ExportFileError
from nerfstudio_prune.export.from_run import describe, layers_of, scene_of, uniform_bits
from nerfstudio_prune.export.quality import Comparison, RunData, compare, read_data
from nerfstudio_prune.export.reading import read_exported
from nerfstudio_prune.export.rendering import ExportedNeRF
from nerfstudio_prune.export.rounding import MAX_BITS, MIN_BITS
from nerfstudio_prune.export.schema import Storage
from nerfstudio_prune.export.tables import all_tables
from nerfstudio_prune.export.writing import encode_file
from nerfstudio_prune.nerf.saved_run import load_run
from nerfstudio_prune.records.files import write_file

BITS = {"float32": 32, "float16": 16, "int8": 8}
"""Type of the weights -> bits of each."""


def export(options: Export) -> None:
    """Writes a file, reads it back, and prints what it is worth.

    The file is there before anything is rendered, so that whoever interrupts the measurement has it.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `Export.main`.
    """
    bits, storage = numbers_of(options)
    run = load_run(read_config(options.load_config), options.load_config, options.step)
    data, reason = _data(run.config.pipeline.datamanager, options)
    try:
        layers = layers_of(run.model)
        scene = scene_of(run.config_file, None if data is None else data.training)
        content = encode_file(describe(run, layers, uniform_bits(layers, bits), storage, scene), layers)
    except ExportFileError as error:
        raise ValueError(f"--load-config {options.load_config}: {error}") from error
    try:
        write_file(options.output, content)
    except OSError as error:
        raise ValueError(f"--output {options.output}: cannot be written: {error}") from error
    found = read_exported(options.output)
    compared: Optional[Comparison] = None
    if data is not None and options.views:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = ExportedNeRF(found).to(device)
        compared = compare(run.model.to(device), network, data.test, options.views)
    kind = "float" if storage == "tensors" else "int"
    numbers = f"{kind}{bits}" + (", compressed" if storage == "lzma" else "")
    for part in all_tables(run, str(options.output), numbers, found, compared, reason):
        CONSOLE.print(part)


def numbers_of(options: Export) -> tuple[int, Storage]:
    """Bits of a weight, and how they are stored.

    Args:
        options: Options of the command.

    Raises:
        ValueError: If they contradict each other, or one is out of its range.
    """
    if options.views < 0:
        raise ValueError(f"--views must be at least 0, got {options.views}")
    dtype = options.dtype or ("int8" if options.bits is None else "intN")
    if dtype != "intN":
        if options.bits is not None:
            raise ValueError(f"--bits {options.bits} goes with --dtype intN, got {dtype}")
    elif options.bits is None or not MIN_BITS <= options.bits <= MAX_BITS:
        raise ValueError(f"--dtype intN needs --bits in [{MIN_BITS}, {MAX_BITS}], got {options.bits}")
    bits = options.bits or BITS[dtype]
    if bits > MAX_BITS and options.compress:
        raise ValueError(f"--compress is for integers, got --dtype {dtype}, which hardly gets smaller")
    return bits, "tensors" if bits > MAX_BITS else "lzma" if options.compress else "payload"


def _data(datamanager: object, options: Export) -> tuple[Optional[RunData], str]:
    """The run's data, and why they are not used or not there."""
    try:
        data = read_data(datamanager, options.data)
    except ValueError as error:
        if options.data is not None:
            raise ValueError(f"--data {error}") from error
        return None, f"{error}. Give the path of the data with --data where they have moved"
    return data, "--views 0"
