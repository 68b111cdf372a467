"""Codes of a few bits, packed into bytes one behind the other, each from its lowest bit on (little-endian).

A code may begin in one byte and end in the next. Behind the last one the byte is filled with zeros.
"""

import torch
from jaxtyping import Int16, UInt8
from torch import Tensor

GROUP = 8
"""Codes that are a whole number of bytes, whatever their bits."""
CODES_AT_ONCE = GROUP * 2**17
"""Codes that are packed at once."""


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that codes take.

    Args:
        count: Number of codes.
        bits: Bits of each, in [1, 8].
    """
    return -(-count * bits // 8)


def pack(codes: UInt8[Tensor, " codes"], bits: int) -> UInt8[Tensor, " bytes"]:
    """Packs codes.

    Args:
        codes: Codes in [0, 2^bits).
        bits: Bits of each, in [1, 8].
    """
    return torch.cat([_packed(part, bits) for part in codes.split(CODES_AT_ONCE)])[: packed_bytes(len(codes), bits)]


def unpack(packed: UInt8[Tensor, " bytes"], bits: int, count: int) -> UInt8[Tensor, " codes"]:
    """Exactly the codes that were packed.

    Args:
        packed: What `pack` gave.
        bits: Bits of each code, in [1, 8].
        count: How many there are.

    Raises:
        ValueError: If there are not as many bytes as the codes take, or a bit behind the last one is not zero.
    """
    if len(packed) != packed_bytes(count, bits):
        raise ValueError(
            f"{count:,} codes of {bits} bits take {packed_bytes(count, bits):,} bytes, got {len(packed):,}"
        )
    used = (count * bits) % 8
    if used and int(packed[-1]) >> used:
        raise ValueError(f"the {8 - used} bits behind the last code must be zero")
    groups = _in_rows(packed, bits)
    codes = groups.new_empty(len(groups), GROUP)
    for i in range(GROUP):
        byte, shift = divmod(i * bits, 8)
        value = groups[:, byte]
        if shift + bits > 8:
            value = value | groups[:, byte + 1] << 8
        codes[:, i] = (value >> shift) & (2**bits - 1)
    return codes.flatten()[:count].to(torch.uint8)


def _packed(codes: UInt8[Tensor, " codes"], bits: int) -> UInt8[Tensor, " bytes"]:
    groups = _in_rows(codes, GROUP)
    found = groups.new_zeros(len(groups), bits)
    for i in range(GROUP):
        byte, shift = divmod(i * bits, 8)
        value = groups[:, i] << shift
        found[:, byte] |= value & 255
        if shift + bits > 8:
            found[:, byte + 1] |= value >> 8
    return found.flatten().to(torch.uint8)


def _in_rows(values: UInt8[Tensor, " values"], columns: int) -> Int16[Tensor, "rows columns"]:
    """Numbers in rows, the last of which is filled with zeros, in a type that two bytes fit in."""
    return torch.nn.functional.pad(values, (0, -len(values) % columns)).short().view(-1, columns)
