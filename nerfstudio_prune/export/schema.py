"""What a file of one large network says of itself: all that a renderer needs, as one text of JSON.

Names of layers are those of the host's modules, as in a checkpoint, in `ns-prune inspect` and in options of pruning.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Optional

import msgspec
from msgspec import Meta

VERSION = 1
"""Raised when an older reader could not render what a file holds."""
MAX_LAYERS = 64
"""Layers of a field."""
MAX_WIDTH = 4096
"""Neurons of a layer, and samples of a ray in one field."""
MAX_PARAMETERS = 50_000_000
"""Of both fields: 200 MB in single precision."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
Width = Annotated[int, Meta(ge=1, le=MAX_WIDTH)]
Distance = Annotated[float, Meta(ge=0, le=1e6)]
Coordinate = Annotated[float, Meta(ge=-1e9, le=1e9)]
Point = tuple[Coordinate, Coordinate, Coordinate]
Row = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
Name = Annotated[str, Meta(max_length=100)]
Bits = Literal[2, 3, 4, 5, 6, 7, 8, 16, 32]
"""Bits of a weight: a code with a scale for each row, or a number in half or single precision."""
Storage = Literal["tensors", "payload", "lzma"]
"""One tensor for each weight and bias; or all layers in one tensor of bytes, as they are or compressed."""


class Layer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A linear layer, as [rows, columns, bits]."""

    rows: Width
    """Outputs."""
    columns: Annotated[int, Meta(ge=1, le=2 * MAX_WIDTH)]
    """Inputs."""
    bits: Bits

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.rows * (self.columns + 1)


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The layers of a field, in forward order."""

    trunk: Annotated[list[Layer], Meta(min_length=1, max_length=MAX_LAYERS)]
    """Reads the encoded position."""
    density: Layer
    """Reads the trunk's output."""
    head: Annotated[list[Layer], Meta(max_length=MAX_LAYERS)]
    """Reads the encoded direction, then the trunk's output; empty in a field without colour."""
    colour: Optional[Layer]
    """Reads the head's output; null in a field without colour."""
    trained: Annotated[list[Width], Meta(max_length=2 * MAX_LAYERS)]
    """Widths of trunk and head when the training began, those without colour included."""

    def layers(self, field: str) -> Iterator[tuple[str, Layer]]:
        """Name and form of each layer.

        Args:
            field: Name of the field in the model.
        """
        for i, layer in enumerate(self.trunk):
            yield f"{field}.mlp_base.layers.{i}", layer
        yield density_name(field), self.density
        for i, layer in enumerate(self.head):
            yield f"{field}.mlp_head.layers.{i}", layer
        if self.colour is not None:
            yield colour_name(field), self.colour


def density_name(field: str) -> str:
    """Name of the layer whose output is the density of a field."""
    return f"{field}.field_output_density.net"


def colour_name(field: str) -> str:
    """Name of the layer whose output is the colour of a field."""
    return f"{field}.field_heads.0.net"


class Encoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sines and cosines of three coordinates, then the coordinates themselves where `input` says so.

    NeRF (Mildenhall et al. 2020, arXiv 2003.08934, equation 4), with the host's factor of 2π.
    """

    frequencies: Annotated[int, Meta(ge=1, le=32)]
    lowest: Annotated[float, Meta(ge=0, le=32)]
    """Exponent of the lowest frequency: 2^lowest periods in a unit of length."""
    highest: Annotated[float, Meta(ge=0, le=32)]
    input: bool

    @property
    def width(self) -> int:
        """Numbers that a point becomes."""
        return 6 * self.frequencies + 3 * self.input


class Activations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What follows each kind of layer."""

    hidden: Literal["relu"] = "relu"
    density: Literal["softplus"] = "softplus"
    colour: Literal["sigmoid"] = "sigmoid"


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Samples of a ray."""

    spacing: Literal["uniform", "piecewise"]
    """Of the coarse samples: even in distance, or half of them even up to distance 1 and the others in disparity."""
    coarse: Width
    """Samples of the coarse field."""
    fine: Width
    """Samples that are drawn by the coarse field's weights; the fine field is evaluated at `coarse + fine + 1`."""
    padding: Annotated[float, Meta(ge=0, le=1)]
    """Added to each weight before they are drawn by."""


class Collider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where rays begin and end, in units of the scene."""

    near: Distance
    """In pictures."""
    far: Distance
    trained_near: Distance
    """In training."""


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the scene lies in the space of its data; null where that is not known."""

    box: Optional[tuple[Point, Point]]
    """Two corners, in units of the scene."""
    transform: Optional[tuple[Row, Row, Row]]
    """Matrix [R | t] from the data's space to the scene's, before the scale."""
    scale: Optional[Annotated[float, Meta(gt=0, le=1e9)]]
    """Units of the scene in a unit of the data."""
    cameras: Literal["opengl"] = "opengl"
    """Camera-to-world matrices: x to the right, y up, the camera looks along -z."""


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pruning event."""

    step: Count
    strategy: Name
    before: Optional[Count]
    """Parameters before; null where the checkpoint does not say."""
    after: Optional[Count]


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="nerf"):
    """All that stands under the key `nerfstudio_prune` in a file of one large network."""

    crc32: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
    """Check sum of this text, with zeros in place of the sum, and of all tensors in the order of the layers."""
    version: Literal[1]
    storage: Storage
    coarse: Field
    """Without colour: it only places the samples."""
    fine: Field
    position: Encoding
    direction: Encoding
    skips: Annotated[list[Annotated[int, Meta(ge=1, lt=MAX_LAYERS)]], Meta(max_length=MAX_LAYERS)]
    """Trunk layers that read the encoded position again, before the hidden features."""
    activations: Activations
    sampling: Sampling
    collider: Collider
    background: Literal["white", "black", "random", "last_sample"]
    """What is behind the scene; random is black in pictures, last_sample the colour of the ray's last sample."""
    contraction: Optional[Literal["unit_ball"]]
    """Unbounded space into the unit ball: mip-NeRF 360 (arXiv 2111.12077, equation 10), halved."""
    scene: Scene
    method: Name
    step: Count
    """Training step of the checkpoint."""
    cuts: Annotated[list[Cut], Meta(max_length=1000)]
    versions: Annotated[dict[Name, Name], Meta(max_length=16)]
    """Of the libraries that the file was written with."""

    @property
    def fields(self) -> dict[str, Field]:
        """The fields by their names in the model."""
        return {"field_coarse": self.coarse, "field_fine": self.fine}

    def layers(self) -> dict[str, Layer]:
        """Name of each layer -> its form, in the order in which they are stored."""
        return {name: layer for field, own in self.fields.items() for name, layer in own.layers(field)}

    def blobs(self) -> dict[str, int]:
        """Name of each tensor of bytes beside the layers -> bytes of it before it is compressed."""
        return {}

    @property
    def planes(self) -> tuple[float, float]:
        """Where rays begin and end in training, in units of the scene."""
        return self.collider.trained_near, self.collider.far

    @property
    def unbounded(self) -> bool:
        """Whether the scene is a contracted one."""
        return self.contraction is not None

    @property
    def parameters(self) -> int:
        """Weights and biases of all layers."""
        return sum(layer.parameters for layer in self.layers().values())
