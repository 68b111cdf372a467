"""`docs/options.md` is made from the sources, and is what they say now."""

import importlib.util
from dataclasses import dataclass, field
from typing import Literal, Optional

import pytest
from support.pages import ROOT, in_code, table_rows

from nerfstudio_prune.nerf.config import PruneConfig

SCRIPT = ROOT / "docs" / "make_options.py"
spec = importlib.util.spec_from_file_location("make_options", SCRIPT)
assert spec is not None and spec.loader is not None
make_options = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_options)


def test_page_is_fresh() -> None:
    """A docstring that was changed, or an option that was added, has to reach the page: `make docs`."""
    assert make_options.PAGE.read_text("utf-8") == make_options.page()


def test_every_option_has_a_row_with_a_meaning() -> None:
    """An option without a docstring would have an empty row here, and an empty `--help`."""
    rows = table_rows(make_options.page())
    assert all(len(row) == 4 and all(row) for row in rows)
    typed = [in_code(row[0])[0] for row in rows]
    for name in vars(PruneConfig()):
        if name not in ("coarse", "fine", "teacher"):
            assert name.replace("_", "-") in typed


@dataclass
class Engine:
    """What every engine has."""

    limit: Optional[float] = None


@dataclass
class Speed(Engine):
    """How fast. Not how
    far.

    And much else.
    """

    gear: Literal["low", "high"] = "low"
    """Gear to
    choose."""
    limit: Optional[float] = None
    """Largest speed, above 0. None: 12.5."""


@dataclass
class Trailer:
    """What is pulled."""

    weight: Optional[float] = None
    """Weight in kg. None: as heavy as it is."""


@dataclass
class Car(Speed):
    """A car."""

    seats: tuple[int, ...] = (1, 2)
    """Seats | places."""
    name: Optional[str] = field(default=None, metadata={"text": "none yet"})
    """Name of the car."""
    trailer: Trailer = field(default_factory=Trailer)
    """Behind the car."""


PAGE = """\
## A car

After `--car.`:

| option | type | default | meaning |
| --- | --- | --- | --- |
| `seats` | int … | `1 2` | Seats \\| places. |
| `name` | str | none yet | Name of the car. |

## What is pulled

After `--car.trailer.`:

| option | type | default | meaning |
| --- | --- | --- | --- |
| `weight` | float | as heavy as it is | Weight in kg. |
"""
SPEED = """\
## How fast

Not how far.

After `--car.`:

| option | type | default | meaning |
| --- | --- | --- | --- |
| `limit` | float | `12.5` | Largest speed, above 0. |
| `gear` | `low`, `high` | `low` | Gear to choose. |
"""


def test_page_of_a_small_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a group is headed by the first sentence of the dataclass that it comes from, inherited options stay in
    their own group, the last words of a docstring or the value are the default, and options of options have their
    prefix. A base that says nothing of an option is no group."""
    monkeypatch.setattr(make_options, "PACKAGE", __name__)
    monkeypatch.setattr(make_options, "SECTIONS", {"--car.": Car})
    assert make_options.page() == "\n".join([make_options.INTRODUCTION, SPEED, PAGE])
