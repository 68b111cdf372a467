"""What a cut costs, on views that it was not judged by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from jaxtyping import Float64
from torch import Tensor

from nerfstudio_prune.engine.host import forked

ERRORS = 2
"""Standard errors by which a mean loss has to stay below what is promised."""


@contextmanager
def in_evaluation(model: Any) -> Iterator[None]:
    """A model that renders, without gradients; its mode and the random state are afterwards as they were.

    Args:
        model: The model.
    """
    was_training = model.training
    model.eval()
    try:
        with forked(model.device), torch.no_grad():
            yield
    finally:
        model.train(was_training)


@dataclass(frozen=True)
class HeldOut:
    """Quality of a model on views that a cut does not see; the same views and pixels for every call."""

    description: str
    """What it is measured on."""
    psnr: Callable[[Any], Float64[Tensor, " views"]]
    """PSNR of each view, in dB, of a model."""


NOTHING = HeldOut("nothing", lambda model: torch.zeros(0, dtype=torch.float64))
"""Measures nothing."""


@dataclass
class Noted:
    """Measures a model as an event of a training is measured, and keeps what each view gave."""

    held_out: HeldOut
    description: str = field(init=False)
    """What it is measured on."""
    found: list[Float64[Tensor, " views"]] = field(default_factory=list)
    """PSNR of each view, in dB, of every measurement."""

    def __post_init__(self) -> None:
        self.description = self.held_out.description

    def __call__(self, model: Any) -> dict[str, float]:
        """Measures a model.

        Args:
            model: The model.

        Returns:
            {"psnr": the mean over the views}, or nothing where there are none.
        """
        found = self.held_out.psnr(model)
        self.found.append(found)
        return {"psnr": float(found.mean())} if len(found) else {}

    @property
    def drop(self) -> Optional["Drop"]:
        """What was lost between the first and the last measurement; None where there are no views, or not two."""
        if len(self.found) < 2 or not len(self.found[0]):
            return None
        return drop_of(self.found[0], self.found[-1])


@dataclass(frozen=True)
class Drop:
    """Loss of PSNR in the mean over views, as `ns-eval` averages."""

    mean: float
    """In dB; below 0 where a cut gains."""
    error: float
    """Its standard error, in dB; infinite for a single view."""
    psnr: float
    """What is left, in dB, in the mean over the views."""

    @property
    def bound(self) -> float:
        """What the loss is at most, but for a probability of some per cent."""
        return self.mean + ERRORS * self.error


def drop_of(before: Float64[Tensor, " views"], after: Float64[Tensor, " views"]) -> Drop:
    """Loss of PSNR, paired by view.

    The standard error is that of the views' losses, s / sqrt(views). Pixels of one view are no independent draws: they
    show one place from one side, and what a cut breaks there it breaks in many of them. Taking them for independent
    would promise too much. Losses of views also hold what comes of drawing only some of their pixels.

    Args:
        before: PSNR of each view before.
        after: The same afterwards.
    """
    lost = before - after
    error = float(lost.std() / len(lost) ** 0.5) if len(lost) > 1 else float("inf")
    return Drop(float(lost.mean()), error, float(after.mean()))
