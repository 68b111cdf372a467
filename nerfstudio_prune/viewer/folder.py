"""What a method offers in the viewer where nothing is steered: what there is to know, and what changes its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from torch import Tensor

from nerfstudio_prune.core.form import FormField
from nerfstudio_prune.viewer.session import TrainingState


@dataclass(frozen=True)
class Frame:
    """What became of a picture."""

    width: int
    height: int
    seconds: float
    """What the outputs that all pictures need took, with what the viewer itself does meanwhile."""
    measured: Any
    """What the folder took down of it."""


class Folder(Protocol):
    """What a method offers."""

    title: str
    """Of the folder."""
    cpu_still: int
    """Pixels of the longer side of a still that a CPU renders in a second or so."""
    split: str
    """Output that the other half of a split screen shows at first."""

    @property
    def model(self) -> Any:
        """The model that is trained, or was."""
        ...

    def further(self, trains: bool) -> Mapping[str, int]:
        """Outputs that are rendered only where they are shown.

        Args:
            trains: Whether there is a training.

        Returns:
            Name -> channels. Some of them may be there for a part of a training only.
        """
        ...

    def fields(self) -> Sequence[FormField]:
        """What a person may choose for pictures of the viewer."""
        ...

    def stand_in(self, values: Mapping[str, Any]) -> Any:
        """The model as the viewer is to render it; the one that is trained and measured stays as it is.

        Args:
            values: Name of the field -> value, checked.
        """
        ...

    def measured(self, outputs: Mapping[str, Tensor]) -> Any:
        """What is to be told of a picture.

        Args:
            outputs: What the stand-in gave.
        """
        ...

    def text(self, step: int, training: TrainingState, frame: Optional[Frame]) -> str:
        """What there is to know, as Markdown. Reads plain values only: it is called without any lock.

        Args:
            step: Training step that ended last.
            training: What the trainer does.
            frame: The last picture; None if there was none.
        """
        ...
