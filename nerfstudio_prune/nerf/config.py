"""Options of pruning, under `--pipeline.prune`."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal, Optional

from nerfstudio.configs.base_config import PrintableConfig

from nerfstudio_prune.core.schedule import ScheduleKind
from nerfstudio_prune.nerf.calibration import Calibration, SampleWeights
from nerfstudio_prune.nerf.presets import BUDGETS, TARGETS, PresetName, preset_options
from nerfstudio_prune.nerf.teacher.config import TEACHER_RULES, TeacherConfig
from nerfstudio_prune.neurons.compaction import MomentsMode
from nerfstudio_prune.neurons.edges import EdgeScope
from nerfstudio_prune.neurons.pruner import RecoveryMode
from nerfstudio_prune.neurons.refit import RefitMode
from nerfstudio_prune.neurons.scores import Score, needs_of, score_by_name
from nerfstudio_prune.neurons.selecting import Refit
from nerfstudio_prune.neurons.strategies import STRATEGIES, Strategy


@dataclass
class FieldTargetConfig(PrintableConfig):
    """Target of one field; replaces the common one for it."""

    width: Optional[int] = None
    """Neurons that stay in each trunk layer; the head shrinks in proportion unless head_width is given."""
    head_width: Optional[int] = None
    """Neurons that stay in each head layer."""
    pruning_ratio: Optional[float] = None
    """Fraction of the initial neurons to remove from every layer, in [0, 1); 0 leaves this field whole."""

    @property
    def given(self) -> bool:
        """Whether any of the options is set."""
        return any(value is not None for value in (self.width, self.head_width, self.pruning_ratio))


@dataclass
class PruneConfig(PrintableConfig):
    """What to prune, when, how far, and how to go on.

    None means «not given», so that a resumed run can tell what is given again; `filled` puts in what the preset says,
    else the default that the option names. Without any target, the preset's included, every layer loses half of its
    neurons.
    """

    preset: Optional[PresetName] = None
    """Recipe for the options that are not given: paper (Algorithm 1 of Ding et al. 2025: coreset, half the width, no
    refit; the defaults named below), best (28 % of the parameters, chosen and refitted on samples: about the quality of
    the dense network in half of its training time), fast (15 % of the operations: the shortest training), tiny (10 % of
    the parameters: the smallest file). An option that is given takes the place of those of the preset that contradict
    it; with an own target, or own groups, the preset's learning rate is left out as well. None: best."""
    strategy: Optional[str] = None
    """Which neurons stay: uniform (random), importance (highest score), coreset (sampled in proportion to the score),
    obs (least error after refit, one by one), pivoted-qr (those that span the others; faster, blind to their use);
    edge (single weights, masked and no faster); none (the dense control). None: the preset's, else coreset;
    importance when a score is given that the preset's strategy does not take."""
    score: Optional[str] = None
    """Score of a neuron: w_in, w_out (mean absolute incoming or outgoing weight), w_in_w_out (their product),
    sensitivity (largest outgoing weight times incoming norm); on calibration samples: activation (its size times the
    outgoing weights: cheap and good with refit), obs (error that is left after refit, one neuron at a time), apoz (how
    often it is active: finds dead neurons), taylor, fisher (first and second order change of the loss, when gradients
    may cost a backward pass). None: the strategy's own."""
    refit: Optional[RefitMode] = None
    """How the neurons that stay take over what left: none; lstsq (least squares on calibration samples, weights and
    biases); merge (added to the most similar neuron, needs no samples). None: the preset's, else none."""
    refit_ridge: Optional[float] = None
    """Refit lstsq: how strongly weights are drawn to their present values, as a share of the mean squared input, >= 0.
    None: 1e-4."""
    refit_moments: Optional[MomentsMode] = None
    """What the optimizers remember of refitted layers: keep, rescale (with each column's norm) or reset. None:
    keep."""
    calibration_rays: Optional[int] = None
    """Training rays on which calibration samples are collected. None: 512."""
    calibration_samples: Optional[int] = None
    """Most calibration samples per field. None: 32768."""
    calibration_weights: Optional[SampleWeights] = None
    """What samples and outputs count: gradient (how much the pixel's colour follows them), contribution (transmittance
    times alpha, outputs alike). None: gradient."""
    calibration_floor: Optional[float] = None
    """Share of the weight that is spread evenly over all samples, so that empty space stays empty, in [0, 1]. None:
    0.05."""
    density_weight: Optional[float] = None
    """Factor for errors of the density against those of the colour head behind the trunk, > 0. None: 1."""
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
    coarse_error_weight: Optional[float] = None
    """Under a budget: how much errors of the coarse field count, > 0; it only shapes the sampling. None: 0.03."""
    groups: Optional[tuple[str, ...]] = None
    """Layers to prune, as name patterns; `*.mlp_base.layers.[1-7]` are the seven 256x256 layers of the paper. None:
    all."""
    start_step: Optional[int] = None
    """Training step at whose end the first event happens. None: 15 % of max_num_iterations, or the first step of a
    resumed run if that is later."""
    auto_start: Optional[float] = None
    """Start as soon as the training PSNR rises by less than this many dB within 5 % of the run, > 0; all events move
    forward, and start_step is the latest step for the first. None: off."""
    stop_step: Optional[int] = None
    """Training step at whose end the last event happens. None: half of max_num_iterations, or, if the first event lies
    less than 10 % of the run before that, half-way between it and the end of the run."""
    num_events: Optional[int] = None
    """Number of events. None: the preset's, else 1 for one-shot and 4 for the others."""
    schedule: Optional[ScheduleKind] = None
    """How far each event goes: one-shot (all at start_step), iterative (equal parts), cubic (most at the beginning).
    None: the preset's, else one-shot."""
    shrink_steps: Optional[int] = None
    """Training steps before each event in which the outgoing weights of the neurons that are about to leave are drawn
    towards zero by an L1 penalty. None: 0."""
    shrink_weight: Optional[float] = None
    """Factor of that penalty on the mean absolute weight, > 0; it rises linearly to this. None: 0.01."""
    recovery: Optional[RecoveryMode] = None
    """How to go on: continue (inherit weights and moments), retrain (inherit weights, clear moments, restart the
    scheduler), rewind (kept neurons take the weights of rewind_step), scratch (new initialisation). None: continue."""
    rewind_step: Optional[int] = None
    """Training step at whose end the weights for recovery rewind are kept. None: 0."""
    recovery_lr: Optional[float] = None
    """Learning rate after an event, > 0; a scheduler decays from there, a warm-up ends there. None: as it was."""
    recovery_decay: Optional[int] = None
    """Training steps in which the rate comes down again from recovery_lr to what it would be without: learning rate
    rewinding. None: 0, recovery_lr is there to stay."""
    recovery_lr_factor: Optional[float] = None
    """Factor on the learning rate from an event on, > 0; with several events it grows with the share of the cut that is
    done. Narrow layers bear larger rates: half the width about twice the rate. What is logged as learning rate is
    the schedule's, without it. None: the preset's, else 1."""
    recovery_warm_up: Optional[int] = None
    """Training steps after an event in which the learning rate rises from zero to what it would be. None: 0."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The dense network as a teacher of the pruned one, for some steps after each event; off by default."""
    round_to: Optional[int] = None
    """Widths that follow from a ratio, a proportion or a schedule are multiples of this. Explicit ones are exact.
    None: 1."""
    min_width: Optional[int] = None
    """Fewest neurons of a layer; an explicit width below it is an error. None: 8."""
    seed: Optional[int] = None
    """Seed of random choices. None: the run's machine seed."""
    coreset_variant: Optional[Literal["paper", "mussay"]] = None
    """paper: Algorithm 1 of Ding et al. 2025; mussay: its source, which also re-weights what stays. None: paper."""
    edge_threshold: Optional[float] = None
    """Strategy edge: keep weights with an absolute value of at least this, >= 0."""
    edge_keep_fraction: Optional[float] = None
    """Strategy edge: keep this share of the weights, in (0, 1]. None, and no threshold: a half."""
    edge_scope: Optional[EdgeScope] = None
    """Strategy edge: whether edge_keep_fraction counts within each layer or over all layers together. None: layer."""
    on_error: Literal["stop", "continue"] = "stop"
    """When an event fails (the network is then as before): stop the training, or go on without that event."""
    num_eval_rays: int = 2048
    """Rays of the fixed evaluation batch whose PSNR is measured right before and after an event; 0 for none."""

    def filled(self) -> "FilledPruneConfig":
        """A copy with the preset's values and the defaults in place of what is not given.

        Raises:
            ValueError: If there is no such preset.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in values.items() if value is not None}
        target_given = bool(set(given) & set(TARGETS)) or self.coarse.given or self.fine.given
        target_given |= self.groups is not None and tuple(self.groups) != FilledPruneConfig.groups
        preset = preset_options(given.get("preset", FilledPruneConfig.preset), given, target_given)
        if "coreset_variant" in given:
            preset.pop("strategy", None)
        elif "score" in given and "strategy" in preset and STRATEGIES[preset["strategy"]].needs_samples:
            preset["strategy"] = "importance"
        return FilledPruneConfig(**{**preset, **given})

    def validate(self) -> None:
        """Checks everything that does not depend on the network or the run.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        self.filled().validate()


