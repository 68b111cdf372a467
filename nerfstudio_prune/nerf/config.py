"""Options of pruning a vanilla NeRF, under `--pipeline.prune`, and what they are resolved to."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, Optional

from typing_extensions import Self

from nerfstudio_prune.engine.options import (
    MAX_STEPS,
    PART,
    SHARE,
    ChoiceOptions,
    Effect,
    Group,
    PruneOptions,
    Rule,
    RunOptions,
    above,
    at_least,
    option,
    with_help,
)
from nerfstudio_prune.nerf.presets import BUDGETS, HALF, PRESETS, TARGETS, PresetName, preset_options
from nerfstudio_prune.nerf.recipes import (
    COARSE_ERROR_WEIGHT,
    Calibration,
    EdgeRecipe,
    FieldRecipe,
    FieldTarget,
    NeuronRecipe,
)
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.neurons.compaction import MomentsMode
from nerfstudio_prune.neurons.edges import EdgeScope
from nerfstudio_prune.neurons.refit import Refit, RefitMode
from nerfstudio_prune.neurons.samples import SampleWeights
from nerfstudio_prune.neurons.scores import SCORES, needs_of, score_by_name
from nerfstudio_prune.neurons.strategies import EDGE, STRATEGIES, ImportanceStrategy, Strategy

RATIO: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < 1, "in [0, 1)")
"""Rule for a share that leaves something."""
FACTOR = at_least(1e-6, 10**6)
"""Rule for a factor that makes something count more or less, but not nothing."""


@dataclass
class FieldTargetConfig(Group):
    """Target of one field; replaces the common one for it."""

    width: Optional[int] = None
    """Neurons that stay in each trunk layer; the head shrinks in proportion unless head_width is given."""
    head_width: Optional[int] = None
    """Neurons that stay in each head layer."""
    pruning_ratio: Optional[float] = None
    """Fraction of the initial neurons to remove from every layer, in [0, 1); 0 leaves this field whole."""

    rules: ClassVar[Sequence[Rule]] = ((("pruning_ratio",), *RATIO),)

    def check_target(self, prefix: str, min_width: int) -> None:
        """Checks the target.

        Args:
            prefix: What stands before an option's name on the command line.
            min_width: Fewest neurons of a layer.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        if self.pruning_ratio is not None and (self.width is not None or self.head_width is not None):
            raise ValueError(
                f"{prefix}width/head_width and {prefix}pruning_ratio are contradictory targets; give exactly one of "
                "them"
            )
        for name in ("width", "head_width"):
            check_width(prefix + name, getattr(self, name), min_width)


def check_width(name: str, width: Optional[int], min_width: int) -> None:
    """Checks an explicit width.

    Raises:
        ValueError: If it lies below the fewest neurons that a layer may have.
    """
    if width is not None and width < min_width:
        raise ValueError(f"{name} must be at least min_width = {min_width}, got {width}")


