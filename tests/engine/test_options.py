"""Groups of options: defaults that are said once, rules of each group, and the way through a checkpoint."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Optional, cast

import numpy as np
import pytest
import torch
import tyro

from nerfstudio_prune.engine.options import (
    PART,
    SHARE,
    Group,
    PruneOptions,
    RecoveryOptions,
    Rule,
    ScheduleOptions,
    above,
    at_least,
    option,
    with_help,
)


@with_help
@dataclass
class Size(Group):
    """How large."""

    width: Optional[int] = None
    """Width, if it is wanted."""
    depth: Optional[int] = option(3)
    """Depth in layers of neurons."""

    rules: ClassVar[Sequence[Rule]] = ((("width", "depth"), *at_least(1)),)


@with_help
@dataclass
class Colour(Group):
    """Which colour."""

    names: Optional[tuple[str, ...]] = option(("red",), "the red one")
    """Names of colours that are wanted."""

    rules: ClassVar[Sequence[Rule]] = ((("names",), lambda names: len(names) > 0, "at least one name"),)


@with_help
@dataclass
class Thing(Colour, Size):
    """Both, and a group within."""

    share: Optional[float] = option(0.5)
    """Share of the whole in this."""
    always: int = 7
    """A value from the start."""
    part: Size = field(default_factory=Size)
    """A group of its own."""

    rules: ClassVar[Sequence[Rule]] = ((("share",), *SHARE),)


@dataclass
class Typed(Thing):
    """Options of every kind."""

    sizes: Optional[dict[str, int]] = None
    """Sizes by name."""
    mode: Optional[Literal["slow", "quick"]] = option("slow")
    """How."""


@dataclass
class Lists(Group):
    """What a person's own options may hold besides tuples."""

    steps: list[int] = field(default_factory=list)
    """A list."""
    names: tuple[str, ...] = ()
    """A tuple that is always there."""


def test_filled_puts_defaults_where_nothing_is_given() -> None:
    """What was given stays, zero and empty included; what has no default stays open; the original stays open too, for a
    resumed run asks it what was given."""
    given = Thing(depth=0, names=())
    assert Thing.defaults() == {"depth": 3, "names": ("red",), "share": 0.5}
    assert given.given() == {"depth": 0, "names": (), "always": 7, "part": Size()}
    assert given.filled() == Thing(depth=0, names=(), share=0.5)
    assert given == Thing(depth=0, names=()) and given.share is None
    assert given.filled().filled() == given.filled()


