"""Tensors that come from files: what they may be before anything is copied from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""Types of weights and moments that can be copied into each other."""


def check_tensor(value: Any, where: str, dtypes: tuple[torch.dtype, ...] = FLOATS, finite: bool = True) -> None:
    """Checks that a value is a plain tensor whose memory is really there.

    Args:
        value: What a file holds.
        where: What it is called in an error.
        dtypes: Types of number that it may have.
        finite: Whether every number must be finite.

    Raises:
        ValueError: Names the place, what was found and what was expected.
    """
    if type(value) not in (Tensor, nn.Parameter):
        raise ValueError(f"{where}: expected a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        kind = "quantized" if value.is_quantized else f"{value.layout} on {value.device.type}"
        raise ValueError(f"{where}: expected a dense tensor, got one that is {kind}")
    if value.dtype not in dtypes:
        raise ValueError(f"{where}: expected {' or '.join(map(str, dtypes))}, got {value.dtype}")
    held, needed = value.untyped_storage().nbytes(), value.numel() * value.element_size()
    if held < needed:
        raise ValueError(
            f"{where}: a tensor of shape {tuple(value.shape)} takes {needed:,} bytes, and the file holds {held:,} of it"
        )
    if finite and value.is_floating_point():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise ValueError(f"{where}: {bad} of {value.numel()} values are not finite")


def check_storage(tensors: Mapping[str, Tensor], where: str) -> None:
    """Checks that tensors do not share their memory, so that together they take no more than the file holds.

    Args:
        tensors: Checked tensors by name.
        where: What they are called in an error.

    Raises:
        ValueError: If they would take more.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    held, needed = sum(storages.values()), sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if held < needed:
        raise ValueError(f"{where}: {len(tensors)} tensors take {needed:,} bytes, and the file holds {held:,} of them")


def different_keys(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """What names differ in, in words.

    Args:
        missing: Names that were expected and not found.
        unknown: Names that were found and not expected.
    """
    return "; ".join(
        f"{len(keys)} {label} entries ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for label, keys in (("missing", missing), ("unknown", unknown))
        if keys
    )
