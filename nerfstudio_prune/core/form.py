"""What a person may choose for a cut while a run goes on, as fields that any panel can show."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class FormField:
    """One choice or one number."""

    name: str
    """Name of the option that it stands for, or a word for several."""
    value: Any
    """What is offered at first."""
    hint: str
    """What it means."""
    choices: Sequence[str] = ()
    """What it may be; empty for a number."""
    low: float = 0.0
    high: float = 1.0
    step: float = 0.01
    slider: bool = False
    """Whether a number is chosen on a line."""


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
        """Names of the fields that have no meaning beside the values of the others."""
        ...

    def options(self, values: Mapping[str, Any], base: Any) -> Any:
        """Options for a cut; what the fields do not name is as in the run.

        Args:
            values: Name of the field -> value.
            base: Options in force in the run.

        Raises:
            ValueError: If they contradict each other, or a value is none of the choices.
        """
        ...

    def named(self, options: Any) -> Mapping[str, Any]:
        """Option -> value, of those that the fields name; None for options that these take the place of."""
        ...
