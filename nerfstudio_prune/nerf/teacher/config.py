"""Options of recovery with the dense network as a teacher, under `--pipeline.prune.teacher`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from nerfstudio_prune.engine.options import MAX_STEPS, SHARE, Effect, Group, Rule, at_least, option, with_help


@dataclass(frozen=True)
class TeacherRecipe:
    """What the options come to; meanings are those of `TeacherConfig`."""

    steps: int
    point_share: float
    point_weight: float
    colour_weight: float
    pseudo_rays: float
    jitter: float
    jitter_degrees: float
    hard_rays: float
    hard_pool: int
    coarse_weight: float


_RENDERED = "teacher.steps and a teacher.point_share below 1"


@with_help
@dataclass
class TeacherConfig(Group):
    """What the dense network of right before the first event teaches the pruned one.

    None means «not given», as in the other options of pruning.
    """

    steps: Optional[int] = option(0)
    """Training steps after each event in which the teacher is used; 0 is off."""
    point_share: Optional[float] = option(1.0)
    """First share of these steps, in [0, 1], that learn the teacher's densities and colours point by point, without
    rendering it; the others learn its rendered colours."""
    point_weight: Optional[float] = option(1.0)
    """Weight of the point-by-point loss beside the photo loss, in [0, 1000]."""
    colour_weight: Optional[float] = option(0.5)
    """Rendered steps: the fine photo loss is mixed with the error against the teacher's colour of the same ray, which
    gets this share, in [0, 1]."""
    pseudo_rays: Optional[float] = option(0.25)
    """Rendered steps: extra rays from poses near the training rays, whose colours the teacher gives, as a share of the
    batch in [0, 1]."""
    jitter: Optional[float] = option(0.1)
    """How far the origin of such a ray moves at most, in units of the scene, in [0, 100]."""
    jitter_degrees: Optional[float] = option(2.0)
    """How far the direction of such a ray turns at most, in degrees, in [0, 180]."""
    hard_rays: Optional[float] = option(0.0)
    """Rendered steps: extra training rays from a pool of those with the largest error, as a share of the batch in
    [0, 1]."""
    hard_pool: Optional[int] = option(4096)
    """Rays that the pool keeps, at most 262,144."""
    coarse_weight: Optional[float] = option(0.0)
    """Weight of the loss that lets the coarse field put its samples where the teacher's fine field sees something,
    in [0, 1000]."""

    rules: ClassVar[Sequence[Rule]] = (
        (("steps",), *at_least(0, MAX_STEPS)),
        (("point_share", "colour_weight", "pseudo_rays", "hard_rays"), *SHARE),
        (("point_weight", "coarse_weight"), *at_least(0, 1000)),
        (("jitter",), *at_least(0, 100)),
        (("jitter_degrees",), lambda value: 0 <= value <= 180, "in [0, 180]"),
        (("hard_pool",), *at_least(1, 2**18)),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("point_share", "coarse_weight"), lambda o: o.steps > 0, "teacher.steps"),
        (("point_weight",), lambda o: o.num_points > 0, "teacher.steps and a teacher.point_share above 0"),
        (("colour_weight", "pseudo_rays", "hard_rays"), lambda o: o.renders, _RENDERED),
        (("jitter", "jitter_degrees"), lambda o: o.renders and o.pseudo_rays > 0, f"teacher.pseudo_rays, {_RENDERED}"),
        (("hard_pool",), lambda o: o.renders and o.hard_rays > 0, f"teacher.hard_rays, {_RENDERED}"),
    )

    @property
    def num_points(self) -> int:
        """Steps that learn point by point, of options that are filled in."""
        assert self.point_share is not None and self.steps is not None
        return round(self.point_share * self.steps)

    @property
    def renders(self) -> bool:
        """Whether there are steps that learn rendered colours, of options that are filled in."""
        assert self.steps is not None
        return self.num_points < self.steps

    def resolve(self) -> TeacherRecipe:
        """What the options come to."""
        values: dict[str, Any] = vars(self.filled())
        return TeacherRecipe(**values)
