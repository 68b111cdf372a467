"""Options of pruning Gaussians, under `--pipeline.prune`, and what they are resolved to."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Optional

from typing_extensions import Self

from nerfstudio_prune.core.events import RecoveryMode
from nerfstudio_prune.engine.options import (
    MAX_STEPS,
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
from nerfstudio_prune.gaussians.scores import SCORES, RemovalNorm, VolumeReference, score_by_name
from nerfstudio_prune.raster.gaussians import MAX_SH_DEGREE
from nerfstudio_prune.splats.presets import PRESETS, TARGETS, PresetName, preset_options
from nerfstudio_prune.splats.recipes import DistilLoss, DistilRecipe, DistilTarget, GaussianRecipe, StrategyName

DISTIL_PERCENT = 20
"""Of the run: how long the spherical harmonics learn from a teacher if nothing is said."""


@with_help
@dataclass
class DistilOptions(Group):
    """How the spherical harmonics learn what those of higher degree said, after their degree was lowered.

    None means «not given», as in the other options of pruning.
    """

    steps: Optional[int] = option(None, "20 % of max_num_iterations, or what is left of the run if that is less")
    """Training steps after sh_step in which the teacher, the model of right before, is used; 0: no teacher."""
    target: Optional[DistilTarget] = option("mixed", "the preset's, else {}")
    """What pictures are compared with: photo (the training views, no teacher), teacher (the teacher's pictures of
    training views and of pseudo views), mixed (pseudo views by the teacher, training views by their photos)."""
    loss: Optional[DistilLoss] = option("splatfacto")
    """What the teacher's pictures are compared by: splatfacto (the loss of the photos), or l2 (equation 6 of
    LightGaussian)."""
    sigma: Optional[float] = option(0.1)
    """Pseudo views: standard deviation of a camera's shift, as a factor on the median distance of neighbouring training
    cameras, in [0, 100]."""
    share: Optional[float] = option(2 / 3, "2/3")
    """Share of these steps that take a pseudo view, in [0, 1]."""
    geometry: Optional[bool] = option(True)
    """Whether places, shapes and opacities learn as well."""

    rules: ClassVar[Sequence[Rule]] = (
        (("steps",), *at_least(0, MAX_STEPS)),
        (("sigma",), *at_least(0, 100)),
        (("share",), *SHARE),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("target", "geometry"), lambda o: o.steps != 0, "distil.steps"),
        (("loss", "share"), lambda o: o.steps != 0 and o.target != "photo", "distil.steps and a teacher"),
        (
            ("sigma",),
            lambda o: o.steps != 0 and o.target != "photo" and o.share > 0,
            "distil.steps, a teacher and a share of pseudo views",
        ),
    )


@with_help
@dataclass
class TargetOptions(Group):
    """How far to prune."""

    pruning_ratio: Optional[float] = None
    """Share of the Gaussians to remove, of those right before the first event, in [0, 1)."""
    target_gaussians: Optional[int] = None
    """Gaussians that stay, instead of a ratio."""
    target_mb: Optional[float] = None
    """Size that the Gaussians take in float32, uncompressed, at their last degree, in units of 10^6 bytes, instead of a
    ratio; a packed file is several times smaller."""
    max_psnr_drop: Optional[float] = None
    """Largest loss of PSNR by cutting, on training views, in dB, instead of a ratio. It is that of all events together:
    each may lose its share, measured right before and after it. Recovery makes up for most of it."""
    sh_degree: Optional[int] = option(None, "the preset's, else as it is")
    """Degree of the spherical harmonics in the end, in [0, 3]; lowered at sh_step with the model of right before as
    teacher. One that is not below the model's lowers nothing."""

    rules: ClassVar[Sequence[Rule]] = (
        (("pruning_ratio",), lambda value: 0 <= value < 1, "in [0, 1)"),
        (("target_gaussians",), *at_least(1, 10**9)),
        (("target_mb",), *above(0, 10**6)),
        (("max_psnr_drop",), *above(0, 100)),
        (("sh_degree",), lambda value: 0 <= value <= MAX_SH_DEGREE, f"in [0, {MAX_SH_DEGREE}]"),
    )


