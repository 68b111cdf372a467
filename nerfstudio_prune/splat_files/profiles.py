"""Recipes for small files."""

from dataclasses import dataclass
from typing import Literal

RoundedName = Literal["small", "tiny"]
ProfileName = Literal["small", "tiny", "paper"]


@dataclass(frozen=True)
class Profile:
    """How far numbers are rounded."""

    largest_loss: float
    """What pictures may lose, where they can be measured, in dB."""
    budget: float
    """Mean square error of the pictures for each number, where they cannot; see `choose_steps`."""


PROFILES: dict[RoundedName, Profile] = {"small": Profile(0.04, 1e-12), "tiny": Profile(0.3, 1e-11)}
"""Name -> recipe, of those whose rounding goes by what pictures see."""
PAPER_BITS = 16
"""Of a coordinate, in the profile `paper`."""