def test_plain_values_come_back() -> None:
    """Options go into a checkpoint that is read with `weights_only=True`: no dataclass, no tuple. Of an earlier version
    some are missing, of a later one some are unknown; both are no reason to refuse a run."""
    thing = Thing(width=4, names=("a", "b"), part=Size(depth=9))
    plain = thing.plain()
    assert plain == {
        "width": 4,
        "depth": None,
        "names": ["a", "b"],
        "share": None,
        "always": 7,
        "part": {"width": None, "depth": 9},
    }
    assert Thing.from_plain(plain) == thing
    assert Thing.from_plain({"width": 4, "unknown": 1}) == Thing(width=4)
    assert Thing.from_plain({"part": None}) == Thing()


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": "8"}, "prune.width must be a whole number, got '8'"),
        ({"width": 8.0}, "prune.width must be a whole number, got 8.0"),
        ({"width": True}, "prune.width must be a whole number, got True"),
        ({"width": 2**63}, "prune.width must be a whole number, got 9223372036854775808"),
        ({"width": 10**9999}, "prune.width must be a whole number, got a number of 33216 bits"),
        ({"width": nested(100_000)}, "prune.width must be a whole number, got [[[...]]]"),
        ({"share": math.nan}, "prune.share must be a finite number, got nan"),
        ({"share": -math.inf}, "prune.share must be a finite number, got -inf"),
        ({"share": np.float64(np.inf)}, "prune.share must be a finite number, got inf"),
        ({"share": 10**400}, "prune.share must be a finite number, got a number of 1329 bits"),
        ({"share": torch.tensor(0.5)}, "prune.share must be a finite number, got tensor(0.5000)"),
        ({"always": None}, "prune.always must be a whole number, got None"),
        ({"names": "red"}, "prune.names must be a list of texts, got 'red'"),
        ({"names": {"red"}}, "prune.names must be a list of texts, got {'red'}"),
        ({"names": ["red", 3]}, "prune.names must be a list of texts, got ['red', 3]"),
        ({"names": ["x"] * 1001}, "prune.names must be a list of texts, got ['x', 'x', 'x', 'x', 'x', 'x', ...]"),
        ({"sizes": {"a": 1.5}}, "prune.sizes must be a mapping of texts to whole numbers, got {'a': 1.5}"),
        ({"sizes": {1: 1}}, "prune.sizes must be a mapping of texts to whole numbers, got {1: 1}"),
        ({"sizes": torch.ones(2)}, "prune.sizes must be a mapping of texts to whole numbers, got tensor([1., 1.])"),
        ({"sizes": [3]}, "prune.sizes must be a mapping of texts to whole numbers, got [3]"),
        ({"mode": "fast"}, "prune.mode must be one of slow, quick, got 'fast'"),
        ({"mode": ["slow"]}, "prune.mode must be one of slow, quick, got ['slow']"),
        ({"mode": "slow" * 2000}, "prune.mode must be one of slow, quick, got 'slow"),
        ({"part": 3}, "prune.part must be options with their values, got 3"),
        ({"part": {"depth": "3"}}, "prune.part.depth must be a whole number, got '3'"),
        ({"part": Size(depth=cast(int, "3"))}, "prune.part.depth must be a whole number, got '3'"),
        ({"part": Lists()}, "prune.part must be options with their values, got Lists("),
        ([("width", 3)], "prune must be options with their values, got [('width', 3)]"),
        (None, "prune must be options with their values, got None"),
    ],
)
def test_a_value_of_another_type_is_refused(values: Any, message: str) -> None:
    """A checkpoint, a file or a form may hold anything. What passes as «nearly» the type fails hours later, at an event
    or at a save, where no message can name the option; what is huge or deep must not take the reader down."""
    with pytest.raises(ValueError) as caught:
        Typed.from_plain(values)
    assert str(caught.value).startswith(message) and len(str(caught.value)) < 250


def test_values_that_are_as_good_as_the_type_are_taken() -> None:
    """Whole numbers are written for floats, lists come back from a checkpoint for tuples, code brings numpy's numbers;
    what is stored of them is plain, for a checkpoint loads with `weights_only=True`."""
    found = Typed.from_plain(
        {"share": 1, "width": np.int64(4), "names": ["a"], "sizes": {"b": 2}, "part": None, "mode": "quick", "gone": 3}
    )
    assert found == Typed(share=1.0, width=4, names=("a",), sizes={"b": 2}, mode="quick")
    assert type(found.share) is float and type(found.width) is int
    assert Typed.checked({"names": ["a"], "gone": 3}) == {"names": ["a"]}


def test_options_of_code_are_read_by_the_same_rules() -> None:
    """A `config.yml` or a script builds the dataclass itself, past any parser."""
    given = Typed(names=cast(tuple[str, ...], ["a"]), part=Size(depth=3))
    assert given.typed() == Typed(names=("a",), part=Size(depth=3))
    with pytest.raises(ValueError, match=r"^prune\.start_step must be a whole number, got '8'$"):
        PruneOptions(start_step=cast(int, "8")).validate()
    with pytest.raises(ValueError, match=r"^prune\.on_error must be one of stop, continue, got None$"):
        PruneOptions(on_error=cast(Any, None)).validate()


