"""A cut of Gaussians as a person chooses it: a few of the options under `--pipeline.prune`, the rest as in the run."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Literal, get_args

from nerfstudio_prune.core.form import FormField, check_values
from nerfstudio_prune.gaussians.scores import SCORES
from nerfstudio_prune.gaussians.selecting import floor_of
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.presets import PRESETS, TARGETS

StrategyChoice = Literal["rank", "merge", "random"]
AS_IT_IS = "as it is"
"""Choice of a degree that leaves it to the options that are given beside the form."""


class GaussianForm:
    """Strategy, score, rounds, how many Gaussians leave, and the degree of the spherical harmonics.

    Args:
        model: The model.
    """

    closed = ""

    def __init__(self, model: SplatPruneModel) -> None:
        self.model = model

    def exhausted(self, recipe: Any) -> str:
        """Why nothing is left to cut; empty if something is."""
        count, degree = self.model.num_points, self.model.gaussians.sh_degree
        done = self.model.prune_state.succeeded
        floor = floor_of(done[0].before.parts["gaussians"] if done else count)
        if count > floor or degree > 0:
            return ""
        return f"nothing to prune: {count:,} Gaussians are left, and {floor:,} must stay"

    def fields(self, options: SplatPruneConfig) -> Sequence[FormField]:
        """The fields, with the cut that comes nearest to the options.

        Args:
            options: Options in force.
        """
        options = options.filled()
        best = PRESETS["best"]
        ratio = best["pruning_ratio"] if options.pruning_ratio is None else options.pruning_ratio
        named = options.score in SCORES
        return (
            FormField(
                "strategy",
                options.strategy if options.strategy in get_args(StrategyChoice) else "rank",
                "Which Gaussians stay: those of the highest score, or chosen at random; merge makes one of two.",
                get_args(StrategyChoice),
            ),
            FormField(
                "score",
                options.score if named else best["score"],
                "What a Gaussian is worth, for strategy rank. removal: what the training views lose without it.",
                sorted(SCORES),
            ),
            FormField(
                "rounds",
                float(options.rounds or 1),
                "Times that scores are taken anew within one cut.",
                low=1.0,
                high=max(12.0, float(options.rounds or 1)),
                step=1.0,
            ),
            FormField("pruning_ratio", ratio, "Share of the first Gaussians to remove, below 1.", slider=True),
            FormField(
                "sh_degree",
                AS_IT_IS,
                "Degree that the spherical harmonics are lowered to with the cut. As it is: a cut by hand leaves it, "
                "and the plan keeps its own.",
                (AS_IT_IS, *map(str, reversed(range(self.model.config.sh_degree)))),
            ),
        )

    def unused(self, values: Mapping[str, Any]) -> Set[str]:
        """Score and rounds, beside a strategy that does not rank."""
        return set() if values.get("strategy") == "rank" else {"score", "rounds"}

    def options(self, values: Mapping[str, Any], base: SplatPruneConfig) -> SplatPruneConfig:
        """Options for a cut; what the fields do not name is as in the run.

        Args:
            values: Name of the field -> value.
            base: Options in force in the run.

        Raises:
            ValueError: If a value is none of the choices, or they contradict each other.
        """
        check_values(values, self.fields(base), optional={"score", "rounds", "sh_degree"})
        own: dict[str, Any] = {
            **dict.fromkeys(TARGETS, None),
            "pruning_ratio": float(values["pruning_ratio"]),
            "strategy": values["strategy"],
        }
        if values.get("score") is not None:
            own["score"] = values["score"]
        if values.get("rounds") is not None:
            own["rounds"] = round(values["rounds"])
        if values.get("sh_degree") not in (None, AS_IT_IS):
            own["sh_degree"] = self._lower(int(values["sh_degree"]))
        options = replace(base, **own)
        options.validate()
        return options

    def _lower(self, degree: int) -> int:
        """A degree, if it is below the present one."""
        present = self.model.gaussians.sh_degree
        if degree >= present:
            raise ValueError(f"sh_degree must be {AS_IT_IS!r} or below the present {present}, got {degree}")
        return degree

    def named(self, options: SplatPruneConfig) -> Mapping[str, Any]:
        """The options that the fields name, and those that these take the place of as None."""
        values = options.stored()
        return {name: values[name] for name in ("strategy", "score", "rounds", "sh_degree", *TARGETS)}
