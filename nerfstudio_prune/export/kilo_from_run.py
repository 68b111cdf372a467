"""What of a finished run of tiny networks goes into a file."""

from importlib.metadata import version

import msgspec
import torch
from torch import Tensor

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.container import NO_SUM
from nerfstudio_prune.export.from_run import LIBRARIES
from nerfstudio_prune.export.kilo_schema import CELLS, WIDTHS, Class, Grid, KiloMetadata, Networks, Steps
from nerfstudio_prune.export.layers import LayerTensors, check_finite, to_bytes
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.schema import VERSION, Scene, Storage
from nerfstudio_prune.export.writing import encode_file
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.march import Lattice

END_BITS = 8
"""Bits that layers which density and colour come out of have at least."""


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
        names = {f"hidden.{i}": str(i + 1) for i in range(stack.shape.num_layers)}
        for layer, name in {**names, "density": "_density", "feature": "_feature", "colour": "_rgb"}.items():
            weight = own[f"w{name}"].transpose(1, 2).flatten(0, 1).contiguous()
            found[f"stacks.{index}.{layer}"] = LayerTensors(weight, own[f"b{name}"].flatten())
    for name, layer in found.items():
        for part in ("weight", "bias"):
            check_finite(getattr(layer, part), f"{name}.{part} of the checkpoint")
    return found


def blobs_of(model: KiloModel) -> dict[str, bytes]:
    """What is occupied, and the class of each network.

    Args:
        model: The model, with cells.
    """
    live, _ = _cells(model)
    counts = torch.tensor(model.networks.counts)
    classes = torch.arange(len(counts), dtype=torch.uint8).repeat_interleave(counts)
    return {
        CELLS: to_bytes(live.to_dict()["voxels"]),
        WIDTHS: to_bytes(classes[model.networks.position.cpu().long()]),
    }


def describe_kilo(run: SavedRun[KiloModel], bits: int, storage: Storage, scene: Scene) -> KiloMetadata:
    """What a file says of a run.

    Args:
        run: The run.
        bits: Bits of a weight, in [2, 8], 16 or 32.
        storage: How its numbers are stored.
        scene: See `from_run.scene_of`.

    Raises:
        ValueError: If nothing has been made of a teacher yet, or something about it has no place in a file.
    """
    model = run.model
    live, lattice = _cells(model)
    shape, ends = model.networks.shapes[0], max(bits, END_BITS)
    classes = [Class(own.hidden_width, n) for own, n in zip(model.networks.shapes, model.networks.counts, strict=True)]
    # As the layers stand: hidden ones, density, the colour's hidden one, colour.
    every = [*[bits] * shape.num_layers, ends, bits, ends]
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
            every,  # type: ignore[arg-type]
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


def kilo_content(run: SavedRun[KiloModel], numbers: Numbers, scene: Scene) -> bytes:
    """The content of a file.

    Args:
        run: The run.
        numbers: What the weights are to be: of the same bits in all layers.
        scene: See `from_run.scene_of`.

    Raises:
        ValueError: If nothing has been made of a teacher yet, or something about it has no place in a file.
    """
    layers = layers_of_networks(run.model)
    metadata = describe_kilo(run, int(numbers.bits), numbers.storage, scene)
    return encode_file(metadata, layers, blobs=blobs_of(run.model))


def _cells(model: KiloModel) -> tuple[LiveCells, Lattice]:
    live, lattice = model.cells.live, model.cells.lattice_of_rays
    if live is None or lattice is None:
        raise refuse("run", "networks", "a checkpoint from before anything was made of the teacher")
    return live, lattice


def _point(values: Tensor) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
