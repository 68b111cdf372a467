"""Pieces of Markdown that GitHub and the HTML page read alike."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Optional

from nerfstudio_prune.report.stats import NOTHING, TIMES, TO, Stat

# Underscores within a word mean nothing to Markdown.
_SPECIAL = re.compile(r"[\\`*\[\]#]|(?<!\w)_|_(?!\w)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "~": "&#126;", "$": "&#36;"}


def escape(text: object) -> str:
    """Text of a record as plain text: it may come from anyone, and must not become markup."""
    plain = _SPECIAL.sub(lambda match: "\\" + match[0], " ".join(str(text).split()))
    return "".join(_ENTITIES.get(character, character) for character in plain)


def code(text: object) -> str:
    """Text of a record as code."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "¦") + "`"


def joined(parts: Iterable[str]) -> str:
    """An enumeration: a, b and c. Empty parts are left out."""
    *others, last = [part for part in parts if part] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def counted(count: int, word: str) -> str:
    """A count and what is counted: 1 run, 2 runs."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def missing(suite: str) -> str:
    """Line in place of what there are no records for."""
    return f"No records for this; `ns-prune bench {suite}` makes them."


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A table; all columns but the first ones hold numbers and are aligned to the right."""
    align = ["---" if i < text_columns else "---:" for i in range(len(headers))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (headers, align, *rows))


def bold(text: str) -> str:
    """Marks the best value."""
    return f"**{text}**"


def bold_best(texts: Sequence[str], values: Sequence[Optional[float]], best: Callable[..., float]) -> list[str]:
    """Marks the best of several values, and those that look the same in print; none if all do.

    Args:
        texts: How the values are shown.
        values: The values; None takes no part.
        best: `max` or `min`.
    """
    known = [(value, text) for value, text in zip(values, texts, strict=True) if value is not None]
    if len({_mean(text) for _, text in known}) < 2:
        return list(texts)
    winner = _mean(known[[value for value, _ in known].index(best(value for value, _ in known))][1])
    return [
        bold(text) if value is not None and _mean(text) == winner else text
        for value, text in zip(values, texts, strict=True)
    ]


def _mean(text: str) -> str:
    return text.partition(" ± ")[0]


@dataclass(frozen=True)
class Column:
    """A column of a table with one row an item."""

    title: str
    text: Callable[[Any], str]
    value: Optional[Callable[[Any], Optional[float]]] = None
    """What the best is chosen by; None marks none."""
    best: Callable[..., float] = max


def stat_column(
    title: str,
    stat: Callable[[Any], Stat],
    digits: int,
    best: Optional[Callable[..., float]] = None,
    signed: bool = False,
) -> Column:
    """A column of means ± standard deviations."""
    if best is None:
        return Column(title, lambda item: stat(item).text(digits, signed))
    return Column(title, lambda item: stat(item).text(digits, signed), lambda item: stat(item).mean, best)


def item_table(columns: Sequence[Column], blocks: Sequence[Sequence[Any]], text_columns: int = 1) -> str:
    """A table whose best values are marked within blocks of rows; columns without any value are left out."""
    rows: list[list[str]] = []
    for block in blocks:
        cells = []
        for column in columns:
            texts = [column.text(item) for item in block]
            if column.value is not None:
                texts = bold_best(texts, [column.value(item) for item in block], column.best)
            cells.append(texts)
        rows += [list(row) for row in zip(*cells, strict=True)]
    kept = [i for i in range(len(columns)) if any(row[i] not in (NOTHING, "") for row in rows)]
    return table([columns[i].title for i in kept], [[row[i] for i in kept] for row in rows], text_columns)


def widths_text(widths: dict[str, int]) -> str:
    """Widths in short: layers times neurons, trunk + head; both fields only where they differ."""
    fields: dict[str, dict[str, list[int]]] = {}
    for name, width in widths.items():
        field_name, _, rest = name.partition(".")
        fields.setdefault(field_name, {}).setdefault(rest.partition(".layers.")[0], []).append(width)
    texts = {name: " + ".join(_runs(part) for part in parts.values()) for name, parts in fields.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{escape(name.removeprefix('field_'))} {text}" for name, text in texts.items()) or NOTHING


def _runs(widths: list[int]) -> str:
    runs = [(len(list(group)), width) for width, group in groupby(widths)]
    if len(runs) > 3:
        return f"{len(widths)}{TIMES}({min(widths)}{TO}{max(widths)})"
    return ", ".join(f"{count}{TIMES}{width}" for count, width in runs)