@with_help
@dataclass
class TargetOptions(Group):
    """How far to prune. Without any target, the preset's included, every layer loses half of its neurons."""

    width: Optional[int] = None
    """Neurons that stay in each trunk layer; the head shrinks in proportion unless head_width is given."""
    head_width: Optional[int] = None
    """Neurons that stay in each head layer."""
    pruning_ratio: Optional[float] = None
    """Fraction of the initial neurons to remove from every layer, in [0, 1)."""
    group_widths: Optional[dict[str, int]] = None
    """Name pattern -> neurons that stay, e.g. `field_fine.mlp_base.layers.[0-3] 64`; other layers stay whole."""
    coarse: FieldTargetConfig = field(default_factory=FieldTargetConfig)
    """Target of the coarse field, instead of the common one."""
    fine: FieldTargetConfig = field(default_factory=FieldTargetConfig)
    """Target of the fine field, instead of the common one."""
    target_parameters: Optional[float] = None
    """Budget instead of widths: share of the initial parameters of both fields, in (0, 1]. Widths are allocated by what
    each layer's error would be on calibration samples."""
    target_macs: Optional[float] = None
    """Budget instead of widths: share of the initial multiply-accumulates per ray, in (0, 1]; what training and
    rendering take."""
    target_mb: Optional[float] = None
    """Budget instead of widths: size of both fields in fp32, in units of 10^6 bytes."""
    coarse_error_weight: Optional[float] = option(COARSE_ERROR_WEIGHT)
    """Under a budget: how much errors of the coarse field count, in [1e-6, 1e6]; it only shapes the sampling."""
    groups: Optional[tuple[str, ...]] = option(("*",), "all")
    """Layers to prune, as name patterns; `*.mlp_base.layers.[1-7]` are the seven 256x256 layers of the paper."""
    min_width: Optional[int] = option(8)
    """Fewest neurons of a layer; an explicit width below it is an error."""

    rules: ClassVar[Sequence[Rule]] = (
        (("pruning_ratio",), *RATIO),
        (("min_width",), *at_least(1, 2**16)),
        (("target_parameters", "target_macs"), *PART),
        (("target_mb",), *above(0, 10**6)),
        (("coarse_error_weight",), *FACTOR),
        (("groups", "group_widths"), lambda value: len(value) > 0, "at least one pattern of names"),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("width", "head_width", "pruning_ratio"), lambda o: len(o.own) < 2, "a field that has no target of its own"),
        (("min_width",), lambda o: o.strategy != EDGE and not o.explicit, "widths that are not all given"),
        (("coarse_error_weight",), lambda o: bool(o.budgets), "target_parameters, target_macs or target_mb"),
    )

    @property
    def budgets(self) -> list[str]:
        """Names of the budgets that are given."""
        return [name for name in BUDGETS if getattr(self, name) is not None]

    @property
    def widths(self) -> list[str]:
        """Names of the targets for all layers that are given, budgets aside."""
        return [name for name in TARGETS if name not in BUDGETS and getattr(self, name) is not None]

    @property
    def own(self) -> dict[str, FieldTargetConfig]:
        """Targets of single fields that are given."""
        return {name: target for name, target in (("coarse", self.coarse), ("fine", self.fine)) if target.given()}

    @property
    def common(self) -> FieldTargetConfig:
        """The target of the fields that have no own one."""
        return FieldTargetConfig(self.width, self.head_width, self.pruning_ratio)

    @property
    def explicit(self) -> bool:
        """Whether the widths of all layers are given as they are to be."""
        targets = [self.own.get(name, self.common) for name in ("coarse", "fine")]
        both = all(target.width is not None and target.head_width is not None for target in targets)
        return self.group_widths is not None or both

    def check_targets(self) -> None:
        """Checks that at most one kind of target is given, and its values.

        Raises:
            ValueError: Names the options.
        """
        given = [*self.budgets, *self.widths, *self.own]
        if self.budgets and len(given) > 1:
            named = ", ".join(f"prune.{name}" for name in given)
            raise ValueError(f"{named} are contradictory targets; give exactly one of them")
        if self.group_widths is not None:
            for name in ("width", "head_width", "pruning_ratio"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"prune.{name} and prune.group_widths are contradictory targets; give exactly one of them"
                    )
            if self.own or tuple(self.groups or ("*",)) != ("*",):
                raise ValueError(
                    "prune.group_widths already names layers of both fields; it goes neither with coarse, fine nor "
                    "groups"
                )
        assert self.min_width is not None
        for prefix, target in (("", self.common), ("coarse.", self.coarse), ("fine.", self.fine)):
            target.check_target(f"prune.{prefix}", self.min_width)
        for pattern, width in (self.group_widths or {}).items():
            check_width(f"prune.group_widths[{pattern!r}]", width, self.min_width)

    @property
    def target_text(self) -> str:
        """How far, in a few words."""
        if self.budgets:
            (name,) = self.budgets
            return f"{name} {getattr(self, name):g}"
        if self.group_widths is not None:
            return "group_widths"
        texts = [f"{name} {value:g}" for name, value in self.common.given().items()]
        return ", ".join([*(texts or [f"pruning_ratio {HALF:g}"]), *self.own])


