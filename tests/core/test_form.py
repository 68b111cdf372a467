"""What a field of a form lets through."""

from typing import Any

import pytest

from nerfstudio_prune.core.form import FormField, check_values

CHOICE = FormField("rule", "a", "", ("a", "b"))
NUMBER = FormField("factor", 1.0, "", low=0.5, high=2.0)
SWITCH = FormField("on", False, "")
FIELDS = (CHOICE, NUMBER, SWITCH)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "value"),
    [(CHOICE, "a"), (CHOICE, "b"), (NUMBER, 0.5), (NUMBER, 2), (NUMBER, 1.25), (SWITCH, True), (SWITCH, False)],
)
def test_what_is_offered_passes(field: FormField, value: Any) -> None:
    """A page sends 2 for 2.0."""
    field.check(value)


WRONG = [
    *(
        (CHOICE, value, "rule must be one of a, b")
        for value in ("c", "", "A", 0, None, ["a"], b"a", NAN, {}, "x" * 10_000)
    ),
    *(
        (NUMBER, value, r"factor must be a number in \[0\.5, 2\]")
        for value in (0.49, 2.01, -1, NAN, INF, -INF, 10**400, True, "1", None, [1.0], {})
    ),
    *((SWITCH, value, "on must be on or off") for value in (1, 0, "True", "", None, [])),
]


@pytest.mark.parametrize(("field", "value", "expected"), WRONG)
def test_what_is_not_offered_is_named(field: FormField, value: Any, expected: str) -> None:
    """Field, what was found and what was expected; what was found may be megabytes, the message is a line."""
    with pytest.raises(ValueError, match=f"{expected}, got ") as error:
        field.check(value)
    assert len(str(error.value)) < 200


def test_a_form_takes_its_own_fields_only() -> None:
    """A name that is an option, and no field, must not become one; a field that is left away must not be guessed."""
    good = {"rule": "a", "factor": 1.0, "on": True}
    check_values(good, FIELDS)
    with pytest.raises(ValueError, match="'seed' is no field of the form; the fields are rule, factor, on"):
        check_values({**good, "seed": 3}, FIELDS)
    with pytest.raises(ValueError, match=r"factor must be a number in .*, got None"):
        check_values({"rule": "a", "on": True}, FIELDS)
    check_values({"rule": "a", "on": True}, FIELDS, optional={"factor"})
    with pytest.raises(ValueError, match="factor must be a number"):
        check_values({**good, "factor": NAN}, FIELDS, optional={"factor"})