def test_lists_stay_lists() -> None:
    """A checkpoint holds lists in place of tuples. An option that was a list all along must not come back as a tuple,
    which code that appends to it would not take."""
    lists = Lists([3, 4], ("a",))
    assert lists.plain() == {"steps": [3, 4], "names": ["a"]} and Lists.from_plain(lists.plain()) == lists


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Thing(width=0), "x.width must be at least 1, got 0"),
        (Thing(depth=-2), "x.depth must be at least 1, got -2"),
        (Thing(names=()), "x.names must be at least one name, got ()"),
        (Thing(share=1.5), "x.share must be in [0, 1], got 1.5"),
    ],
)
def test_rules_of_all_groups_are_checked(thing: Thing, message: str) -> None:
    """Each group brings its rules; if the class that puts groups together hid those of its bases, the numbers of the
    others would be checked by nobody."""
    with pytest.raises(ValueError) as caught:
        thing.check_rules("x.")
    assert str(caught.value) == message


def test_what_is_not_given_breaks_no_rule() -> None:
    """None is no number; and a value on the bound is within."""
    Thing().check_rules("x.")
    Thing(width=1, depth=1, share=0.0).check_rules("x.")
    Thing(share=1.0).check_rules("x.")


def test_bounds_by_hand() -> None:
    """A bound that belongs to the range, or does not; NaN, which compares false with everything, is never within."""
    nan = float("nan")
    assert [at_least(2)[0](x) for x in (1.9, 2, nan)] == [False, True, False]
    assert [above(2)[0](x) for x in (2, 2.1, nan)] == [False, True, False]
    assert [SHARE[0](x) for x in (-0.1, 0, 1, 1.1, nan)] == [False, True, True, False, False]
    assert [PART[0](x) for x in (0, 0.1, 1, 1.1, nan)] == [False, True, True, False, False]
    assert (at_least(2.5)[1], above(0)[1]) == ("at least 2.5", "above 0")


@pytest.mark.parametrize("group", [ScheduleOptions, RecoveryOptions])
def test_groups_of_the_engine_stand_alone(group: type[Group]) -> None:
    """A subject of another kind puts them together with its own; each brings its rules, and breaking any of them is
    refused."""
    filled = group().filled()
    filled.check_rules("prune.")
    for names, _, _ in vars(group)["rules"]:
        for name in names:
            assert name in {f.name for f in fields(group)}
            with pytest.raises(ValueError, match=rf"^prune\.{name} must be .*, got -1$"):
                group(**{name: -1}).check_rules("prune.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RecoveryOptions(recovery_lr=0.1, recovery_lr_factor=2.0), "both say what the rate is from an event on"),
    ],
)
def test_rates_that_contradict_each_other(options: RecoveryOptions, message: str) -> None:
    """One of the two would win without a word."""
    with pytest.raises(ValueError, match=message):
        options.check_recovery()
    RecoveryOptions(recovery_lr=0.1, recovery_decay=5, recovery_lr_factor=2.0).check_recovery()


def test_options_of_the_run_are_not_stored() -> None:
    """What happens when an event fails, and what a page may do, belong to the run at hand: a resumed one may want it
    otherwise without making another plan."""
    options = PruneOptions(preset="a", num_events=2, on_error="continue", panel="show")
    stored = options.stored()
    assert stored["num_events"] == 2 and not {"on_error", "panel"} & set(stored)
    again = PruneOptions(panel="steer", num_events=3).with_stored(stored)
    assert (again.num_events, again.on_error, again.panel) == (2, "stop", "steer")


def test_help_shows_the_default_that_stands_in_the_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    """The field is None until it is given; the help says what holds then, in the words of the option where it has some,
    and the value that a method brings where it does. A decorated base keeps its own when it is inherited."""

    def help_of(default: Thing) -> str:
        with pytest.raises(SystemExit):
            tyro.cli(Thing, default=default, args=["--help"], prog="thing")
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    text = help_of(Thing())
    for shown in ("Depth in layers of neurons. (default: 3)", "(default: the red one)", "(default: 0.5)"):
        assert shown in text
    text = help_of(Thing(depth=5, names=("blue",)))
    assert "Depth in layers of neurons. (default: 5)" in text and "(default: blue)" in text and "0.5)" in text
    assert tyro.cli(Thing, args=["--depth", "4", "--names", "a", "b"]) == Thing(depth=4, names=("a", "b"))
