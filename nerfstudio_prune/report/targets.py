"""What had to be reached, and whether it was."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nerfstudio_prune.report.stats import MINUS, Stat

StudyT = TypeVar("StudyT", bound=Any)
"""What may be compared; has a `scene`."""


@dataclass(frozen=True)
class Target(Generic[StudyT]):
    """One target."""

    scene: str
    words: str
    """What was to be reached."""
    value: Callable[[StudyT], Stat]
    """What was, over the seeds."""
    reached: Callable[[float], bool]
    """Whether a mean is enough."""
    digits: int = 2
    unit: str = "dB"
    signed: bool = False
    """Whether it is a difference."""


def told(targets: Sequence[Target[StudyT]], studies: Sequence[StudyT]) -> Iterator[tuple[StudyT, list[str]]]:
    """Every target of a scene that there are records of, in the order of the targets.

    Args:
        targets: The targets.
        studies: What was measured.

    Yields:
        The study, and cells: the target, what was measured, yes or no, and the number of seeds.
    """
    for target in targets:
        for study in (study for study in studies if study.scene == target.scene):
            stat = target.value(study)
            if stat.mean is None:
                continue
            value = f"{stat.text(target.digits, target.signed)} {target.unit}".strip()
            verdict = "yes" if target.reached(stat.mean) else "no"
            yield study, [target.words.replace(" -", f" {MINUS}"), value, verdict, str(stat.n)]
