"""Entropy coding of symbols whose probabilities are known: asymmetric numeral systems (Duda 2013, arXiv 1311.2540).

Many coders run side by side, one in each lane, and share one stream of 16-bit words, so that numpy does a step of all
of them at once. Symbol i is in lane i modulo the lanes. What a symbol takes is about what its probability asks for;
each lane takes four bytes more.
"""

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from nerfstudio_prune.exchange.errors import refuse

SCALE_BITS = 14
TOTAL = 1 << SCALE_BITS
"""Sum of the frequencies of a table."""
WORD = 16
LOWEST = 1 << WORD
"""States lie in [2^16, 2^32)."""
SYMBOLS_OF_A_LANE = 4096
"""About as many symbols share the four bytes of a lane."""
MAX_LANES = 4096


class Tables:
    """Frequencies of symbols, in any number of tables.

    Args:
        frequencies: One row a table: at least 1 for each symbol that it has, 0 behind its last, with the sum `TOTAL`.
    """

    def __init__(self, frequencies: Int64[ndarray, "tables symbols"]) -> None:
        self.frequencies = frequencies.astype(np.uint64)
        ends = np.cumsum(frequencies, axis=1)
        self.starts = (ends - frequencies).astype(np.uint64)
        slots = np.arange(TOTAL)
        self.symbols = np.stack([np.searchsorted(row, slots, side="right") for row in ends]).astype(np.int32)


def lanes_for(count: int) -> int:
    """Lanes for a number of symbols.

    Args:
        count: Symbols.
    """
    return int(min(max(count // SYMBOLS_OF_A_LANE, 1), MAX_LANES))


class Encoder:
    """Collects symbols; the stream is made at the end, for it is written from the last symbol to the first.

    Args:
        tables: Frequencies.
        lanes: Coders side by side.
    """

    def __init__(self, tables: Tables, lanes: int) -> None:
        self.tables, self.lanes = tables, lanes
        self._parts: list[tuple[ndarray, ndarray]] = []

    def add(self, table: Int64[ndarray, " symbols"], symbols: Int64[ndarray, " symbols"]) -> None:
        """Adds symbols that are decoded by one call.

        Args:
            table: Table of each symbol.
            symbols: Indices of symbols.
        """
        self._parts.append((table, symbols))

    def finish(self) -> bytes:
        """The stream: states of the lanes, then words; little-endian."""
        states = np.full(self.lanes, LOWEST, np.uint64)
        words: list[ndarray] = []
        for table, symbols in reversed(self._parts):
            frequencies = self.tables.frequencies[table, symbols]
            starts = self.tables.starts[table, symbols]
            for first in reversed(range(0, len(symbols), self.lanes)):
                frequency, start = frequencies[first : first + self.lanes], starts[first : first + self.lanes]
                state = states[: len(frequency)]
                full = state >= frequency << np.uint64(2 * WORD - SCALE_BITS)
                words.append((state[full] & np.uint64(LOWEST - 1)).astype("<u2"))
                state[full] >>= np.uint64(WORD)
                whole, rest = np.divmod(state, frequency)
                state[:] = (whole << np.uint64(SCALE_BITS)) + rest + start
        return states.astype("<u4").tobytes() + b"".join(part.tobytes() for part in reversed(words))


class Decoder:
    """Gives symbols back in the order in which they were added.

    Args:
        content: What `Encoder.finish` gave, perhaps damaged.
        tables: Frequencies.
        lanes: Coders side by side.
        section: What the stream is called in an error.

    Raises:
        FileFormatError: If it is too short for the lanes, or holds half a word.
    """

    def __init__(self, content: bytes, tables: Tables, lanes: int, section: str) -> None:
        if len(content) < 4 * lanes or len(content) % 2:
            raise refuse(section, f"an even number of bytes, at least {4 * lanes:,}", f"{len(content):,}")
        self.tables, self.lanes, self.section = tables, lanes, section
        self._states = np.frombuffer(content, "<u4", lanes).astype(np.uint64)
        self._words = np.frombuffer(content, "<u2", offset=4 * lanes).astype(np.uint64)
        self._at = 0

    def take(self, table: Int64[ndarray, " symbols"]) -> Int64[ndarray, " symbols"]:
        """The next symbols.

        Args:
            table: Table of each of them.

        Raises:
            FileFormatError: If the stream ends before.
        """
        found = np.empty(len(table), np.int64)
        tables, mask, bits = self.tables, np.uint64(TOTAL - 1), np.uint64(SCALE_BITS)
        for first in range(0, len(table), self.lanes):
            own = table[first : first + self.lanes]
            state = self._states[: len(own)]
            slot = state & mask
            symbols = tables.symbols[own, slot.astype(np.int64)]
            state[:] = tables.frequencies[own, symbols] * (state >> bits) + slot - tables.starts[own, symbols]
            low = np.flatnonzero(state < LOWEST)
            words = self._words[self._at : self._at + len(low)]
            if len(words) < len(low):
                raise refuse(self.section, "as many words as its symbols take", "a stream that is cut off")
            self._at += len(low)
            state[low] = state[low] << np.uint64(WORD) | words
            found[first : first + len(own)] = symbols
        return found

    def finish(self) -> None:
        """Checks that the stream was used up and ends where the encoder began.

        Raises:
            FileFormatError: If not.
        """
        if self._at != len(self._words) or (self._states != LOWEST).any():
            raise refuse(self.section, "a stream that ends with its last symbol", "another end: it is damaged")
