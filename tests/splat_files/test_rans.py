"""The entropy coder gives back what it was given, in as few bytes as the probabilities ask for, and never trusts a
stream."""

from collections.abc import Callable

import numpy as np
import pytest

from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.splat_files.rans import TOTAL, Decoder, Encoder, Tables, lanes_for

FREQUENCIES = np.array([[TOTAL - 3, 1, 2, 0], [TOTAL // 4] * 4, [TOTAL, 0, 0, 0]])
RNG = np.random.default_rng(0)


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables and symbols at random, as the tables say."""
    table = RNG.integers(0, 3, count)
    symbols = [RNG.choice(4, count, p=row / TOTAL) for row in FREQUENCIES]
    return table, np.choose(table, symbols)


@pytest.mark.parametrize("lanes", [1, 3, 64])
def test_round_trip(lanes: int) -> None:
    """Whatever the lanes and the parts that symbols come in, also parts of less than a lane each."""
    tables = Tables(FREQUENCIES)
    encoder, parts = Encoder(tables, lanes), [drawn(count) for count in (1, 0, 1000, 2)]
    for part in parts:
        encoder.add(*part)
    decoder = Decoder(encoder.finish(), tables, lanes, "symbols")
    for table, symbols in parts:
        assert (decoder.take(table) == symbols).all()
    decoder.finish()


def test_bytes_are_those_of_the_entropy() -> None:
    """Otherwise it would not be worth its code beside lzma: within half a percent, four bytes a lane included."""
    table, symbols = drawn(100_000)
    encoder = Encoder(Tables(FREQUENCIES), lanes_for(len(table)))
    encoder.add(table, symbols)
    ideal = -np.log2(FREQUENCIES[table, symbols] / TOTAL).sum() / 8
    assert ideal < len(encoder.finish()) < 1.005 * ideal + 4 * lanes_for(len(table))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-2],
    "longer": lambda content: content + b"\0\0",
    "half a word": lambda content: content[:-1],
    "no lanes": lambda content: content[:4],
    "another state": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "another word": lambda content: content[:-7] + bytes([content[-7] ^ 64]) + content[-6:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen(damage: str) -> None:
    """The states in the end tell it, where the stream is not too short or too long already."""
    tables, lanes = Tables(FREQUENCIES), 3
    table, symbols = drawn(500)
    encoder = Encoder(tables, lanes)
    encoder.add(table, symbols)
    with pytest.raises(FileFormatError, match=r"^symbols: expected"):
        decoder = Decoder(DAMAGES[damage](encoder.finish()), tables, lanes, "symbols")
        decoder.take(table)
        decoder.finish()
