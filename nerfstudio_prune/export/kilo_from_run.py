"""What of a finished run of tiny networks goes into a file."""

from importlib.metadata import version

import msgspec
import torch
from jaxtyping import UInt8
from torch import Tensor

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.container import NO_SUM
from nerfstudio_prune.export.from_run import LIBRARIES
from nerfstudio_prune.export.kilo_bits import Table, blob_of, noted
from nerfstudio_prune.export.kilo_schema import (
    BITS,
    CELLS,
    WIDTHS,
    Class,
    Grid,
    KiloMetadata,
    Networks,
    Steps,
    layer_names,
    parameter_names,
)
from nerfstudio_prune.export.layers import LayerTensors, check_finite, to_bytes
from nerfstudio_prune.export.schema import VERSION, Scene, Storage
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.march import Lattice

ENDS, END_BITS = ("density", "colour"), 8
"""Layers that density and colour come out of, and the bits that they have at least, unless bits are mixed."""


def layers_of_networks(model: KiloModel) -> dict[str, LayerTensors]:
    """The layers of all networks: rows are those of all networks of one width, one after the other, in the order of
    their cells.

    Args:
        model: The model.

    Raises:
        FileFormatError: If a weight is not finite.
    """
    found = {}
    order = model.networks.position.argsort()
    for index, (stack, networks) in enumerate(zip(model.networks, order.split(model.networks.counts), strict=True)):
        if not stack.num_networks:
            continue
        rows = networks.argsort()  # a class keeps the order of the cells in a file
        own = {name: p.detach().float().cpu()[rows.cpu()] for name, p in stack.named_parameters()}
        own["w_feature"] = torch.cat([own["w_feature"], own["w_direction"]], dim=1)
        for layer, name in parameter_names(stack.shape.num_layers).items():
            weight = own[f"w{name}"].transpose(1, 2).flatten(0, 1).contiguous()
            found[f"stacks.{index}.{layer}"] = LayerTensors(weight, own[f"b{name}"].flatten())
    for name, layer in found.items():
        for part in ("weight", "bias"):
            check_finite(getattr(layer, part), f"{name}.{part} of the checkpoint")
    return found


def classes_of(model: KiloModel) -> UInt8[Tensor, " networks"]:
    """Number of the width of each network, in the order of the cells.

    Args:
        model: The model.
    """
    counts = torch.tensor(model.networks.counts)
    classes = torch.arange(len(counts), dtype=torch.uint8).repeat_interleave(counts)
    return classes[model.networks.position.cpu().long()]


def same_bits(model: KiloModel, bits: int) -> Table:
    """As many bits for each network; layers that density and colour come out of have eight at least.

    Args:
        model: The model.
        bits: Bits of a weight, in [2, 8], 16 or 32.
    """
    every = [max(bits, END_BITS) if name in ENDS else bits for name in layer_names(model.networks.shapes[0].num_layers)]
    return torch.tensor(every, dtype=torch.uint8)[:, None].repeat(1, model.networks.num_networks)


def blobs_of(model: KiloModel, table: Table) -> dict[str, bytes]:
    """What is occupied, the class of each network, and bits of those that differ.

    Args:
        model: The model, with cells.
        table: Bits of all networks.
    """
    live, _ = _cells(model)
    return {
        CELLS: to_bytes(live.to_dict()["voxels"]),
        WIDTHS: to_bytes(classes_of(model)),
        BITS: blob_of(table),
    }


def describe_kilo(run: SavedRun[KiloModel], table: Table, storage: Storage, scene: Scene) -> KiloMetadata:
    """What a file says of a run.

    Args:
        run: The run.
        table: Bits of all networks.
        storage: How its numbers are stored.
        scene: See `from_run.scene_of`.

    Raises:
        ValueError: If nothing has been made of a teacher yet, or something about it has no place in a file.
    """
    model = run.model
    live, lattice = _cells(model)
    shape = model.networks.shapes[0]
    classes = [Class(own.hidden_width, n) for own, n in zip(model.networks.shapes, model.networks.counts, strict=True)]
    metadata = KiloMetadata(
        crc32=NO_SUM,
        version=VERSION,
        storage=storage,
        grid=Grid(_point(live.grid.lower), live.grid.cell_size, live.grid.shape, live.grid.refine),
        networks=Networks(
            shape.num_layers,
            shape.position_frequencies,
            shape.direction_frequencies,
            classes,
            noted(table, classes_of(model), len(classes)),
        ),
        steps=Steps(lattice.near, lattice.far, lattice.steps),
        space=model.state.space,
        threshold=model.config.transmittance_threshold,
        background=model.state.background,
        scene=scene,
        method=str(run.config.method_name)[:100],
        step=run.step,
        versions={name: version(name) for name in LIBRARIES},
    )
    try:
        return msgspec.convert(msgspec.to_builtins(metadata), KiloMetadata)
    except msgspec.ValidationError as error:
        raise refuse("run", "values within the limits of a file", str(error)) from error


def _cells(model: KiloModel) -> tuple[LiveCells, Lattice]:
    live, lattice = model.cells.live, model.cells.lattice_of_rays
    if live is None or lattice is None:
        raise refuse("run", "networks", "a checkpoint from before anything was made of the teacher")
    return live, lattice


def _point(values: Tensor) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
