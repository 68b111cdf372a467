"""Bits of tiny networks: each network may have others for each of its layers.

Of a layer whose networks differ a file holds several: the networks of 2 bits, those of 3, and so on, each in the order
of the cells. Names of these end in their bits.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.kilo_schema import BITS, MIXED, WIDTHS, KiloMetadata, layer_names
from nerfstudio_prune.export.layers import LayerTensors, RoundedLayer

Table = UInt8[Tensor, "layers networks"]
"""Bits of each layer of each network; layers as in `layer_names`, networks in the order of the cells."""
AnyLayer = TypeVar("AnyLayer", LayerTensors, RoundedLayer)


def noted(table: Table, classes: UInt8[Tensor, " networks"], widths: int) -> list[Any]:
    """Bits as `Networks.bits` has them.

    Args:
        table: The bits.
        classes: Number of the width of each network.
        widths: How many widths there are.
    """
    return [
        [[int((row[classes == i] == bits).sum()) for bits in MIXED] for i in range(widths)]
        if _differs(row)
        else int(row[0])
        for row in table
    ]


def blob_of(table: Table) -> bytes:
    """Bits of the layers whose networks differ, as `KiloMetadata.blobs` has them.

    Args:
        table: The bits.
    """
    return b"".join(bytes(row.tolist()) for row in table if _differs(row))


def _differs(row: UInt8[Tensor, " networks"]) -> bool:
    return bool((row != row[0]).any())


def split(layers: Mapping[str, AnyLayer], table: Table, classes: UInt8[Tensor, " networks"]) -> dict[str, AnyLayer]:
    """Layers as a file holds them.

    Args:
        layers: `stacks.I.NAME` -> a layer of all networks of one width, rows in the order of the cells.
        table: The bits.
        classes: Number of the width of each network.
    """
    found = {}
    rows_of = dict(zip(layer_names(len(table) - 3), table, strict=True))
    for name, layer in layers.items():
        _, index, kind = name.split(".", 2)
        row = rows_of[kind]
        if not _differs(row):
            found[name] = layer
            continue
        own = row[classes == int(index)]
        values = [getattr(layer, field.name) for field in fields(layer)]
        for bits in own.unique().tolist():
            rows = _rows(own == bits, len(values[0]))
            found[f"{name}.{bits}"] = type(layer)(*(value[rows] for value in values))
    return found


class Joined:
    """The inverse of `split`, one layer at a time: all networks of one width.

    Args:
        metadata: What a file says of itself.
        layers: Its layers.
        blobs: Its widths, which fit, and bits.

    Raises:
        FileFormatError: If the bits are not those that the metadata say.
    """

    def __init__(self, metadata: KiloMetadata, layers: Mapping[str, LayerTensors], blobs: Mapping[str, bytes]) -> None:
        self.layers, networks = layers, metadata.networks
        self.rows: dict[str, Tensor] = {}
        self.classes = torch.frombuffer(bytearray(blobs[WIDTHS]), dtype=torch.uint8)
        rest = blobs.get(BITS, b"")
        for name, noted in zip(layer_names(networks.layers), networks.bits, strict=True):
            if isinstance(noted, int):
                continue
            own, rest = rest[: networks.count], rest[networks.count :]
            row = self.rows[name] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
            for index, counts in enumerate(noted):
                found = row[self.classes == index].int().bincount(minlength=MIXED.stop)
                if found[MIXED.start :].tolist() != counts:
                    raise refuse(BITS, f"{counts} networks of {MIXED.start}, {MIXED.start + 1}, ... bits", "others")

    def layer(self, index: int, name: str) -> LayerTensors:
        """A layer of all networks of one width, rows in the order of the cells.

        Args:
            index: Number of the width.
            name: Name of the layer.
        """
        whole = f"stacks.{index}.{name}"
        if name not in self.rows:
            return self.layers[whole]
        own = self.rows[name][self.classes == index]
        parts = {bits: self.layers[f"{whole}.{bits}"] for bits in own.unique().tolist()}
        weight, bias = (torch.cat(values) for values in zip(*((p.weight, p.bias) for p in parts.values()), strict=True))
        order = torch.cat([_rows(own == bits, len(weight)) for bits in parts]).argsort()
        return LayerTensors(weight[order], bias[order])


def _rows(wanted: Tensor, rows: int) -> Int64[Tensor, " some"]:
    """Numbers of the rows of some networks.

    Args:
        wanted: Whether each network is one of them.
        rows: Rows of all networks.
    """
    return torch.arange(rows).view(len(wanted), -1)[wanted].flatten()