@with_help
@dataclass
class SelectionOptions(Group):
    """Which neurons stay, and what the others' work turns into."""

    score: Optional[str] = option(None, "the strategy's own")
    """Score of a neuron: w_in, w_out (mean absolute incoming or outgoing weight), w_in_w_out (their product),
    sensitivity (largest outgoing weight times incoming norm); on calibration samples: activation (its size times the
    outgoing weights: cheap and good with refit), obs (error that is left after refit, one neuron at a time), apoz (how
    often it is active: finds dead neurons), taylor, fisher (first and second order change of the loss, when gradients
    may cost a backward pass)."""
    refit: Optional[RefitMode] = option("none", "the preset's, else {}")
    """How the neurons that stay take over what left: none; lstsq (least squares on calibration samples, weights and
    biases); merge (added to the most similar neuron, needs no samples)."""
    refit_ridge: Optional[float] = option(Refit.ridge)
    """Refit lstsq: how strongly weights are drawn to their present values, as a share of the mean squared input, in
    [0, 1e6]."""
    refit_moments: Optional[MomentsMode] = option("keep")
    """What the optimizers remember of refitted layers: keep, rescale (with each column's norm) or reset."""
    coreset_variant: Optional[Literal["paper", "mussay"]] = option("paper")
    """paper: Algorithm 1 of Ding et al. 2025; mussay: its source, which also re-weights what stays."""

    rules: ClassVar[Sequence[Rule]] = ((("refit_ridge",), *at_least(0, 10**6)),)
    effects: ClassVar[Sequence[Effect]] = (
        (("score",), lambda o: o.takes_score, "a strategy that takes a score"),
        (("refit",), lambda o: o.strategy != EDGE, "strategies for neurons"),
        (("refit_ridge",), lambda o: o.refits, "refit lstsq, a budget, or a strategy or score that looks at refits"),
        (
            ("refit_moments",),
            lambda o: o.recovery == "continue" and (o.judged or (o.refit != "none" and o.strategy != EDGE)),
            "recovery continue and a refit",
        ),
        (("coreset_variant",), lambda o: o.strategy == "coreset", "strategy coreset"),
    )


_JUDGED = "a refit lstsq, a budget, or a strategy or score that looks at training rays"


@with_help
@dataclass
class CalibrationOptions(Group):
    """Training rays that a cut is judged by."""

    calibration_rays: Optional[int] = option(Calibration.num_rays, "the preset's, else {}")
    """Training rays on which calibration samples are collected, at most 262,144, and as many as there are pixels."""
    calibration_samples: Optional[int] = option(Calibration.num_samples)
    """Most calibration samples per field, at most 1,048,576."""
    calibration_weights: Optional[SampleWeights] = option(Calibration.weights)
    """What samples and outputs count: gradient (how much the pixel's colour follows them), contribution (transmittance
    times alpha, outputs alike)."""
    calibration_floor: Optional[float] = option(Calibration.floor)
    """Share of the weight that is spread evenly over all samples, so that empty space stays empty, in [0, 1]."""
    density_weight: Optional[float] = option(Calibration.density_weight)
    """Factor for errors of the density against those of the colour head behind the trunk, in [1e-6, 1e6]."""
    coarse_colour_weight: Optional[float] = option(Calibration.coarse_colour_weight)
    """Factor for errors of the coarse field's colour head against those of its density, in [1e-6, 1e6]: pictures show
    none of its colours, and a training learns its density by them."""

    rules: ClassVar[Sequence[Rule]] = (
        (("calibration_rays",), *at_least(1, 2**18)),
        (("calibration_samples",), *at_least(1, 2**20)),
        (("calibration_floor",), *SHARE),
        (("density_weight", "coarse_colour_weight"), *FACTOR),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("calibration_rays", "calibration_samples"), lambda o: o.judged, _JUDGED),
        (("calibration_weights", "calibration_floor"), lambda o: o.weighs_samples, f"{_JUDGED}, and weighs it"),
        (("density_weight", "coarse_colour_weight"), lambda o: o.weighs_layers, f"{_JUDGED}, and weighs layers"),
    )


@with_help
@dataclass
class ShrinkageOptions(Group):
    """What happens to neurons before they leave."""

    shrink_steps: Optional[int] = option(0)
    """Training steps before each event in which the outgoing weights of the neurons that are about to leave are drawn
    towards zero by an L1 penalty."""
    shrink_weight: Optional[float] = option(0.01)
    """Factor of that penalty on the mean absolute weight, in (0, 1000]; it rises linearly to this."""

    rules: ClassVar[Sequence[Rule]] = (
        (("shrink_steps",), *at_least(0, MAX_STEPS)),
        (("shrink_weight",), *above(0, 1000)),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("shrink_steps", "shrink_weight"), lambda o: o.strategy != EDGE, "strategies for neurons"),
        (("shrink_weight",), lambda o: o.shrink_steps > 0, "shrink_steps"),
    )


