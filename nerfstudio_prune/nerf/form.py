"""A cut of neurons as a person chooses it: a few of the options under `--pipeline.prune`, the rest as in the run."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Literal, cast, get_args

from nerfstudio_prune.core.form import FormField, check_values
from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.presets import HALF, TARGETS
from nerfstudio_prune.nerf.recipes import NeuronRecipe
from nerfstudio_prune.nerf.targets import BYTES, initial_widths, resolve_targets
from nerfstudio_prune.neurons.budget import cost_of
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.refit import RefitMode
from nerfstudio_prune.neurons.scores import SCORES
from nerfstudio_prune.neurons.strategies import EDGE, STRATEGIES

TargetName = Literal["pruning_ratio", "target_parameters", "target_macs"]
OWN_SCORE = "strategy's own"


class NeuronForm:
    """Strategy, score, refit, target and learning rate of a cut of neurons.

    Args:
        model: The model.
        closed: Why nothing can be cut by hand; empty if it can.
    """

    def __init__(self, model: PruneModel, closed: str = "") -> None:
        self.model = model
        self.closed = closed

    def exhausted(self, recipe: Any) -> str:
        """Why nothing is left to cut; empty if something is."""
        least = recipe.options["min_width"]
        if all(group.width <= least for group in self.model.neuron_groups()):
            return f"nothing to prune: all layers are at min_width {least}"
        return ""

    def fields(self, options: PruneConfig) -> Sequence[FormField]:
        """The fields, with the cut that comes nearest to the options; where they name no neurons, the default preset's.

        Args:
            options: Options in force.
        """
        if options.strategy in (EDGE, "none"):
            options = PruneConfig().filled()
        target, value = self._nearest_target(options)
        factor = float(options.recovery_lr_factor or 1.0)
        return (
            FormField(
                "strategy",
                options.strategy,
                "Which neurons stay. obs and pivoted-qr look at training rays and need no score; obs is the best with "
                "refit lstsq.",
                sorted(STRATEGIES),
            ),
            FormField(
                "score",
                options.score or OWN_SCORE,
                "What a neuron is worth, for strategies that take a score.",
                [OWN_SCORE, *sorted(SCORES)],
            ),
            FormField(
                "refit",
                options.refit,
                "How the neurons that stay take over what left: lstsq by least squares on training rays, merge "
                "without rays, none not at all.",
                get_args(RefitMode),
            ),
            FormField(
                "target",
                target,
                "pruning_ratio: share of every layer's first width to remove. target_parameters, target_macs: share "
                "of the first parameters, or operations, of both fields to keep; each layer gets what it needs.",
                get_args(TargetName),
            ),
            FormField("value", value, "Value of the target.", slider=True),
            FormField(
                "lr_factor",
                factor,
                "recovery_lr_factor: on the learning rate from this cut on; used for the plan, from now on. Narrow "
                "layers bear larger rates.",
                low=min(0.1, factor),
                high=max(10.0, factor),
                step=0.1,
            ),
        )

    def unused(self, values: Mapping[str, Any]) -> Set[str]:
        """The score, beside a strategy that ranks the neurons itself."""
        strategy = values.get("strategy")
        if not isinstance(strategy, str) or strategy not in STRATEGIES:
            return set()
        return {"score"} if STRATEGIES[strategy]().needs_samples else set()

    def options(self, values: Mapping[str, Any], base: PruneConfig) -> PruneConfig:
        """Options for a cut; what the fields do not name is as in the run.

        Args:
            values: Name of the field -> value; a score of None is the strategy's own.
            base: Options in force in the run.

        Raises:
            ValueError: If a value is none of the choices, or they contradict each other.
        """
        check_values(values, self.fields(base), optional={"score"})
        score = values["score"]
        own: dict[str, Any] = {
            **dict.fromkeys(TARGETS, None),
            values["target"]: values["value"],
            "strategy": values["strategy"],
            "score": None if score in (None, OWN_SCORE) else score,
            "refit": values["refit"],
            "recovery_lr_factor": values["lr_factor"],
        }
        options = replace(
            base,
            coarse=FieldTargetConfig(),
            fine=FieldTargetConfig(),
            edge_threshold=None,
            edge_keep_fraction=None,
            **own,
        )
        options.validate()
        return options

    def named(self, options: PruneConfig) -> Mapping[str, Any]:
        """The options that the fields name, and those that these take the place of as None."""
        values = options.stored()
        names = ("strategy", "score", "refit", "recovery_lr_factor", *TARGETS)
        return {**{name: values[name] for name in names}, "coarse": None, "fine": None}

    def _nearest_target(self, options: PruneConfig) -> tuple[TargetName, float]:
        """A target that the fields offer, for targets that only a share of the parameters comes near to."""
        for name in get_args(TargetName):
            value = getattr(options, name)
            if value is not None and not options.own:
                return name, value
        groups, initial = self.model.neuron_groups(), initial_widths(self.model)
        units = dict.fromkeys(linears(groups), 1)
        first = cost_of(groups, initial, units, True)
        if options.target_mb is not None:
            return "target_parameters", min(1.0, options.target_mb * 1e6 / BYTES / first)
        if not (options.widths or options.own):
            return "pruning_ratio", HALF
        recipe = cast(NeuronRecipe, options.resolve())
        try:
            widths = resolve_targets(recipe, groups, initial)
        except ValueError:  # a width above that of a network which is pruned already
            return "pruning_ratio", HALF
        return "target_parameters", cost_of(groups, {**initial, **widths}, units, True) / first
