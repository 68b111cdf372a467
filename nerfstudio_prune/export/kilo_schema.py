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
CELLS, WIDTHS = "cells", "widths"
"""Names of the tensors of what is occupied, and of the width of each network."""

Side = Annotated[int, Meta(ge=1, le=2**24)]


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
    bits: Annotated[list[Bits], Meta(min_length=4, max_length=MAX_LAYERS)]
    """Of a weight, for each layer: hidden ones, density, the colour's hidden one, colour."""

    @property
    def count(self) -> int:
        """Networks of all widths."""
        return sum(own.count for own in self.classes)

    def stack(self, index: int) -> Iterator[tuple[str, Layer]]:
        """Name and form of each layer of the networks of one width; the rows are those of all its networks.

        Args:
            index: Number of the class.
        """
        own = self.classes[index]
        inputs, seen = encoded_width(self.position), encoded_width(self.direction)
        shapes = [(f"hidden.{i}", own.width, inputs if i == 0 else own.width) for i in range(self.layers)]
        shapes += [("density", 1, own.width), ("feature", own.width, own.width + seen), ("colour", 3, own.width)]
        for (name, rows, columns), bits in zip(shapes, self.bits, strict=True):
            yield f"stacks.{index}.{name}", Layer(own.count * rows, columns, bits)


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
        z running fastest, the lowest bit of a byte first; and the number of its class for each network, in the order of
        the cells."""
        return {CELLS: ceil(self.grid.voxels / 8), WIDTHS: self.networks.count}

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
