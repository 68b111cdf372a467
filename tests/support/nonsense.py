"""Values that no element of the panel offers, as JSON or msgpack can carry them."""

import random
from collections.abc import Callable
from typing import Any

NUMBERS = (float("nan"), float("inf"), float("-inf"), -1, -1e-300, 1e308, 2**63, -(2**63), 1.0000001, 1e6)
TEXTS = (
    "",
    " ",
    "nan",
    "0.5",
    "edge",
    "none",
    "typo",
    "IMPORTANCE",
    "obs ",
    "None",
    "\x00",
    "🦊",
    "{x}<b>[red]",
    "x" * 2000,
)
OTHERS = (None, True, False, [], {}, [0.5], ["obs"], {"value": 0.5}, b"obs", [[[[]]]])


def nonsense(draw: random.Random, check: Callable[[Any], None]) -> Any:
    """A value that fails a check.

    Args:
        draw: Random numbers.
        check: Raises a ValueError for what is wrong.
    """
    while True:
        kind = draw.randrange(5)
        if kind == 0:
            value: Any = draw.choice(NUMBERS)
        elif kind == 1:
            value = draw.choice(TEXTS)
        elif kind == 2:
            value = draw.choice(OTHERS)
        elif kind == 3:
            value = draw.uniform(-1, 1) * 10.0 ** draw.randint(-300, 300)
        else:
            value = "".join(chr(draw.choice((draw.randrange(32, 127), draw.randrange(0x2000)))) for _ in range(8))
        try:
            check(value)
        except ValueError:
            return value
