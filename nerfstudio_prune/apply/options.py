"""Options of pruning as they are typed: names with values, one after the other."""

import ast
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.engine.options import PREFIX, Group, PruneOptions, ScheduleOptions

WHEN = {f.name for f in fields(ScheduleOptions)} - {"round_to"} | {
    "sh_step",
    "sh_degree",
    "shrink_steps",
    "shrink_weight",
}
"""Options that say when something happens in a training."""
AFTER = {"teacher", "distil"}
"""Groups of options about the training after a cut."""
MOST_DROP = 100
"""Largest loss that can be allowed, in dB."""


def given_options(fresh: PruneOptions, words: Mapping[str, str]) -> Any:
    """Options of pruning with the values that are given.

    Args:
        fresh: Options of the kind of run, of which none is given.
        words: Name, with dots or dashes as on the command line, -> value.

    Raises:
        ValueError: If there is no such option, a value is not of its type, or the option says something of a training.
            Names the option.
    """
    kind, values = type(fresh), {}
    for typed, word in words.items():
        name = typed.replace("-", "_").removeprefix("--").removeprefix(PREFIX)
        first, _, rest = name.partition(".")
        _check_name(kind, typed, first, rest)
        if rest:
            values.setdefault(first, {})[rest] = _value(word)
        else:
            values[first] = _value(word)
    options = kind.from_plain(values)
    options.check_values()
    return options


def _check_name(kind: type[PruneOptions], typed: str, first: str, rest: str) -> None:
    if first in WHEN | AFTER | kind.of_the_run():
        raise ValueError(
            f"--prune {typed}: is about a training; apply cuts at once. Give it to ns-train, when the new run is gone "
            "on with"
        )
    known = {f.name: f for f in fields(kind)}
    group = getattr(kind(), first, None)
    inner = {f.name for f in fields(group)} if isinstance(group, Group) else set()
    if first not in known or (rest not in inner if rest or inner else False):
        names = sorted((f"{first}.{name}" for name in inner) if first in known else known.keys() - WHEN - AFTER)
        raise ValueError(f"--prune {typed}: there is no such option; expected one of {', '.join(names)}")


def _value(word: str) -> Any:
    """A value as Python writes it, or else the word itself."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def check_promise(options: PruneOptions, targets: Collection[str], drop: float) -> None:
    """Checks that the size is left open where it is to be searched.

    Args:
        options: Options that are given.
        targets: Names of those that say how far a cut goes.
        drop: Most dB to lose.

    Raises:
        ValueError: Names what is given, or the loss that cannot be.
    """
    if not 0 < drop <= MOST_DROP:
        raise ValueError(f"--target-psnr-drop must be in (0, {MOST_DROP}], got {shown(drop)}")
    given = [f"{PREFIX}{name}" for name in options.names_given() if name.partition(".")[0] in targets]
    if given:
        raise ValueError(
            f"--target-psnr-drop searches the size, and {', '.join(given)} says what it is; give one of the two"
        )
