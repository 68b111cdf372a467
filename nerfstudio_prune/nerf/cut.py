"""A cut as a person chooses it: a few of the options under `--pipeline.prune`, the rest as in the run."""

from dataclasses import dataclass, replace
from typing import Literal, Optional, get_args

from nerfstudio_prune.engine.planning import resolve_targets
from nerfstudio_prune.nerf.allocation import BYTES
from nerfstudio_prune.nerf.config import FieldTargetConfig, FilledPruneConfig, PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.presets import TARGETS
from nerfstudio_prune.nerf.sizes import initial_sizes_of
from nerfstudio_prune.neurons.budget import cost_of
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.refit import RefitMode
from nerfstudio_prune.neurons.strategies import STRATEGIES

TargetName = Literal["pruning_ratio", "target_parameters", "target_macs"]
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)


@dataclass(frozen=True)
class Cut:
    """How to cut; names and meanings are those of the options under `--pipeline.prune`."""

    strategy: str
    """Which neurons stay; not `edge` or `none`."""
    score: Optional[str]
    """Score of a neuron; None: the strategy's own."""
    refit: RefitMode
    """How the neurons that stay take over what left."""
    target: TargetName
    """The option that says how far."""
    value: float
    """Its value."""
    recovery_lr_factor: float = 1.0
    """Factor on the learning rate from the event on, > 0."""

    def options(self, base: FilledPruneConfig) -> FilledPruneConfig:
        """Options for an event; what a cut does not name is as in the run.

        Args:
            base: Options in force in the run.

        Raises:
            ValueError: If they contradict each other.
        """
        if self.strategy in ("edge", "none"):
            raise ValueError(
                f"prune.strategy {self.strategy} removes no neurons; choose one of {', '.join(STRATEGIES)}"
            )
        config = replace(
            base,
            **dict.fromkeys(TARGETS, None),
            coarse=FieldTargetConfig(),
            fine=FieldTargetConfig(),
            edge_threshold=None,
            edge_keep_fraction=None,
            strategy=self.strategy,
            score=self.score,
            refit=self.refit,
            recovery_lr_factor=self.recovery_lr_factor,
        )
        config = replace(config, **{self.target: self.value})
        config.validate()
        return config

    @classmethod
    def of(cls, config: FilledPruneConfig, model: PruneModel) -> "Cut":
        """The nearest cut to the options of a run; where they name no neurons, those of the default preset.

        Args:
            config: Options in force.
            model: The model, for targets that only a share of the parameters comes near to.
        """
        if config.strategy in ("edge", "none"):
            config = PruneConfig().filled()
        target, value = _nearest_target(config, model)
        return cls(config.strategy, config.score, config.refit, target, value, config.recovery_lr_factor)


def _nearest_target(config: FilledPruneConfig, model: PruneModel) -> tuple[TargetName, float]:
    for name in TARGET_NAMES:
        value = getattr(config, name)
        if value is not None and not config.coarse.given and not config.fine.given:
            return name, value
    initial = initial_sizes_of(model)
    if config.target_mb is not None:
        return "target_parameters", min(1.0, config.target_mb * 1e6 / BYTES / initial.parameters)
    groups = model.neuron_groups()
    own = config.has_neuron_target or config.coarse.given or config.fine.given
    try:
        widths = resolve_targets(config, groups, initial.groups) if own else None
    except ValueError:  # a width above that of a network which is pruned already
        widths = None
    if widths is None:
        return "pruning_ratio", 0.5
    units = dict.fromkeys(linears(groups), 1)
    return "target_parameters", cost_of(groups, {**initial.groups, **widths}, units, True) / initial.parameters


def target_text(config: FilledPruneConfig) -> str:
    """How far the options go, in a few words."""
    if config.strategy == "edge":
        if config.edge_threshold is not None:
            return f"edge_threshold {config.edge_threshold:g}"
        return f"edge_keep_fraction {0.5 if config.edge_keep_fraction is None else config.edge_keep_fraction:g}"
    if config.has_budget:
        name, value = config.budget_option
        return f"{name} {value:g}"
    if config.group_widths is not None:
        return "group_widths"
    named = [(name, getattr(config, name)) for name in ("width", "head_width", "pruning_ratio")]
    own = [name for name in ("coarse", "fine") if getattr(config, name).given]
    texts = [f"{name} {value:g}" for name, value in named if value is not None]
    return ", ".join([*(texts or ["pruning_ratio 0.5"]), *own])
