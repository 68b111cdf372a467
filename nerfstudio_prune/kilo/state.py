"""What a checkpoint holds of a run besides tensors."""

from dataclasses import dataclass
from typing import Any, Literal, Optional

from nerfstudio_prune.kilo.config import KiloOptions
from nerfstudio_prune.kilonerf.spaces import SpaceName

VERSION = 3
Background = Literal["random", "last_sample", "black", "white"]
"""Colours behind a scene, by the host's names."""


@dataclass(frozen=True)
class KiloState:
    """State of a run; plain values only."""

    options: Optional[KiloOptions] = None
    """Options in force. None: nothing has been made of the teacher yet."""
    background: Background = "white"
    """What is behind the scene, as the teacher was trained."""
    teacher: str = ""
    """Tells the teacher's weights apart from others."""
    seed: int = 0
    """Seed of examples, batches of photos and shifts of samples."""
    space: SpaceName = "bounded"
    """The space that cells lie in."""

    def plain(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "version": VERSION,
            "options": None if self.options is None else self.options.plain(),
            "background": self.background,
            "teacher": self.teacher,
            "seed": self.seed,
            "space": self.space,
        }
