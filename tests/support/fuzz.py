"""Seeded mutations of nests of plain values and tensors, and a count of what came of them.

A script of `tests/stress` has one function that tries one mutation and says what came of it; `attempt` watches over
time and memory, and `main` makes a command of it.
"""

import argparse
import json
import math
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CLEAR, TAKEN = "clear error", "taken, and all is finite"
RAW, HALF, HANG, MEMORY, NOT_FINITE = "raw exception", "half applied", "hang", "memory", "not finite without a word"
BAD = (RAW, HALF, HANG, MEMORY, NOT_FINITE)
"""Outcomes that no input may have."""
SECONDS, WAITING_SECONDS = 20, 200
"""What takes longer, by the processor's clock or by the one on the wall, hangs."""
MAX_MB = 256
"""Memory that a small input may take."""

Trial = Callable[[random.Random], str]
"""Tries one mutation; gives an outcome, or raises: a ValueError is a clear error, anything else is raw."""


class Hang(BaseException):
    """A trial took too long. No Exception, so that nothing takes it for an error of the input."""


@dataclass
class Outcomes:
    """What came of many trials."""

    counts: Counter[str] = field(default_factory=Counter)
    """Outcome -> trials."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Bad outcome -> one trial of each kind: its number, and where it failed."""

    @property
    def bad(self) -> dict[str, list[str]]:
        """What no input may have come to."""
        return {name: self.examples[name] for name in BAD if self.counts[name]}

    def add(self, outcome: str, number: int, text: str) -> None:
        """Notes the outcome of a trial."""
        self.counts[outcome] += 1
        known = self.examples.setdefault(outcome, [])
        if outcome in BAD and not any(text in example for example in known):
            known.append(f"trial {number}: {text}")


def attempts(trial: Trial, count: int, seed: int = 0) -> Outcomes:
    """Tries many mutations. Each has a seed of its own: `--seed` and a count of one repeat any of them.

    Args:
        trial: Tries one.
        count: How many.
        seed: Seed of the first; the others follow.
    """
    outcomes = Outcomes()
    for number in range(seed, seed + count):
        outcome, text = attempt(trial, random.Random(number))
        outcomes.add(outcome, number, text)
    return outcomes


def attempt(trial: Trial, rng: random.Random) -> tuple[str, str]:
    """Tries one mutation under a limit of time and memory; gives the outcome, and its traceback where it is bad."""

    def stop(signum: int, frame: Any) -> None:
        raise Hang

    limits = resource.getrlimit(resource.RLIMIT_AS)
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, WAITING_SECONDS)}
    handlers = {number: signal.signal(number, stop) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (_size_in_memory() + MAX_MB * 2**20, limits[1]))
    try:
        return trial(rng), ""
    except Hang:
        return HANG, _end_of_traceback()
    except Exception as error:
        if _is_about_memory(error):
            return MEMORY, _end_of_traceback()
        return (CLEAR, "") if isinstance(error, ValueError) else (RAW, _end_of_traceback())
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, handlers[number])
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _end_of_traceback() -> str:
    """Where the present error was raised, and what it is."""
    return "\n".join(line[:200] for line in traceback.format_exc().splitlines()[-8:])


def _is_about_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one behind it, is that there was not enough memory."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _size_in_memory() -> int:
    """Bytes of address space of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def main(trial: Trial, description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Command of a script: tries many mutations, prints a table, and fails if an outcome is bad.

    Args:
        trial: Tries one.
        description: What the script says of itself.
        arguments: Words of the command line; None for those of this process.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; each has the next one")
    parser.add_argument("--output", type=Path, help="file for the counts as JSON")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    outcomes = attempts(trial, options.count, options.seed)
    seconds = time.perf_counter() - started
    for name in dict.fromkeys([*outcomes.counts, *BAD]):
        print(f"| {name} | {outcomes.counts[name]:,} |")
    print(f"{options.count:,} trials in {seconds:.0f} s")
    for name, examples in outcomes.bad.items():
        print(f"\n{name}\n" + "\n".join(examples))
    if options.output is not None:
        found = {"count": options.count, "seed": options.seed, "seconds": round(seconds), **outcomes.counts}
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(1 if outcomes.bad else 0)


def nested(depth: int = 100_000) -> list[Any]:
    """Lists in lists, more deeply than Python can call."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def shared(levels: int = 40) -> list[Any]:
    """A small nest that holds itself 2^levels times."""
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


ODD_PLAIN: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 8.5, 0.5, -0.5, 1e-300, 1e308, 2**31, 2**63, 10**30, 10**400),
    *("", "text", "8", "nan", "None", "coreset", "../../x", "\0", "é", "x" * 10_000),
    *([], {}, [1], [[], {}], {"a": 1}, {"": None}),
)
"""What JSON and YAML can hold."""
ODD: tuple[Any, ...] = (
    *ODD_PLAIN,
    *(math.nan, math.inf, -math.inf, b"bytes", 1j, (1, 2), nested(), shared(), {1: 2}, {None: 1}, {1}),
    *(torch.zeros(2, 3), torch.zeros(()), nn.Parameter(torch.ones(2))),
)
"""What a checkpoint can hold."""


