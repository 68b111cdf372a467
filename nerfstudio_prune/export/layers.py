"""The numbers of a layer, as bytes of a payload or as tensors of their own.

In a payload each layer is its codes, row by row, then a scale and a bias in half precision for each row, as they are
in the memory of all usual machines (little-endian).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.packing import pack, packed_bytes, unpack
from nerfstudio_prune.export.rounding import dequantize, largest_level, quantize
from nerfstudio_prune.export.schema import Layer

DTYPES = {16: torch.float16, 32: torch.float32}
"""Bits of a weight that has a tensor of its own -> its type."""
MAX_SCALE = 1e4
"""Of a row."""
ROWS_AT_ONCE = 64
"""Rows that are unpacked at once, a multiple of 8, so that they begin with a byte."""


@dataclass(frozen=True)
class LayerTensors:
    """Weight and bias of a linear layer."""

    weight: Float[Tensor, "rows columns"]
    bias: Float[Tensor, " rows"]


@dataclass(frozen=True)
class RoundedLayer:
    """A linear layer as it is stored in a payload."""

    codes: UInt8[Tensor, "rows columns"]
    """See `rounding.quantize`."""
    scales: Float16[Tensor, " rows"]
    """What one level is worth in each row."""
    bias: Float16[Tensor, " rows"]


def layer_bytes(layer: Layer) -> int:
    """Bytes that a layer takes in a payload.

    Args:
        layer: Its form; of at most 8 bits.
    """
    return packed_bytes(layer.rows * layer.columns, layer.bits) + 4 * layer.rows


def round_to_nearest(tensors: LayerTensors, bits: int, name: str) -> RoundedLayer:
    """Rounds every weight of a layer to the nearest level.

    Args:
        tensors: Finite numbers.
        bits: Bits of a weight, in [2, 8].
        name: Name of the layer, for errors.

    Raises:
        FileFormatError: If a weight or bias is too large for half precision.
    """
    try:
        codes, scales = quantize(tensors.weight, bits)
    except ValueError as error:
        raise refuse(f"{name}.weight", "weights that half-precision scales reach", str(error)) from error
    return RoundedLayer(codes, scales, as_type(tensors.bias, 16, f"{name}.bias"))


def encode_layer(layer: RoundedLayer, bits: int, name: str) -> bytes:
    """The bytes of a layer in a payload.

    Args:
        layer: Its numbers.
        bits: Bits of a weight, in [2, 8].
        name: Name of the layer, for errors.

    Raises:
        FileFormatError: If a scale is larger than a reader takes, or a bias is not finite.
    """
    check_finite(layer.bias, f"{name}.bias")
    if float(layer.scales.max()) > MAX_SCALE:
        raise refuse(f"{name}.weight", f"scales of at most {MAX_SCALE:g}", f"{float(layer.scales.max()):g}")
    return b"".join(map(to_bytes, (pack(layer.codes.flatten(), bits), layer.scales, layer.bias)))


def decode_layers(payload: memoryview, forms: Mapping[str, Layer]) -> Iterator[tuple[str, LayerTensors]]:
    """Name and numbers, in single precision, of each layer of a payload.

    Args:
        payload: Bytes that can be written to, as many as the layers take.
        forms: Name -> form, in their order.

    Raises:
        FileFormatError: If a code, scale or bias is none that could have been written.
    """
    begin = 0
    for name, layer in forms.items():
        end = begin + layer_bytes(layer)
        yield name, _decode_layer(payload[begin:end], layer, name)
        begin = end


def _decode_layer(content: memoryview, layer: Layer, name: str) -> LayerTensors:
    """Some rows at a time: between the bytes and the numbers of a layer, nothing of its size is made."""
    values = torch.frombuffer(content, dtype=torch.uint8)
    packed, numbers = values.split([len(values) - 4 * layer.rows, 4 * layer.rows])
    scales, bias = numbers.clone().view(torch.float16).split(layer.rows)
    check_finite(scales, f"{name}, scales")
    check_finite(bias, f"{name}.bias")
    if not 0 <= float(scales.min()) <= float(scales.max()) <= MAX_SCALE:
        found = f"{float(scales.min()):g} to {float(scales.max()):g}"
        raise refuse(f"{name}, scales", f"numbers from 0 to {MAX_SCALE:g}", found)
    weight = torch.empty(layer.rows, layer.columns)
    for begin in range(0, layer.rows, ROWS_AT_ONCE):
        part = weight[begin : begin + ROWS_AT_ONCE]
        start = packed_bytes(begin * layer.columns, layer.bits)
        own = packed[start : start + packed_bytes(part.numel(), layer.bits)]
        try:
            codes = unpack(own, layer.bits, part.numel()).view_as(part)
        except ValueError as error:
            raise refuse(name, "packed codes", str(error)) from error
        top = 2 * largest_level(layer.bits)
        if int(codes.max()) > top:
            raise refuse(name, f"codes of at most {top}", str(int(codes.max())))
        part.copy_(dequantize(codes, scales[begin : begin + ROWS_AT_ONCE], layer.bits))
    return LayerTensors(weight, bias.float())


def as_type(values: Tensor, bits: int, name: str) -> Tensor:
    """Numbers in half or single precision.

    Args:
        values: Finite numbers.
        bits: 16 or 32.
        name: What they are called in an error.

    Raises:
        FileFormatError: If one is too large for the type.
    """
    converted = values.to(DTYPES[bits]).contiguous()
    if not torch.isfinite(converted).all():
        largest = torch.finfo(DTYPES[bits]).max
        raise refuse(name, f"numbers within ±{largest:g}", f"{float(values.abs().max()):.3g}")
    return converted


def check_finite(values: Tensor, name: str) -> None:
    """Checks that all numbers are finite.

    Args:
        values: Numbers from a file.
        name: What they are called in an error.

    Raises:
        FileFormatError: If one is not.
    """
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise refuse(name, "finite numbers", f"{bad} of {values.numel()} that are not")


def tensors_of(layers: Mapping[str, LayerTensors], forms: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Every weight and bias as a tensor of its own, in the type that its layer asks for.

    Args:
        layers: The numbers.
        forms: Their forms, of 16 or 32 bits.

    Raises:
        FileFormatError: If a number is too large for its type.
    """
    return {
        f"{name}.{part}": as_type(getattr(layers[name], part), layer.bits, f"{name}.{part}")
        for name, layer in forms.items()
        for part in ("weight", "bias")
    }


def to_bytes(values: Tensor) -> bytes:
    """The bytes of a tensor, as they are in the memory.

    Args:
        values: A tensor of any type.
    """
    # A single number may have any stride, and counts as contiguous all the same.
    return bytes(values.flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy())