@dataclass
class FilledPruneConfig(PruneConfig):
    """Options with their defaults; what all code below works with."""

    preset: PresetName = "best"
    strategy: str = "coreset"
    groups: tuple[str, ...] = ("*",)
    refit: RefitMode = "none"
    refit_ridge: float = 1e-4
    refit_moments: MomentsMode = "keep"
    calibration_rays: int = 512
    calibration_samples: int = 32768
    calibration_weights: SampleWeights = "gradient"
    calibration_floor: float = 0.05
    density_weight: float = 1.0
    coarse_error_weight: float = 0.03
    schedule: ScheduleKind = "one-shot"
    recovery: RecoveryMode = "continue"
    rewind_step: int = 0
    shrink_steps: int = 0
    shrink_weight: float = 0.01
    recovery_decay: int = 0
    recovery_lr_factor: float = 1.0
    recovery_warm_up: int = 0
    round_to: int = 1
    min_width: int = 8
    coreset_variant: Literal["paper", "mussay"] = "paper"
    edge_scope: EdgeScope = "layer"

    @property
    def has_neuron_target(self) -> bool:
        """Whether a common target for neurons is given."""
        targets = (self.width, self.head_width, self.pruning_ratio, self.group_widths)
        return any(value is not None for value in targets)

    @property
    def has_budget(self) -> bool:
        """Whether widths follow from a budget."""
        return any(getattr(self, name) is not None for name in BUDGETS)

    @property
    def budget_option(self) -> tuple[str, float]:
        """Name and value of the budget that is given."""
        ((name, value),) = [(name, getattr(self, name)) for name in BUDGETS if getattr(self, name) is not None]
        return name, value

    def validate(self) -> None:
        """Checks everything that does not depend on the network or the run.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        for name in ("num_events", "round_to", "min_width", "calibration_rays", "calibration_samples"):
            _check(name, getattr(self, name), lambda value: value >= 1, "at least 1")
        for name in ("start_step", "stop_step", "rewind_step", "num_eval_rays", "edge_threshold", "refit_ridge"):
            _check(name, getattr(self, name), lambda value: value >= 0, "at least 0")
        for name in ("auto_start", "shrink_weight"):
            _check(name, getattr(self, name), lambda value: value > 0, "above 0")
        for name in ("recovery_decay", "recovery_warm_up", "shrink_steps"):
            _check(name, getattr(self, name), lambda value: value >= 0, "at least 0")
        if self.recovery_decay and self.recovery_lr is None:
            raise ValueError(
                f"prune.recovery_decay {self.recovery_decay} has no effect without prune.recovery_lr, the rate that it "
                "starts from; give it, or leave the decay away"
            )
        if self.recovery_lr is not None and not self.recovery_decay and self.recovery_lr_factor != 1:
            raise ValueError(
                f"prune.recovery_lr {self.recovery_lr} and prune.recovery_lr_factor {self.recovery_lr_factor} both say "
                "what the rate is from an event on; give one, or a prune.recovery_decay between the two"
            )
        for name in ("recovery_lr", "recovery_lr_factor"):
            _check(name, getattr(self, name), lambda value: value > 0, "above 0")
        for name in ("target_parameters", "target_macs"):
            _check(name, getattr(self, name), lambda value: 0 < value <= 1, "in (0, 1]")
        for name in ("target_mb", "coarse_error_weight"):
            _check(name, getattr(self, name), lambda value: value > 0, "above 0")
        _check("density_weight", self.density_weight, lambda value: value > 0, "above 0")
        _check("calibration_floor", self.calibration_floor, lambda value: 0 <= value <= 1, "in [0, 1]")
        _check("edge_keep_fraction", self.edge_keep_fraction, lambda value: 0 < value <= 1, "in (0, 1]")
        self._validate_teacher()
        self._validate_targets()
        if self.strategy == "none":
            return
        if self.strategy == "edge":
            if self.has_neuron_target or self.has_budget or self.coarse.given or self.fine.given:
                raise ValueError(
                    "prune.strategy edge masks single weights and takes edge_threshold or edge_keep_fraction; width, "
                    "head_width, pruning_ratio, group_widths, coarse, fine and budgets are targets for neurons"
                )
            if self.edge_threshold is not None and self.edge_keep_fraction is not None:
                raise ValueError("prune.edge_threshold and prune.edge_keep_fraction exclude each other; give one")
            return
        if self.edge_threshold is not None or self.edge_keep_fraction is not None:
            raise ValueError(
                f"prune.edge_threshold and prune.edge_keep_fraction go with strategy edge, not {self.strategy}"
            )
        strategy = self.make_strategy()
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
        self.make_score()

    def _validate_teacher(self) -> None:
        for names, ok, expected in TEACHER_RULES:
            for name in names:
                value = getattr(self.teacher, name)
                _check(f"teacher.{name}", value, ok, expected)
                if value is not None and self.teacher.steps is None:
                    raise ValueError(
                        f"prune.teacher.{name} {value} has no effect without prune.teacher.steps, which says for how "
                        "many steps after an event there is a teacher; give it, or leave the other away"
                    )

    def _validate_targets(self) -> None:
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        others = [
            name for name in ("width", "head_width", "pruning_ratio", "group_widths") if getattr(self, name) is not None
        ]
        others += [name for name in ("coarse", "fine") if getattr(self, name).given]
        if budgets and len(budgets + others) > 1:
            named = ", ".join(f"prune.{name}" for name in budgets + others)
            raise ValueError(f"{named} are contradictory targets; give exactly one of them")
        if self.group_widths is not None:
            for name in ("width", "head_width", "pruning_ratio"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"prune.{name} and prune.group_widths are contradictory targets; give exactly one of them"
                    )
        if self.group_widths is not None and (self.coarse.given or self.fine.given or tuple(self.groups) != ("*",)):
            raise ValueError(
                "prune.group_widths already names layers of both fields; it goes neither with coarse, fine nor groups"
            )
        for prefix, target in (("", self), ("coarse.", self.coarse), ("fine.", self.fine)):
            if target.pruning_ratio is not None and (target.width is not None or target.head_width is not None):
                raise ValueError(
                    f"prune.{prefix}width/head_width and prune.{prefix}pruning_ratio are contradictory targets; "
                    "give exactly one of them"
                )
            _check(f"{prefix}pruning_ratio", target.pruning_ratio, lambda value: 0 <= value < 1, "in [0, 1)")
            for name in ("width", "head_width"):
                self._check_width(prefix + name, getattr(target, name))
        for pattern, width in (self.group_widths or {}).items():
            self._check_width(f"group_widths[{pattern!r}]", width)

    def _check_width(self, name: str, width: Optional[int]) -> None:
        expected = f"at least min_width = {self.min_width}"
        _check(name, width, lambda value: value >= self.min_width, expected)

    def make_strategy(self) -> Strategy:
        """Builds the strategy with its options.

        Raises:
            ValueError: If there is no strategy of that name; lists the names.
        """
        if self.strategy not in STRATEGIES:
            names = ", ".join([*sorted(STRATEGIES), "edge", "none"])
            raise ValueError(f"prune.strategy must be one of {names}, got {self.strategy!r}")
        cls = STRATEGIES[self.strategy]
        names = [f.name for f in fields(cls) if f.init] if is_dataclass(cls) else []
        own = {name: f"{self.strategy}_{name}".replace("-", "_") for name in names}
        return cls(**{name: getattr(self, option) for name, option in own.items() if hasattr(self, option)})

    @property
    def score_name(self) -> Optional[str]:
        """The chosen score, or the strategy's own; None for a strategy without one."""
        if self.strategy in ("edge", "none"):
            return None
        return self.score or self.make_strategy().default_score

    @property
    def needs_samples(self) -> bool:
        """Whether an event needs calibration samples."""
        if self.strategy in ("edge", "none"):
            return False
        score = self.make_score()
        needs = "weights" if score is None else needs_of(score)
        return self.has_budget or self.refit == "lstsq" or self.make_strategy().needs_samples or needs != "weights"

    def make_refit(self) -> Refit:
        """What becomes of the weights behind pruned layers."""
        return Refit(self.refit, self.refit_ridge)

    def make_calibration(self) -> Calibration:
        """What an event collects."""
        score = self.make_score()
        return Calibration(
            self.calibration_rays,
            self.calibration_samples,
            self.calibration_weights,
            self.calibration_floor,
            self.density_weight,
            loss_gradients=score is not None and needs_of(score) == "gradients",
        )

    def make_score(self) -> Optional[Score]:
        """Looks up the score function.

        Raises:
            ValueError: If there is no score of that name; lists the names.
        """
        return None if self.score_name is None else score_by_name(self.score_name)


def _check(name: str, value: Optional[float], ok: Callable[[float], bool], expected: str) -> None:
    if value is not None and not ok(value):
        raise ValueError(f"prune.{name} must be {expected}, got {value}")
