"""The parts of the packed file against brute force: places, rotations, tables, steps."""

import zlib

import numpy as np
import pytest
import torch
from support.splats_by_hand import drawn

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.canonical import quaternions_of, smallest_rotations
from nerfstudio_prune.splat_files.evidence import assumed_evidence
from nerfstudio_prune.splat_files.morton import cells_of, morton_codes
from nerfstudio_prune.splat_files.places import decode_places, encode_places, in_order
from nerfstudio_prune.splat_files.rans import TOTAL
from nerfstudio_prune.splat_files.steps import Group, choose_steps
from nerfstudio_prune.splat_files.symbol_models import LARGEST, bank, choose_models, from_symbols, to_symbols

RNG = np.random.default_rng(0)


def test_codes_interleave_bits() -> None:
    """Bit by bit, also of the largest coordinates."""
    cells = np.concatenate([RNG.integers(0, 2**20, (50, 3)), [[0, 0, 0], [2**20 - 1] * 3]])
    expected = [
        sum(((int(cell[axis]) >> bit) & 1) << (3 * bit + axis) for bit in range(20) for axis in range(3))
        for cell in cells
    ]
    assert morton_codes(cells).tolist() == expected
    assert (cells_of(np.array(expected)) == cells).all()


@pytest.mark.parametrize(("count", "bits"), [(1, 1), (1, 20), (300, 2), (300, 12), (300, 20)])
def test_places(count: int, bits: int) -> None:
    """Exactly the cells, many of them in one, and single ones."""
    cells = RNG.integers(0, 2**bits, (count, 3))
    cells = cells[in_order(cells)]
    lengths, rests = encode_places(cells)
    assert (decode_places(lengths, rests, bits, "places") == cells).all()
    with pytest.raises(FileFormatError, match="places: expected"):
        decode_places(lengths, rests + b"\0", bits, "places")


def test_places_beyond_the_grid() -> None:
    """Differences that add up to more than the grid has, and more than a number holds, are refused."""
    for lengths in (np.array([4]), np.array([-1]), np.full(40, 60)):
        bits = 1 if len(lengths) == 1 else 20
        rests = bytes(-(-int(np.maximum(lengths - 1, 0).sum()) // 8))
        with pytest.raises(FileFormatError, match="places: expected"):
            decode_places(lengths, rests, bits, "places")


def covariances(quats: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Of Gaussians, from unit quaternions and logarithms."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotations = np.array(rows).transpose(2, 0, 1)
    return rotations @ (np.exp(2 * scales)[:, :, None] * rotations.transpose(0, 2, 1))


def test_smallest_rotation_is_the_same_gaussian() -> None:
    """Its covariance stays, and no axis turns by more than what is left between 24 rotations: 62.8 degrees."""
    quats, scales = RNG.normal(size=(500, 4)), RNG.normal(size=(500, 3))
    parts, axes = smallest_rotations(quats)
    found = quaternions_of(parts)
    expected = covariances(quats, scales)
    assert np.allclose(covariances(found, np.take_along_axis(scales, axes, axis=1)), expected, rtol=1e-9, atol=1e-9)
    assert (found[:, 0] > np.cos(np.deg2rad(62.8 / 2)) - 1e-3).all()


def test_tables_of_the_bank() -> None:
    """Every symbol has a frequency, and the bank is the same on every machine and in every version: files that were
    written before could not be read otherwise."""
    for model in bank():
        assert model.frequencies.sum() == TOTAL and model.frequencies.min() >= 1
    assert len(bank()) == 113
    content = b"".join(model.frequencies.astype("<u4").tobytes() for model in bank())
    assert zlib.crc32(content) == BANK_SUM


BANK_SUM = 3679868792


def test_table_is_the_cheapest_and_numbers_return() -> None:
    """Each context has the table that its own numbers take the fewest bits with, those beyond all tables included."""
    numbers = np.concatenate([RNG.integers(0, 8, 400), np.rint(RNG.normal(0, 20, 400)).astype(int), [5000, -5000]])
    contexts = np.repeat([0, 1], [400, 402])
    models = choose_models(numbers, contexts, 3)
    assert bank()[models[0]].frequencies.tolist() == [TOTAL // 8] * 8
    assert not bank()[models[1]].has_escape or bank()[models[1]].numbers > 100
    symbols, escapes = to_symbols(numbers, models[contexts])
    assert escapes.tolist()[-2:] == [5000, -5000]
    found, where = from_symbols(symbols, models[contexts])
    found[where] = escapes
    assert (found == numbers).all() and abs(numbers[where]).min() > LARGEST / 16


def test_steps_follow_the_evidence() -> None:
    """Four times the evidence halves a step, and so does a quarter of the budget; cells are not finer than needed."""
    gaussians, budget = drawn(200, 1), 1e-11
    evidence = assumed_evidence(gaussians)
    steps = choose_steps(gaussians, evidence, budget, None)
    finer = choose_steps(gaussians, evidence, budget / 4, None)
    inside = (steps.exponents[Group.COLORS] < 2) & (finer.exponents[Group.COLORS] > -16)
    assert inside.any()
    assert (steps.exponents[Group.COLORS] - finer.exponents[Group.COLORS] == 1)[inside].all()
    ideal = np.sqrt(12 * budget / evidence.colors)
    exact = evidence.colors > 0.2 * np.median(evidence.colors)
    assert np.abs(np.log2(ideal) - steps.exponents[Group.COLORS])[exact & inside].max() <= 0.5
    assert finer.grid.exponent == steps.grid.exponent - 1
    fixed = choose_steps(gaussians, evidence, budget, 9)
    extent = float((gaussians.means.amax(0) - gaussians.means.amin(0)).max())
    assert fixed.grid.bits == 9 and extent / 2**9 <= 2.0**fixed.grid.exponent <= 2 * extent / 2**9 * 1.001
    assert (fixed.exponents[Group.POSITIONS] == fixed.grid.exponent).all()
    assert torch.equal(gaussians.means, drawn(200, 1).means)
