"""What the options of pruning Gaussians come to; all that the code below the configuration sees of them."""

from dataclasses import dataclass
from typing import Literal, Optional

from nerfstudio_prune.engine.options import Recipe
from nerfstudio_prune.gaussians.scores import Score

StrategyName = Literal["rank", "merge", "random", "none"]
DistilTarget = Literal["photo", "teacher", "mixed"]
DistilLoss = Literal["splatfacto", "l2"]


@dataclass(frozen=True)
class DistilRecipe:
    """How the spherical harmonics learn after their degree was lowered; meanings are those of `DistilOptions`."""

    steps: int
    target: DistilTarget
    loss: DistilLoss
    sigma: float
    share: float
    geometry: bool


@dataclass(frozen=True, kw_only=True)
class GaussianRecipe(Recipe):
    """How Gaussians are cut."""

    score_function: Optional[Score]
    """What ranks them; None for a rule without a score."""
    rounds: int
    """Times that scores are taken anew within one event."""
    aim: Optional[tuple[str, float]]
    """Name and value of the target; None where nothing is cut."""
    sh_degree: Optional[int]
    """Degree of the spherical harmonics in the end; None: as it is."""
    sh_step: Optional[int]
    """Training step at whose end it is lowered."""
    distil: DistilRecipe
    """How they learn then."""

    @property
    def looks(self) -> bool:
        """Whether the choice looks at training views."""
        by_views = self.score_function is not None and bool(self.score_function.needs)
        return by_views or self.strategy == "merge"
