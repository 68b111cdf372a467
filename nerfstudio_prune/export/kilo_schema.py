"""What a file of tiny networks says of itself; see `schema.py` for that of one large network."""

from collections.abc import Iterator
from math import ceil, prod
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from nerfstudio_prune.export.schema import (
    MAX_LAYERS,
    Bits,
    Count,
    Distance,
    Layer,
    Name,
    Point,
    Scene,
    Storage,
    Width,
)
from nerfstudio_prune.kilonerf.encoding import encoded_width

MAX_NETWORKS = 1_000_000
"""Of all widths together."""
MAX_CLASSES = 16
"""Widths that networks may have."""
MAX_STEPS = 16_384
"""Steps of a ray."""
CELLS, WIDTHS, BITS = "cells", "widths", "bits"
"""Names of the tensors of what is occupied, of the width of each network, and of the bits of each of its layers."""
MIXED = range(2, 9)
"""Bits that networks may differ in."""

Side = Annotated[int, Meta(ge=1, le=2**24)]
BitCounts = Annotated[list[Annotated[int, Meta(ge=0, le=MAX_NETWORKS)]], Meta(min_length=7, max_length=7)]
"""Networks of one width that have 2, 3, ..., 8 bits."""


def layer_names(layers: int) -> list[str]:
    """Names of the layers of a network, in forward order.

    Args:
        layers: Hidden layers in front of the density.
    """
    return [*(f"hidden.{i}" for i in range(layers)), "density", "feature", "colour"]


def parameter_names(layers: int) -> dict[str, str]:
    """Name of each layer -> what the names of its parameters in a checkpoint end in.

    Args:
        layers: Hidden layers in front of the density.
    """
    hidden = (str(i + 1) for i in range(layers))
    return dict(zip(layer_names(layers), [*hidden, "_density", "_feature", "_rgb"], strict=True))


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cubic cells of a box, each of cubic voxels."""

    lower: Point
    """Lower corner of the box, in units of the space of the cells."""
    size: Annotated[float, Meta(gt=0, le=1e9)]
    """Side of a cell."""
    shape: tuple[Side, Side, Side]
    """Cells along x, y and z."""
    refine: Side
    """Voxels along the side of a cell."""

    @property
    def voxels(self) -> int:
        """Voxels of the whole box."""
        return prod(self.shape) * self.refine**3


class Class(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Networks of one width, as [width, count]."""

    width: Width
    """Neurons of each hidden layer."""
    count: Annotated[int, Meta(ge=0, le=MAX_NETWORKS)]


class Networks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tiny networks: encoded position -> hidden layers -> density, and with the direction -> one layer -> colour.

    KiloNeRF (Reiser et al. 2021, arXiv 2103.13744, figure 2), without the linear layer between trunk and colour.
    """

    layers: Annotated[int, Meta(ge=1, le=MAX_LAYERS - 3)]
    """Hidden layers in front of the density."""
    position: Annotated[int, Meta(ge=0, le=32)]
    """Frequencies of the position's encoding, with x from -1 to 1 in a cell: x, then sin and cos of π/2 · 2^k · x."""
    direction: Annotated[int, Meta(ge=0, le=32)]
    """Frequencies of the direction's encoding."""
    classes: Annotated[list[Class], Meta(min_length=1, max_length=MAX_CLASSES)]
    """By ascending width."""
    bits: Annotated[
        list[Bits | Annotated[list[BitCounts], Meta(max_length=MAX_CLASSES)]],
        Meta(min_length=4, max_length=MAX_LAYERS),
    ]
    """Of a weight, for each layer: hidden ones, density, the colour's hidden one, colour. A number; or, for each width,
    how many networks have which."""

    @property
    def count(self) -> int:
        """Networks of all widths."""
        return sum(own.count for own in self.classes)

    def stack(self, index: int) -> Iterator[tuple[str, Layer]]:
        """Name and form of each layer of the networks of one width; the rows are those of all its networks, or of all
        that have as many bits.

        Args:
            index: Number of the class.
        """
        own = self.classes[index]
        inputs, seen = encoded_width(self.position), encoded_width(self.direction)
        shapes = [(own.width, inputs if i == 0 else own.width) for i in range(self.layers)]
        shapes += [(1, own.width), (own.width, own.width + seen), (3, own.width)]
        for kind, (rows, columns), bits in zip(layer_names(self.layers), shapes, self.bits, strict=True):
            name = f"stacks.{index}.{kind}"
            if isinstance(bits, int):
                yield name, Layer(own.count * rows, columns, bits)
                continue
            for each, count in zip(MIXED, bits[index], strict=True):
                if count:
                    yield f"{name}.{each}", Layer(count * rows, columns, each)  # type: ignore[arg-type]


class Steps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps of rays in training; in pictures of the world they begin at the camera, a whole number of steps before."""

    near: Distance
    far: Distance
    count: Annotated[int, Meta(ge=1, le=MAX_STEPS)]


class KiloMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="kilonerf"):
    """All that stands under the key `nerfstudio_prune` in a file of tiny networks."""

    crc32: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
    """As in `schema.Metadata`."""
    version: Literal[1]
    storage: Storage
    grid: Grid
    networks: Networks
    steps: Steps
    space: Literal["bounded", "contracted"]
    """The cells lie in the world, or in the unit ball that it is contracted into."""
    threshold: Annotated[float, Meta(ge=0, lt=1)]
    """Light below which a ray need not be followed further."""
    background: Literal["white", "black", "random", "last_sample"]
    """As in `schema.Metadata`."""
    scene: Scene
    method: Name
    step: Count
    versions: Annotated[dict[Name, Name], Meta(max_length=16)]

    def layers(self) -> dict[str, Layer]:
        """Name of each layer -> its form, in the order in which they are stored; classes without networks have none."""
        classes = range(len(self.networks.classes))
        every = (layer for i in classes if self.networks.classes[i].count for layer in self.networks.stack(i))
        return dict(every)

    def blobs(self) -> dict[str, int]:
        """Name of each tensor of bytes beside the layers -> bytes of it before it is compressed: a bit for each voxel,
        z running fastest, the lowest bit of a byte first; the number of its class for each network, in the order of
        the cells; and, in the same order, its bits, for one layer after the other whose networks differ."""
        found = {CELLS: ceil(self.grid.voxels / 8), WIDTHS: self.networks.count}
        differing = sum(not isinstance(bits, int) for bits in self.networks.bits)
        return {**found, BITS: differing * self.networks.count} if differing else found

    @property
    def parameters(self) -> int:
        """Weights and biases of all networks."""
        return sum(layer.parameters for layer in self.layers().values())

    @property
    def planes(self) -> tuple[float, float]:
        """Where rays begin and end in training, in units of the scene."""
        return self.steps.near, self.steps.far

    @property
    def unbounded(self) -> bool:
        """Whether the scene is a contracted one."""
        return self.space == "contracted"
