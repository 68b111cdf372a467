"""Mutated records, of today's schema and the earlier one, given to `ns-prune report`.

Every trial reads one and makes all tables of it; some draw the plots and write the page as well.

    python tests/stress/records.py --count 10000
"""

import json
import random
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fuzz import NOT_FINITE, ODD_PLAIN, RAW, TAKEN, Mutator, main

from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.collect import collect_all
from nerfstudio_prune.report.document import render
from nerfstudio_prune.report.readme import named_tables

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SCHEMA_1 = Path(__file__).parents[1] / "records" / "schema_1"
ODD = (*ODD_PLAIN, float("nan"), float("inf"), "\ud800", "|", "`", "<b>", "a" * 300, "ns-prune report: x", [[]] * 100)
FOLDERS = {"run": "runs", "speed": "speed", **dict.fromkeys(("splat", "splat-zero-shot", "splat-speed"), "splat-runs")}
"""Kind of record -> folder that it lies in."""


@cache
def records() -> tuple[tuple[str, Any], ...]:
    """Kind and content of real records: one of every role and folder, and those of the earlier schema."""
    found: dict[Any, tuple[str, Any]] = {}
    for path in sorted([*RESULTS.rglob("*/*.json"), *SCHEMA_1.glob("*.json")]):
        values = json.loads(path.read_text("utf-8"))
        kind = FOLDERS.get(values.get("kind", ""))
        if kind is not None:
            key = (path.parent, values["kind"], values.get("role"), values["schema_version"])
            found.setdefault(key, (kind, values))
    return tuple(found.values())


def trial(rng: random.Random) -> str:
    """Mutates a record and reports on it, beside another one of its suite."""
    (kind, values), (other_kind, other) = rng.sample(records(), 2)
    mutator = Mutator(rng, ODD, gentle=rng.random() < 0.5)
    values = mutator.mutated(values, rng.choice((1, 1, 2, 5)))
    content = json.dumps(values, default=str).encode()
    if rng.random() < 0.1:
        content = content[: rng.randrange(len(content))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for group, text, file in ((kind, content, "a.json"), (other_kind, json.dumps(other).encode(), "b.json")):
            (folder / group).mkdir(exist_ok=True)
            (folder / group / file).write_bytes(text)
        try:
            found = collect_all(folder)
        except RecordError as error:
            if str(folder) not in str(error):
                raise AssertionError(f"{RAW}: names no file: {error}") from error
            raise
        text = "\n".join(make() for make in named_tables(*found).values())
        text.encode()
        if rng.random() < 0.01:
            render(*found)
    return NOT_FINITE if re.search(r"(?<![\w.-])(nan|-?inf)(?![\w.-])", text) else TAKEN


if __name__ == "__main__":
    main(trial, __doc__)