@with_help
@dataclass
class SelectionOptions(Group):
    """Which Gaussians stay."""

    score: Optional[str] = option("removal", "the preset's, else {}")
    """What a Gaussian is worth, summed over all training views: removal (what the pictures change by when it leaves),
    contribution (its share of the pixels' light), significance (LightGaussian: hits, opacity and volume), max_weight
    (its largest share of any pixel), hits, hits_opacity, opacity."""
    removal_norm: Optional[RemovalNorm] = option(None, "l1 on a CPU, l2 on a GPU")
    """Score removal: l1 (absolute changes) or l2 (squares). On a CPU both are exact and cost the same. On a GPU l2 is
    estimated by a random probe for each view, and l1 is exact and takes many times as long."""
    volume_power: Optional[float] = option(0.1)
    """Score significance: exponent of the volume, beta of equation 5, in [0, 10]."""
    volume_reference: Optional[VolumeReference] = option("largest-90")
    """Score significance: volume that volumes are divided by: largest-90 (equation 5: the 90th percentile, clipped to
    1), released (the 10th, not clipped, as in LightGaussian's public code)."""
    rounds: Optional[int] = option(1, "the preset's, else {}")
    """Times that scores are taken within one event, each after a part has left: Gaussians behind each other cover up
    for one another. 1 to 100."""

    rules: ClassVar[Sequence[Rule]] = (
        (("rounds",), *at_least(1, 100)),
        (("volume_power",), *at_least(0, 10)),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("score",), lambda o: o.strategy == "rank", "strategy rank"),
        (("rounds",), lambda o: o.strategy == "rank" and o.by_views, "a score by views"),
        (("removal_norm",), lambda o: o.strategy == "rank" and o.score == "removal", "score removal"),
        (
            ("volume_power", "volume_reference"),
            lambda o: o.strategy == "rank" and o.score == "significance",
            "score significance",
        ),
    )


@dataclass
class ViewOptions(RunOptions):
    """What is measured of the run at hand."""

    num_eval_views: int = 4
    """Whole evaluation views, evenly spaced, whose PSNR is measured right before and after an event; 0 for none."""

    rules: ClassVar[Sequence[Rule]] = ((("num_eval_views",), *at_least(0, 10**6)),)


REPLACED: Mapping[str, Set[str]] = {
    **{name: {*TARGETS} for name in TARGETS},
    "strategy": {"score", "rounds"},
    "start_step": {"start_fraction", "stop_step", "sh_step"},
    "start_fraction": {"start_step", "stop_step", "sh_step"},
    "stop_step": {"sh_step"},
    "schedule": {"num_events"},
    "preset": {*TARGETS, *(name for values in PRESETS.values() for name in values if "." not in name)},
}
"""Option -> options that were given earlier and do not hold any more when it is given again."""


