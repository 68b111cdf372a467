"""What a person may choose for a cut while a run goes on, as fields that any panel can show."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from nerfstudio_prune.core.plain import shown


@dataclass(frozen=True)
class FormField:
    """One choice, one switch or one number."""

    name: str
    """Name of the option that it stands for, or a word for several."""
    value: Any
    """What is offered at first; a bool makes it a switch."""
    hint: str
    """What it means."""
    choices: Sequence[str] = ()
    """What it may be; empty for a switch or a number."""
    low: float = 0.0
    high: float = 1.0
    step: float = 0.01
    slider: bool = False
    """Whether a number is chosen on a line."""

    def check(self, value: Any) -> None:
        """Checks a value that comes from outside, of whatever type.

        Args:
            value: What arrived.

        Raises:
            ValueError: Names the field, what was found and what was expected.
        """
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.choices:
            fits, expected = isinstance(value, str) and value in self.choices, f"one of {', '.join(self.choices)}"
        elif isinstance(self.value, bool):
            fits, expected = isinstance(value, bool), "on or off"
        else:  # a comparison with NaN does not hold
            fits, expected = number and self.low <= value <= self.high, f"a number in [{self.low:g}, {self.high:g}]"
        if not fits:
            raise ValueError(f"{self.name} must be {expected}, got {shown(value)}")


def check_values(values: Mapping[str, Any], fields: Sequence[FormField], optional: Set[str] = frozenset()) -> None:
    """Checks what a person, or whoever else, chose on a form.

    Args:
        values: Name of the field -> value.
        fields: The fields; each needs a value.
        optional: Names of fields that may be None.

    Raises:
        ValueError: Names the field, what was found and what was expected.
    """
    names = [field.name for field in fields]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(f"{shown(unknown[0])} is no field of the form; the fields are {', '.join(names)}")
    for field in fields:
        value = values.get(field.name)
        if value is not None or field.name not in optional:
            field.check(value)


@runtime_checkable
class Form(Protocol):
    """The fields of a subject, and what their values come to. Options are those of the subject's methods."""

    @property
    def closed(self) -> str:
        """Why nothing can be cut by hand here; empty if it can."""
        ...

    def exhausted(self, recipe: Any) -> str:
        """Why nothing is left to cut with some options; empty if something is."""
        ...

    def fields(self, options: Any) -> Sequence[FormField]:
        """The fields, with the values that come nearest to the options in force."""
        ...

    def unused(self, values: Mapping[str, Any]) -> Set[str]:
        """Names of the fields that have no meaning beside the values of the others, whatever these are."""
        ...

    def options(self, values: Mapping[str, Any], base: Any) -> Any:
        """Options for a cut; what the fields do not name is as in the run.

        Args:
            values: Name of the field -> value; not to be trusted, see `check_values`.
            base: Options in force in the run.

        Raises:
            ValueError: If they contradict each other, or a value is none of the choices.
        """
        ...

    def named(self, options: Any) -> Mapping[str, Any]:
        """Option -> value, of those that the fields name; None for options that these take the place of."""
        ...
