"""The columns of a scene as symbols of one stream, and back: each with the tables of its contexts.

A context of a number is the class of its Gaussian: the exponent of the step that it was rounded by.
"""

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.splat_files.packed_container import Section
from nerfstudio_prune.splat_files.rans import Decoder, Encoder, lanes_for
from nerfstudio_prune.splat_files.symbol_models import bank, choose_models, from_symbols, tables, to_symbols


class StreamWriter:
    """Collects columns."""

    def __init__(self) -> None:
        self._columns: list[tuple[ndarray, ndarray]] = []
        self._models: list[ndarray] = []
        self._escapes: list[ndarray] = []

    def add(self, numbers: Int64[ndarray, " gaussians"], contexts: Int64[ndarray, " gaussians"], count: int) -> None:
        """Adds a column.

        Args:
            numbers: Around zero.
            contexts: Context of each, in [0, count).
            count: Contexts.
        """
        models = choose_models(numbers, contexts, count)
        symbols, escapes = to_symbols(numbers, models[contexts])
        self._columns.append((models[contexts], symbols))
        self._models.append(models)
        self._escapes.append(escapes)

    def finish(self) -> tuple[int, bytes, bytes, bytes]:
        """Lanes of the coder; then the contents of the sections of tables, symbols and escapes."""
        lanes = lanes_for(sum(len(symbols) for _, symbols in self._columns))
        encoder = Encoder(tables(), lanes)
        for models, symbols in self._columns:
            encoder.add(models, symbols)
        escapes = np.concatenate(self._escapes).astype("<i4").tobytes()
        return lanes, np.concatenate(self._models).astype(np.uint8).tobytes(), encoder.finish(), escapes


class StreamReader:
    """Gives columns back, in the order in which they were added.

    Args:
        models: Content of the section of tables.
        symbols: That of symbols.
        escapes: That of escapes.
        lanes: Of the coder.

    Raises:
        FileFormatError: If there is no such table, or the stream is too short.
    """

    def __init__(self, models: bytes, symbols: bytes, escapes: bytes, lanes: int) -> None:
        self._models = np.frombuffer(models, np.uint8).astype(np.int64)
        if len(self._models) and self._models.max() >= len(bank()):
            raise refuse(Section.TABLES.label, f"numbers below {len(bank())}", f"{self._models.max()}")
        self._escapes = np.frombuffer(escapes, "<i4").astype(np.int64)
        self._decoder = Decoder(symbols, tables(), lanes, Section.SYMBOLS.label)

    def take(self, contexts: Int64[ndarray, " gaussians"], count: int) -> Int64[ndarray, " gaussians"]:
        """The next column.

        Args:
            contexts: Context of each number, in [0, count).
            count: Contexts.

        Raises:
            FileFormatError: If the sections end before.
        """
        if len(self._models) < count:
            raise refuse(Section.TABLES.label, "a table for each context", "fewer")
        models, self._models = self._models[:count], self._models[count:]
        numbers, escaped = from_symbols(self._decoder.take(models[contexts]), models[contexts])
        if len(self._escapes) < len(escaped):
            raise refuse(Section.ESCAPES.label, "a number for each escape", "fewer")
        numbers[escaped], self._escapes = self._escapes[: len(escaped)], self._escapes[len(escaped) :]
        return numbers

    def finish(self) -> None:
        """Checks that all was used.

        Raises:
            FileFormatError: If not.
        """
        if len(self._models) or len(self._escapes):
            section = Section.TABLES if len(self._models) else Section.ESCAPES
            raise refuse(section.label, "as many numbers as the columns take", "more")
        self._decoder.finish()