@with_help
@dataclass
class SplatPruneConfig(ViewOptions, PruneOptions, TargetOptions, SelectionOptions, ChoiceOptions):
    """Which Gaussians to remove, when, how far, and how to go on.

    None means «not given», so that a resumed run can tell what is given again; `filled` puts in what the preset says,
    else the default that the help names.
    """

    merged: ClassVar[Set[str]] = frozenset({"distil"})
    aims: ClassVar[Set[str]] = frozenset(TARGETS)
    durations: ClassVar[Sequence[str]] = (*PruneOptions.durations, "distil.steps")
    steps: ClassVar[Sequence[str]] = (*PruneOptions.steps, "sh_step")
    stop_percent = 60
    effects: ClassVar[Sequence[Effect]] = (
        (("sh_step", "distil"), lambda o: o.sh_degree is not None, "sh_degree"),
        (
            ("round_to",),
            lambda o: o.max_psnr_drop is None and (o.target_gaussians is None or o.several),
            "a ratio, or several events on the way to a number",
        ),
    )

    preset: Optional[PresetName] = option("best")
    """Recipe for the options that are not given: best (a third stays, chosen by what the pictures would lose, in six
    rounds; degree 2), paper (LightGaussian's rule and order), tiny (15 % stay, degree 1). An own target takes the place
    of the preset's."""
    strategy: Optional[StrategyName] = option("rank")
    """Which Gaussians stay: rank (the highest scores), merge (pairs of neighbours that look alike become one), random;
    none (the dense control)."""
    seed: Optional[int] = option(None, "the run's machine seed")
    """Seed of random choices, in [0, 2^63)."""
    start_step: Optional[int] = option(
        None,
        "start_fraction of max_num_iterations, or the first step of a resumed run, or the one at which growth has "
        "settled, if that is later",
    )
    """Training step at whose end the first event happens; not before growth has settled, see --pipeline.model."""
    start_fraction: Optional[float] = option(0.52)
    """Share of max_num_iterations after which the first event happens, in [0, 1); start_step takes its place."""
    stop_step: Optional[int] = option(
        None,
        "60 % of max_num_iterations, or, if the first event lies less than 10 % of the run before that, half-way "
        "between it and the end of the run",
    )
    """Training step at whose end the last event happens."""
    recovery: Optional[RecoveryMode] = option("continue")
    """How to go on after an event: continue (the optimizers keep the moments of the Gaussians that stay), retrain
    (moments are cleared)."""
    sh_step: Optional[int] = option(None, "3/8 of the way from the last event to the end of the run")
    """Training step at whose end the degree of the spherical harmonics is lowered; not before the last event."""
    distil: DistilOptions = field(default_factory=DistilOptions)
    """How the spherical harmonics learn after their degree was lowered."""

    rules: ClassVar[Sequence[Rule]] = ((("sh_step",), *at_least(0, MAX_STEPS)),)

    @property
    def several(self) -> bool:
        """Whether the cut is spread over several events, of options that are filled in."""
        return self.schedule != "one-shot" and self.num_events != 1

    @property
    def by_views(self) -> bool:
        """Whether the score looks at views, of options that are filled in."""
        return self.score in SCORES and bool(SCORES[self.score]().needs)

    def filled(self) -> Self:
        """A copy with the preset's values and the defaults in place of what is not given.

        Raises:
            ValueError: If there is no such preset.
        """
        given, defaults = self.given(), self.defaults()
        preset = preset_options(given.get("preset", defaults["preset"]), given)
        own = {name.partition(".")[2]: value for name, value in preset.items() if name.startswith("distil.")}
        flat = {name: value for name, value in preset.items() if "." not in name}
        distil = replace(self.distil, **{name: v for name, v in own.items() if getattr(self.distil, name) is None})
        return type(self)(**{**defaults, **flat, **given, "distil": distil.filled()})

    @classmethod
    def replaced(cls, name: str, value: Any) -> Set[str]:
        """Options that were given earlier and do not hold any more when an option is given again."""
        return REPLACED.get(name, set())

    def with_own_steps(self, first_step: int, end: int) -> Self:
        """A copy with the step at which the degree is lowered, and how long the teacher is used.

        Raises:
            ValueError: If that would never happen, or happen before the last event.
        """
        if self.sh_degree is None:
            return replace(self, sh_step=None)
        assert self.start_step is not None and self.stop_step is not None
        last = self.stop_step if (self.num_events or 1) > 1 else self.start_step
        step = last + (end - last) * 3 // 8 if self.sh_step is None else self.sh_step
        if step < last:
            raise ValueError(f"prune.sh_step {step} lies before the last event at step {last}")
        if step >= end:
            raise ValueError(
                f"prune.sh_step {step} lies past the end of the run, whose last step is {end - 1}; lower it, raise "
                "max_num_iterations, or leave prune.sh_degree out"
            )
        steps, left = self.distil.steps, end - 1 - step
        if steps is None:
            steps = min(left, (end - first_step) * DISTIL_PERCENT // 100)
        if steps > left:
            raise ValueError(
                f"prune.distil.steps {steps} is more than the {left} steps from prune.sh_step {step} to the end of the "
                "run; lower it, or let prune.sh_step come earlier"
            )
        return replace(self, sh_step=step, distil=replace(self.distil, steps=steps))

    def validate(self) -> None:
        """Checks everything that does not depend on the model or the run.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        super().validate()
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) > 1:
            named = ", ".join(f"prune.{name}" for name in given)
            raise ValueError(f"{named} are contradictory targets; give exactly one of them")
        filled: Any = self.typed().filled()
        if filled.strategy == "none":
            return
        if filled.recovery not in ("continue", "retrain"):
            raise ValueError(
                f"prune.recovery must be continue or retrain for Gaussians, which are places and colours and not "
                f"weights to draw anew, got {filled.recovery}"
            )
        if filled.score not in SCORES:
            raise ValueError(f"prune.score must be one of {', '.join(sorted(SCORES))}, got {filled.score!r}")

    def check_recovery(self) -> None:
        """Checks that the options about rates suit several optimizers and do not contradict each other.

        Raises:
            ValueError: Names the options.
        """
        if self.recovery_lr is not None:
            raise ValueError(
                "prune.recovery_lr is one rate, and Gaussians have one optimizer for each of their six parameters; use "
                "prune.recovery_lr_rewind or prune.recovery_lr_factor, which multiply each one's own"
            )
        super().check_recovery()

    def resolve(self) -> GaussianRecipe:
        """What the options come to.

        Raises:
            ValueError: If there is no such preset or score.
        """
        o: Any = self.filled()
        ranks = o.strategy == "rank"
        aims = [(name, getattr(o, name)) for name in TARGETS if getattr(o, name) is not None]
        aim = aims[0] if aims and o.strategy != "none" else None
        rule = f"preset {o.preset}, {o.strategy}" + (f" by {o.score}" if ranks else "")
        if ranks and o.rounds > 1 and o.by_views:
            rule += f" in {o.rounds} rounds"
        return GaussianRecipe(
            **o.shared(),
            score=o.score if ranks else None,
            rule="none" if o.strategy == "none" else rule,
            target=_target_text(aim, o.sh_degree),
            score_function=score_by_name(o.score, vars(o)) if ranks else None,
            rounds=o.rounds if ranks and o.by_views else 1,
            aim=aim,
            sh_degree=o.sh_degree,
            sh_step=o.sh_step,
            distil=DistilRecipe(**{**vars(o.distil), "steps": o.distil.steps or 0}),
        )


def _target_text(aim: Optional[tuple[str, float]], sh_degree: Optional[int]) -> str:
    """How far, in a few words."""
    parts = [] if aim is None else [f"{aim[0]} {aim[1]:,}" if isinstance(aim[1], int) else f"{aim[0]} {aim[1]:g}"]
    return ", ".join([*parts, *([] if sh_degree is None else [f"sh_degree {sh_degree}"])]) or "nothing"
