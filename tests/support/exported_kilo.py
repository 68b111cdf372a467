"""Tiny networks by hand, as files of `ns-prune export`."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.from_run import scene_of
from nerfstudio_prune.export.kilo_bits import Table, split
from nerfstudio_prune.export.kilo_from_run import blobs_of, classes_of, describe_kilo, layers_of_networks, same_bits
from nerfstudio_prune.export.schema import Storage
from nerfstudio_prune.export.writing import encode_file
from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilo.model import KiloModel, KiloModelConfig
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilonerf.cells import CellGrid, LiveCells
from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.kilonerf.shape import NetworkShape

SHAPE = NetworkShape(8, 2, 2, 1)
COUNTS = (3, 0, 2)
"""Networks of the narrower widths, where there are such."""


def kilo_model(background: Any = "white", contracted: bool = False, narrows: bool = False) -> KiloModel:
    """Cells around the middle with networks that differ, some voxels of which are empty.

    Args:
        background: Colour behind the scene.
        contracted: Whether the cells lie in the ball that unbounded space is contracted into.
        narrows: Whether networks have several widths, in no order.
    """
    generator = torch.Generator().manual_seed(0)
    side, near, far = (0.5, 0.05, 100.0) if contracted else (0.6, 2.5, 6.0)
    grid = CellGrid(torch.full((3,), -2 * side), side, (4, 4, 4), 3)
    live = LiveCells(grid, torch.rand(12, 12, 12, generator=generator) < 0.3)
    lattice = Lattice(near, far, 50, "piecewise" if contracted else "uniform")
    model: Any = KiloModelConfig().setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1)
    model.make_room(SHAPE, narrows)
    state = KiloState(KiloOptions.from_plain({}), background, "digest", 3, "contracted" if contracted else "bounded")
    model.begin(live, lattice, SHAPE, state)
    if narrows:
        counts = [*COUNTS, live.count - sum(COUNTS)]
        model.networks.resize_(counts, torch.randperm(live.count, generator=generator).int())
    with torch.no_grad():
        for parameter in model.networks.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
    model.requires_grad_(False)
    return model.eval()


def kilo_content(model: KiloModel, storage: Storage = "tensors", bits: int = 32, mixed: bool = False) -> bytes:
    """A model as the bytes of a file; with mixed bits they are those of `mixed_table`."""
    folder = Path("nowhere")
    config: Any = deepcopy(all_methods["kilonerf"])
    run: Any = SavedRun(config, folder / "config.yml", folder / "x.ckpt", 9, model)
    table = mixed_table(model) if mixed else same_bits(model, bits)
    metadata = describe_kilo(run, table, storage, scene_of(run.config_file, None))
    layers = split(layers_of_networks(model), table, classes_of(model))
    return encode_file(metadata, layers, blobs=blobs_of(model, table))


def mixed_table(model: KiloModel) -> Table:
    """Bits at random for all networks, but of one layer, which has three in all."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randint(2, 9, same_bits(model, 8).shape, generator=generator, dtype=torch.uint8)
    table[1] = 3
    return table


def write_kilo(path: Path, model: KiloModel, storage: Storage = "tensors", bits: int = 32, mixed: bool = False) -> Path:
    """Writes a model to a file."""
    path.write_bytes(kilo_content(model, storage, bits, mixed))
    return path