@with_help
@dataclass
class EdgeOptions(Group):
    """Strategy edge: single weights are masked instead of neurons removed."""

    edge_threshold: Optional[float] = None
    """Strategy edge: keep weights with an absolute value of at least this, in [0, 1e6]."""
    edge_keep_fraction: Optional[float] = option(None, f"{HALF:g}, unless a threshold is given")
    """Strategy edge: keep this share of the weights, in (0, 1]."""
    edge_scope: Optional[EdgeScope] = option("layer")
    """Strategy edge: whether edge_keep_fraction counts within each layer or over all layers together."""

    rules: ClassVar[Sequence[Rule]] = ((("edge_threshold",), *at_least(0, 10**6)), (("edge_keep_fraction",), *PART))
    effects: ClassVar[Sequence[Effect]] = (
        (
            ("edge_scope",),
            lambda o: o.strategy == EDGE and o.edge_threshold is None,
            "strategy edge and edge_keep_fraction",
        ),
    )


_TARGETS = {*TARGETS, "coarse", "fine"}
_EDGES = {"edge_threshold", "edge_keep_fraction"}
_CHOICE = {"score", "coreset_variant"}
_CALIBRATION = [f.name for f in fields(CalibrationOptions)]
_KEEPS = "a recovery that keeps weights of the neurons that are chosen"
REPLACED: Mapping[str, Set[str]] = {
    **dict.fromkeys(_TARGETS, _TARGETS),
    "group_widths": {*_TARGETS, "groups"},
    "groups": {"group_widths"},
    **dict.fromkeys(_EDGES, _EDGES),
    "strategy": {*_CHOICE, *_EDGES, "edge_scope"},
    "coreset_variant": {"strategy", "score"},
    "start_step": {"start_fraction", "stop_step"},
    "start_fraction": {"start_step", "stop_step"},
    "schedule": {"num_events"},
    "preset": {*_TARGETS, *_CHOICE, *(name for values in PRESETS.values() for name in values)},
}
"""Option -> options that were given earlier and do not hold any more when it is given again."""


@dataclass
class RayOptions(RunOptions):
    """What is measured of the run at hand."""

    num_eval_rays: int = 2048
    """Rays of the fixed evaluation batch whose PSNR is measured right before and after an event; 0 for none, at most
    1,048,576."""

    rules: ClassVar[Sequence[Rule]] = ((("num_eval_rays",), *at_least(0, 2**20)),)


