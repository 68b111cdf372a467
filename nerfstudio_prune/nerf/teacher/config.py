"""Options of recovery with the dense network as a teacher, under `--pipeline.prune.teacher`."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Optional

from nerfstudio.configs.base_config import PrintableConfig


@dataclass
class TeacherConfig(PrintableConfig):
    """What the dense network of right before the first event teaches the pruned one.

    None means «not given», as in the other options of pruning; `filled` puts the defaults in.
    """

    steps: Optional[int] = None
    """Training steps after each event in which the teacher is used; 0 is off. None: 0."""
    point_share: Optional[float] = None
    """First share of these steps, in [0, 1], that learn the teacher's densities and colours point by point, without
    rendering it; the others learn its rendered colours. None: 1."""
    point_weight: Optional[float] = None
    """Weight of the point-by-point loss beside the photo loss, >= 0. None: 1."""
    colour_weight: Optional[float] = None
    """Rendered steps: the fine photo loss is mixed with the error against the teacher's colour of the same ray, which
    gets this share, in [0, 1]. None: 0.5."""
    pseudo_rays: Optional[float] = None
    """Rendered steps: extra rays from poses near the training rays, whose colours the teacher gives, as a share of the
    batch in [0, 1]. None: 0.25."""
    jitter: Optional[float] = None
    """How far the origin of such a ray moves at most, in units of the scene, >= 0. None: 0.1."""
    jitter_degrees: Optional[float] = None
    """How far the direction of such a ray turns at most, in degrees, in [0, 180]. None: 2."""
    hard_rays: Optional[float] = None
    """Rendered steps: extra training rays from a pool of those with the largest error, as a share of the batch in
    [0, 1]. None: 0."""
    hard_pool: Optional[int] = None
    """Rays that the pool keeps. None: 4096."""
    coarse_weight: Optional[float] = None
    """Weight of the loss that lets the coarse field put its samples where the teacher's fine field sees something,
    >= 0. None: 0."""

    def filled(self) -> "FilledTeacherConfig":
        """A copy with the defaults in place of what is not given."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return FilledTeacherConfig(**{name: value for name, value in given.items() if value is not None})


@dataclass
class FilledTeacherConfig(TeacherConfig):
    """Options with their defaults; what all code below works with."""

    steps: int = 0
    point_share: float = 1.0
    point_weight: float = 1.0
    colour_weight: float = 0.5
    pseudo_rays: float = 0.25
    jitter: float = 0.1
    jitter_degrees: float = 2.0
    hard_rays: float = 0.0
    hard_pool: int = 4096
    coarse_weight: float = 0.0


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


TEACHER_RULES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("point_share", "colour_weight", "pseudo_rays", "hard_rays"), _is_share, "in [0, 1]"),
    (("steps", "point_weight", "jitter", "coarse_weight"), lambda value: value >= 0, "at least 0"),
    (("jitter_degrees",), lambda value: 0 <= value <= 180, "in [0, 180]"),
    (("hard_pool",), lambda value: value >= 1, "at least 1"),
)
"""Names of options, what holds for their values, and that in words."""
