"""Weights as codes of a few bits: what is lost is told by hand-made numbers, what is packed comes back exactly."""

import pytest
import torch

from nerfstudio_prune.export.packing import CODES_AT_ONCE, pack, packed_bytes, unpack
from nerfstudio_prune.export.rounding import dequantize, largest_level, quantize


def test_rounds_to_the_nearest_level_of_each_row() -> None:
    """With three bits there are three levels on each side of zero; each row has its own scale, over its full range, and
    zero stays zero."""
    weight = torch.tensor([[3.0, -1.4, 1.6, 0.0], [0.25, -0.75, 0.6, 0.1], [0.0, 0.0, 0.0, 0.0]])
    codes, scales = quantize(weight, 3)
    assert codes.tolist() == [[6, 2, 5, 3], [4, 0, 5, 3], [3, 3, 3, 3]]
    assert scales.tolist() == [1.0, 0.25, 0.0]
    assert dequantize(codes, scales, 3).tolist() == [[3, -1, 2, 0], [0.25, -0.75, 0.5, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("size", [1.0, 1e-4, 3e-7, 1e4])
def test_no_weight_moves_by_more_than_half_a_level(bits: int, size: float) -> None:
    """Sizes reach from the smallest numbers of half precision, whose steps are coarse, to the largest: a scale that is
    rounded down there would cut off the largest weights."""
    weight = torch.randn(20, 33, generator=torch.Generator().manual_seed(bits)) * size
    codes, scales = quantize(weight, bits)
    assert int(codes.max()) <= 2 * largest_level(bits)
    moved = (dequantize(codes, scales, bits).double() - weight).abs()
    assert bool((moved <= scales.double()[:, None] * 0.5001).all())


def test_row_that_no_scale_reaches() -> None:
    """An infinite scale would be written, and the file refused by its own reader."""
    with pytest.raises(ValueError, match="1e\\+10 is too large"):
        quantize(torch.tensor([[1e10, 0.0]]), 8)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_packed_codes_are_one_number_in_base_two(bits: int, count: int) -> None:
    """The format has to be readable from its description: as one large little-endian number, code i stands at bit
    i times bits."""
    codes = torch.randint(2**bits, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(count, bits) == (count * bits + 7) // 8
    number = int.from_bytes(bytes(packed.tolist()), "little")
    assert number == sum(code << (i * bits) for i, code in enumerate(codes.tolist()))
    assert torch.equal(unpack(packed, bits, count), codes)


def test_large_layers_are_packed_in_parts() -> None:
    """The borders between parts must not show, in bits that are no part of a byte least of all."""
    codes = torch.randint(8, (CODES_AT_ONCE + 5,), dtype=torch.uint8)
    assert torch.equal(unpack(pack(codes, 3), 3, len(codes)), codes)


def test_bytes_that_no_codes_are() -> None:
    """What comes from a file may be of any length, and have anything behind its last code."""
    packed = pack(torch.tensor([1, 2, 3], dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="3 codes of 3 bits take 2 bytes, got 1"):
        unpack(packed[:1], 3, 3)
    with pytest.raises(ValueError, match="the 7 bits behind the last code"):
        unpack(packed | torch.tensor([0, 2], dtype=torch.uint8), 3, 3)