@with_help
@dataclass
class PruneConfig(
    EdgeOptions,
    RayOptions,
    PruneOptions,
    ShrinkageOptions,
    TargetOptions,
    CalibrationOptions,
    SelectionOptions,
    ChoiceOptions,
):
    """What to prune, when, how far, and how to go on.

    None means «not given», so that a resumed run can tell what is given again; `filled` puts in what the preset says,
    else the default that the help names.
    """

    merged: ClassVar[Set[str]] = frozenset({"teacher"})  # of its options none contradicts another
    aims: ClassVar[Set[str]] = frozenset({*BUDGETS, *_EDGES})
    durations: ClassVar[Sequence[str]] = (*PruneOptions.durations, "shrink_steps", "teacher.steps")
    effects: ClassVar[Sequence[Effect]] = (
        (("preset",), lambda o: o.strategy != EDGE, "strategies for neurons"),
        (("seed",), lambda o: o.draws, "a strategy that draws, calibration, recovery scratch or a teacher"),
        (
            ("round_to",),
            lambda o: o.strategy != EDGE and (not o.explicit or (o.schedule != "one-shot" and o.num_events != 1)),
            "widths that are not all given, or several events",
        ),
        (("score", "coreset_variant"), lambda o: o.recovery != "scratch", _KEEPS),
        (
            (*_CALIBRATION, "refit_ridge"),
            lambda o: o.recovery != "scratch" or bool(o.budgets),
            _KEEPS,
        ),
    )

    preset: Optional[PresetName] = option("best")
    """Recipe for the options that are not given: paper (Algorithm 1 of Ding et al. 2025: coreset, half the width, no
    refit; the defaults of all options), best (28 % of the parameters, chosen and refitted on samples: the most quality
    for its size), fast (15 % of the operations: the shortest training), tiny (10 % of the parameters: the smallest
    file). An option that is given takes the place of those of the preset that
    contradict it; with an own target, or own groups, the preset's learning rate is left out as well."""
    strategy: Optional[str] = option(
        "coreset",
        "the preset's, else {}; importance when a score is given that the preset's strategy does not take",
    )
    """Which neurons stay: uniform (random), importance (highest score), coreset (sampled in proportion to the score),
    obs (least error after refit, one by one), pivoted-qr (those that span the others; faster, blind to their use);
    edge (single weights, masked and no faster); none (the dense control)."""
    seed: Optional[int] = option(None, "the run's machine seed")
    """Seed of random choices, in [0, 2^63)."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The dense network as a teacher of the pruned one, for some steps after each event; off by default."""

    def filled(self) -> Self:
        """A copy with the preset's values and the defaults in place of what is not given.

        Raises:
            ValueError: If there is no such preset.
        """
        given, defaults = self.given(), self.defaults()
        target_given = bool(self.budgets or self.widths or self.own)
        target_given |= self.groups is not None and tuple(self.groups) != defaults["groups"]
        preset = preset_options(given.get("preset", defaults["preset"]), given, target_given)
        if "coreset_variant" in given:
            preset.pop("strategy", None)
        elif "score" in given and "strategy" in preset and STRATEGIES[preset["strategy"]].needs_samples:
            preset["strategy"] = "importance"
        return type(self)(**{**defaults, **preset, **given})

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Stored options with what an earlier version did not store."""
        # Before there were presets all plans followed from the defaults.
        return super().completed({"preset": "paper", **values})

    @classmethod
    def completed_given(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, of a version that stored only what was in force."""
        return {"preset": "paper", **values}

    @classmethod
    def replaced(cls, name: str, value: Any) -> Set[str]:
        """Options that were given earlier and do not hold any more when an option is given again."""
        followers = REPLACED.get(name, set())
        return {*followers, *_TARGETS} if (name, value) == ("strategy", EDGE) else followers

    def validate(self) -> None:
        """Checks everything that does not depend on the network or the run.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        super().validate()
        filled = self.typed().filled()
        filled.check_targets()
        if filled.strategy == "none":
            return
        if filled.strategy == EDGE:
            if filled.budgets or filled.widths or filled.own:
                raise ValueError(
                    "prune.strategy edge masks single weights and takes edge_threshold or edge_keep_fraction; width, "
                    "head_width, pruning_ratio, group_widths, coarse, fine and budgets are targets for neurons"
                )
            if filled.edge_threshold is not None and filled.edge_keep_fraction is not None:
                raise ValueError("prune.edge_threshold and prune.edge_keep_fraction exclude each other; give one")
            return
        if filled.edge_threshold is not None or filled.edge_keep_fraction is not None:
            raise ValueError(
                f"prune.edge_threshold and prune.edge_keep_fraction go with strategy edge, not {filled.strategy}"
            )
        filled._check_selection()

    def _check_selection(self) -> None:
        strategy = self._strategy()
        if self.score is not None and strategy.needs_samples:
            raise ValueError(
                f"prune.strategy {self.strategy} ranks the neurons itself and takes no prune.score; for the highest "
                f"{self.score} choose strategy importance"
            )
        if self.refit != "none" and self.recovery in ("rewind", "scratch"):
            raise ValueError(
                f"prune.recovery {self.recovery} replaces the weights that prune.refit {self.refit} gives; use "
                "continue or retrain, or refit none"
            )
        if strategy.reweights and self.recovery == "rewind":
            raise ValueError(
                "prune.recovery rewind takes weights of an earlier step, which a strategy that re-weights "
                f"({self.strategy}) does not fit; use continue or retrain"
            )
        if self.score is not None and self.score not in SCORES:
            raise ValueError(f"prune.score must be one of {', '.join(sorted(SCORES))}, got {self.score!r}")

    def _strategy(self) -> Strategy:
        """The strategy with its options.

        Raises:
            ValueError: If there is no strategy of that name; lists the names.
        """
        if self.strategy not in STRATEGIES:
            names = ", ".join([*sorted(STRATEGIES), EDGE, "none"])
            raise ValueError(f"prune.strategy must be one of {names}, got {self.strategy!r}")
        cls = STRATEGIES[self.strategy]
        names = [f.name for f in fields(cls) if f.init] if is_dataclass(cls) else []
        own = {name: f"{self.strategy}_{name}".replace("-", "_") for name in names}
        return cls(**{name: getattr(self, option) for name, option in own.items() if hasattr(self, option)})

    @property
    def takes_score(self) -> bool:
        """Whether the strategy ranks neurons by a score."""
        return self.strategy in STRATEGIES and self._strategy().default_score is not None

    @property
    def needs(self) -> str:
        """What the score in force reads: weights, samples or gradients."""
        score = (self.score or self._strategy().default_score) if self.takes_score else None
        return "weights" if score is None else needs_of(score_by_name(score))

    @property
    def judged(self) -> bool:
        """Whether a cut looks at calibration samples, of options that are filled in."""
        if self.strategy in (EDGE, "none"):
            return False
        chosen = self._strategy().needs_samples or self.needs != "weights"
        return chosen or bool(self.budgets) or self.refit == "lstsq"

    @property
    def ranks_by_error(self) -> bool:
        """Whether the strategy ranks by what a refit would leave; pivoted-qr is blind to what neurons are used for."""
        return self._strategy().needs_samples and self.strategy != "pivoted-qr"

    @property
    def weighs_layers(self) -> bool:
        """Whether a cut compares errors of one layer with those of another, or of single outputs."""
        by_score = self.needs == "samples" and self.score != "apoz"  # which counts samples
        return self.judged and (by_score or bool(self.budgets) or self.ranks_by_error)

    @property
    def weighs_samples(self) -> bool:
        """Whether a cut counts some samples more than others."""
        asked = self.refit == "lstsq" or self.weighs_layers
        return self.judged and (asked or self._strategy().needs_samples)

    @property
    def refits(self) -> bool:
        """Whether a cut asks what a refit would leave."""
        asked = bool(self.budgets) or self.refit == "lstsq" or self.score == "obs"
        return self.judged and (asked or self.ranks_by_error)

    @property
    def draws(self) -> bool:
        """Whether something is chosen at random beside the training's own draws."""
        by_rank = self.strategy == EDGE or type(self._strategy()).select is ImportanceStrategy.select
        return not by_rank or self.judged or self.recovery == "scratch" or self.teacher.filled().renders

    def resolve(self) -> FieldRecipe:
        """What the options come to.

        Raises:
            ValueError: If there is no such preset, strategy or score.
        """
        o: Any = self.filled()
        shared: dict[str, Any] = o.shared()
        shared.update(groups=tuple(o.groups), teacher=o.teacher.resolve(), moments=o.refit_moments)
        shared.update(shrink_steps=0 if o.strategy in (EDGE, "none") else o.shrink_steps, shrink_weight=o.shrink_weight)
        if o.strategy == "none":
            return FieldRecipe(**shared, score=None, rule="none", target=o.target_text)
        if o.strategy == EDGE:
            keep = HALF if o.edge_keep_fraction is None else o.edge_keep_fraction
            aim = ("edge_keep_fraction", keep) if o.edge_threshold is None else ("edge_threshold", o.edge_threshold)
            return EdgeRecipe(
                **shared,
                score=None,
                rule=EDGE,
                target=f"{aim[0]} {aim[1]:g}",
                threshold=o.edge_threshold,
                keep_fraction=keep,
                scope=o.edge_scope,
            )
        strategy = o._strategy()
        score = (o.score or strategy.default_score) if o.takes_score else None
        calibration = Calibration(
            o.calibration_rays,
            o.calibration_samples,
            o.calibration_weights,
            o.calibration_floor,
            o.density_weight,
            o.coarse_colour_weight,
            loss_gradients=o.needs == "gradients",
        )
        rule = f"preset {o.preset}, {o.strategy}" + (f" by {score}" if score else "")
        target = o.common if o.common.given() else FieldTargetConfig(pruning_ratio=HALF)
        return NeuronRecipe(
            **shared,
            score=score,
            rule=rule + (f", refit {o.refit}" if o.refit != "none" else ""),
            target=o.target_text,
            chooses=strategy,
            score_function=None if score is None else score_by_name(score),
            refit=Refit(o.refit, o.refit_ridge),
            calibration=calibration if o.judged else None,
            common=FieldTarget(**vars(target)),
            own={f"field_{name}": FieldTarget(**vars(own), prefix=f"{name}.") for name, own in o.own.items()},
            group_widths=o.group_widths,
            budget=(o.budgets[0], getattr(o, o.budgets[0])) if o.budgets else None,
            coarse_error_weight=o.coarse_error_weight,
            min_width=o.min_width,
        )
