"""Probabilities of small whole numbers around zero: a fixed bank of tables, so that a file names one by a byte.

Tables are built from products and sums in a fixed order alone, which give the same doubles on every machine: encoder
and decoder must have the same ones, bit for bit.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from nerfstudio_prune.splat_files.rans import TOTAL, Tables

LARGEST = 1023
"""Magnitude of a number that has a symbol of its own; larger ones are escapes."""
ESCAPE_BITS = 24
"""About what an escape takes beside its symbol."""
SCALES = [2 ** (i / 3) for i in range(-9, 25)]
"""Of the bell-shaped tables, in thirds of an octave, from 1/8 to 256."""
FLAT_BITS = range(11)
"""Of the tables in which 2^bits numbers, from zero on, are alike."""


@dataclass(frozen=True, eq=False)
class Model:
    """One table: consecutive numbers, and, in those that are not flat, an escape as the last symbol."""

    lowest: int
    """The number of the first symbol."""
    frequencies: Int64[ndarray, " symbols"]
    """At least 1 each, with the sum `TOTAL`."""
    has_escape: bool

    @property
    def numbers(self) -> int:
        """Numbers with a symbol of their own."""
        return len(self.frequencies) - self.has_escape


@cache
def bank() -> tuple[Model, ...]:
    """All tables: two-sided geometric ones, normal ones, mixtures of two geometric ones, then the flat ones."""
    return tuple(_models())


def _models() -> Iterator[Model]:
    for scale in SCALES:
        yield _bell(_geometric(_ratio(1 / scale), _reach(scale)))
    for scale in SCALES:
        yield _bell(_normal(_ratio(0.5 / scale**2), _reach(scale)))
    for scale in SCALES:
        reach = _reach(2 * scale)
        narrow, wide = (_geometric(_ratio(1 / own), reach) for own in (0.6 * scale, 2 * scale))
        yield _bell(0.7 * narrow / _sum(narrow) + 0.3 * wide / _sum(wide))
    for bits in FLAT_BITS:
        yield Model(0, np.full(1 << bits, TOTAL >> bits, np.int64), False)


def _ratio(exponent: float) -> float:
    """exp(-exponent), rounded far above what libraries of mathematics differ by."""
    return round(math.exp(-exponent) * 2**24) / 2**24


def _reach(scale: float) -> int:
    """Largest number of a table; beyond it are escapes."""
    return min(math.ceil(8 * scale) + 1, LARGEST)


def _geometric(ratio: float, reach: int) -> Float[ndarray, " half"]:
    """ratio^k for k from 0 to the reach."""
    return np.multiply.accumulate(np.concatenate([[1.0], np.full(reach, ratio)]))


def _normal(ratio: float, reach: int) -> Float[ndarray, " half"]:
    """ratio^(k²) for k from 0 to the reach: each is the last one times ratio^(2k - 1)."""
    odd = np.multiply.accumulate(np.concatenate([[ratio], np.full(reach - 1, ratio * ratio)]))
    return np.multiply.accumulate(np.concatenate([[1.0], odd]))


def _sum(half: Float[ndarray, " half"]) -> float:
    """Of a symmetric table, from one end on."""
    return float(2 * np.add.accumulate(half[::-1])[-1] - half[0])


def _bell(half: Float[ndarray, " half"]) -> Model:
    """A symmetric table with an escape of the least frequency."""
    symbols = 2 * len(half)
    share = half * ((TOTAL - symbols) / _sum(half))
    side = np.floor(share).astype(np.int64) + 1
    frequencies = np.concatenate([side[:0:-1], side, [1]])
    frequencies[len(half) - 1] += TOTAL - frequencies.sum()
    return Model(1 - len(half), frequencies, True)


@cache
def tables() -> Tables:
    """The bank for the coder."""
    longest = max(len(model.frequencies) for model in bank())
    return Tables(np.stack([np.pad(model.frequencies, (0, longest - len(model.frequencies))) for model in bank()]))


@cache
def _costs() -> Float[ndarray, "tables values"]:
    """Bits of each number from -`LARGEST` - 1 to `LARGEST` + 1, whose ends stand for all beyond."""
    found = np.full((len(bank()), 2 * LARGEST + 3), np.inf)
    for row, model in zip(found, bank(), strict=True):
        bits = math.log2(TOTAL) - np.log2(model.frequencies)
        if model.has_escape:
            row[:] = bits[-1] + ESCAPE_BITS
        first = model.lowest + LARGEST + 1
        row[first : first + model.numbers] = bits[: model.numbers]
    return found


def choose_models(
    numbers: Int64[ndarray, " numbers"], contexts: Int64[ndarray, " numbers"], count: int
) -> Int64[ndarray, " contexts"]:
    """The table that takes the fewest bits, for each context; the first one for a context without numbers.

    Args:
        numbers: What is to be coded.
        contexts: Context of each, in [0, count).
        count: Contexts.
    """
    values = 2 * LARGEST + 3
    clipped = np.clip(numbers, -LARGEST - 1, LARGEST + 1) + LARGEST + 1
    seen = np.bincount(contexts * values + clipped, minlength=count * values).reshape(count, values)
    used = np.flatnonzero(seen.any(axis=0))
    costs = _costs()[:, used]
    # Not a product of matrices: infinity times zero must count as zero.
    possible = np.isfinite(costs)
    bits = seen[:, used] @ np.where(possible, costs, 0).T
    bits[(seen[:, used] > 0).astype(np.int64) @ (~possible).T.astype(np.int64) > 0] = np.inf
    return bits.argmin(axis=1)


def to_symbols(
    numbers: Int64[ndarray, " numbers"], models: Int64[ndarray, " numbers"]
) -> tuple[Int64[ndarray, " numbers"], Int64[ndarray, " escapes"]]:
    """Symbols, and the numbers that had to be escapes.

    Args:
        numbers: What is to be coded.
        models: Table of each.
    """
    lowest, count = _ranges()
    symbols = numbers - lowest[models]
    beyond = (symbols < 0) | (symbols >= count[models])
    return np.where(beyond, count[models], symbols), numbers[beyond]


def from_symbols(
    symbols: Int64[ndarray, " numbers"], models: Int64[ndarray, " numbers"]
) -> tuple[Int64[ndarray, " numbers"], Int64[ndarray, " escapes"]]:
    """Numbers, and the indices of those that are escapes; undoes `to_symbols`.

    Args:
        symbols: What the coder gave.
        models: Table of each.
    """
    lowest, count = _ranges()
    return symbols + lowest[models], np.flatnonzero(symbols == count[models])


@cache
def _ranges() -> tuple[Int64[ndarray, " tables"], Int64[ndarray, " tables"]]:
    """Lowest number of each table, and how many it has."""
    return np.array([model.lowest for model in bank()]), np.array([model.numbers for model in bank()])