class Mutator:
    """Changes copies of a nest at random places.

    Args:
        rng: Source of all choices.
        odd: Values to put in.
        gentle: Whether values keep their type, which leads past the checks of types.
    """

    def __init__(self, rng: random.Random, odd: Sequence[Any] = ODD, gentle: bool = False) -> None:
        self.rng = rng
        self.odd = odd
        self.gentle = gentle

    def mutated(self, tree: Any, changes: int = 1) -> Any:
        """A copy with some changes; tensors that are not changed are shared.

        Args:
            tree: A nest of dictionaries and lists.
            changes: How many places are changed.
        """
        root = {"root": _copied(tree)}
        for _ in range(changes):
            places = list(_places(root))
            owner, key = self.rng.choice(places)
            owner[key] = self.changed(owner[key], places)
        return root["root"]

    def changed(self, value: Any, places: Sequence[tuple[Any, Any]]) -> Any:
        """Another value in the place of one.

        Args:
            value: What is there.
            places: Owner and key of all values, for those that are put elsewhere.
        """
        kind = self.rng.random()
        if kind < 0.2:
            return self._one_of(self.odd, value)
        if kind < 0.4:
            return self._one_of([owner[key] for owner, key in places], value)
        if isinstance(value, Tensor):
            return self.rng.choice(TENSOR_CHANGES)(value)
        if isinstance(value, dict) and value:
            return self._dict(value)
        if isinstance(value, (list, tuple)) and value:
            return self._list(list(value))
        if isinstance(value, (int, float)):
            return self._number(value)
        if isinstance(value, str):
            changes = [value + "x", value[:-1], value.upper(), [value], {value: value}, value.encode()]
            return self.rng.choice(changes[:3] if self.gentle else changes)
        return self._one_of(self.odd, value)

    def _one_of(self, values: Sequence[Any], value: Any) -> Any:
        if self.gentle:
            values = [other for other in values if type(other) is type(value)] or [value]
        return _copied(self.rng.choice(values))

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        key = self.rng.choice(list(value))
        kind = self.rng.randrange(4)
        rest = {k: v for k, v in value.items() if k != key or kind > 1}
        if kind == 1:
            return {**rest, f"{key}x": value[key]}
        if kind == 2:
            return {**rest, "other": value[key]}
        if kind == 3:
            return {**rest, key: value[self.rng.choice(list(value))]}
        return rest

    def _list(self, value: list[Any]) -> list[Any]:
        i = self.rng.randrange(len(value))
        changes = [value[:i] + value[i + 1 :], [*value, value[i]], value[::-1], [], value[:i], value * 300, [value]]
        return self.rng.choice(changes[:-2] if self.gentle else changes)

    def _number(self, value: float) -> Any:
        gentle: list[Callable[[], Any]] = [
            *(lambda: value + 1, lambda: value - 1, lambda: -value, lambda: value * 2, lambda: value * 1_000_000),
        ]
        rough: list[Callable[[], Any]] = [
            *(lambda: value * 10**20, lambda: value // 3, lambda: str(value), lambda: [value], lambda: value != 0),
        ]
        return self.rng.choice(gentle if self.gentle else gentle + rough)()


def _copied(value: Any) -> Any:
    # Not what `shared` and `nested` gave: a copy of them would have no end.
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not _is_deep(value):
        return type(value)(_copied(part) for part in value)
    return value


def _is_deep(value: Any) -> bool:
    depth = 0
    while isinstance(value, (list, tuple)) and value and depth < 20:
        value, depth = value[0], depth + 1
    return depth == 20


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Owner and key of every value that can be replaced."""
    if isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list) and not _is_deep(value):
        pairs = list(enumerate(value))
    else:
        return
    for key, part in pairs:
        yield value, key
        yield from _places(part)


def _with(value: Tensor, number: float) -> Tensor:
    """A copy with one other number."""
    changed = value.detach().clone()
    if changed.numel():
        changed.view(-1)[changed.numel() // 2] = number
    return changed


class _Subclass(Tensor):
    """A tensor of a class of its own."""


TENSOR_CHANGES: tuple[Callable[[Tensor], Any], ...] = (
    *(lambda t, n=n: _with(t.float(), n) for n in (math.nan, math.inf, -math.inf, -1e30, 1e30)),
    *(lambda t, d=d: t.to(d) for d in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool)),
    *(lambda t: t.to(torch.complex64), lambda t: t.float().to_sparse(), lambda t: t.to("meta")),
    *(
        lambda t: t.reshape(-1)[:1],
        lambda t: t.reshape(-1)[:0],
        lambda t: t.flatten(),
        lambda t: t[None],
        lambda t: t.T,
        lambda t: -t.float(),
    ),
    lambda t: torch.zeros(()).expand(tuple(t.shape)),
    lambda t: torch.zeros(1).expand(30_000, t.shape[-1] if t.dim() else 1),
    lambda t: torch.zeros(1).expand(40_000, 40_000),
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    lambda t: t.float().as_subclass(_Subclass),
    lambda t: nn.Parameter(t.float()),
    lambda t: t.tolist(),
    lambda t: t.detach().numpy(),
    torch.zeros_like,
)


def same(first: Any, second: Any) -> bool:
    """Whether two nests are equal bit for bit, the types of their values included."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
            return False
        if first.dtype != second.dtype or first.shape != second.shape:
            return False
        one, other = (t.detach().contiguous().view(-1).view(torch.uint8) for t in (first, second))
        return torch.equal(one, other)
    if isinstance(first, Mapping):
        return (
            isinstance(second, Mapping)
            and list(first) == list(second)
            and all(same(first[key], second[key]) for key in first)
        )
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and (first == second or first != first)
