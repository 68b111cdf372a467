"""The suite of Gaussians as data: which runs, with which options. Carries nothing out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Optional

from nerfstudio_prune.bench.file_jobs import SplatFileRun
from nerfstudio_prune.bench.jobs import SplatSuiteJob
from nerfstudio_prune.records.splat_schema import SplatRole
from nerfstudio_prune.splats.presets import PRESETS, PresetName

KEEPS = (0.5, 0.34, 0.2, 0.1)
"""Shares of the Gaussians that stay."""
THIRD = 0.34
"""The share that most comparisons are made at: what LightGaussian leaves."""
ROUNDS = 6
METHOD = "splat-prune"


@dataclass(frozen=True)
class SplatScale:
    """Sizes of all runs of the suite."""

    name: str
    start_steps: int
    """Dense training steps before the cut, S."""
    steps: int
    """Training steps in all; the last ones, R, are the recovery."""
    harmonics_steps: int
    """Training steps after the degree of the spherical harmonics was lowered."""
    seeds: tuple[int, ...]
    views: Optional[int] = None
    """Views of each split, evenly spaced, that quality is the mean of; None: all."""
    speed_blocks: int = 10
    """Blocks of training steps a model that the speed is measured on."""
    speed_steps: int = 10
    """Training steps of a block."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method, by dotted path."""
    demo_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the built-in scene, where it is used."""

    @property
    def recovery_steps(self) -> int:
        """R: steps after the cut."""
        return self.steps - self.start_steps


SPLAT_SCALES = {
    "smoke": SplatScale(
        name="smoke",
        start_steps=60,
        steps=80,
        harmonics_steps=4,
        seeds=(0,),
        views=2,
        speed_blocks=2,
        speed_steps=2,
        demo_options={"image_size": 24, "num_train_views": 6, "num_val_views": 2, "num_test_views": 2},
    ),
    "cpu": SplatScale(name="cpu", start_steps=3000, steps=3400, harmonics_steps=200, seeds=(0, 1, 2)),
    "gpu": SplatScale(name="gpu", start_steps=30_000, steps=35_000, harmonics_steps=10_000, seeds=(0, 1, 2)),
}
"""Name -> scale, for pictures of one object before a background."""
PHOTO_STEPS: Mapping[str, Mapping[str, int]] = {
    "cpu": {"start_steps": 2000, "steps": 2300, "harmonics_steps": 150},
}
"""Name of the scale -> what is another number for photographs: they have several times as many Gaussians."""


@dataclass(frozen=True)
class SplatRun(SplatSuiteJob):
    """One training run."""

    arm: str
    """What is compared, without the seed."""
    seed: int
    role: SplatRole
    steps: Optional[int]
    """Training steps that it takes itself; None: as many as fit into the time of the run that `beside` names."""
    parent: Optional[str] = None
    """Run whose last checkpoint it goes on from."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method besides those of the scale, by dotted path."""
    strategy: str = "none"
    score: Optional[str] = None
    rounds: Optional[int] = None
    keep: Optional[float] = None
    recovery: Optional[str] = None
    distil: Optional[str] = None
    capped: bool = False
    """Whether growth stops at the number of Gaussians of the run that `beside` names."""
    beside: Optional[str] = None
    """Run whose number of Gaussians, or time, this one gets."""
    pace: Optional[str] = None
    """Run of the same kind that says how long a step takes, where the steps follow from a time."""

    @property
    def name(self) -> str:
        """Unique within the suite."""
        return f"{self.arm}-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return () if self.parent is None else (self.parent,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Runs that have to be recorded before it."""
        return tuple(name for name in (self.parent, self.beside, self.pace) if name is not None)

    @property
    def told_steps(self) -> str:
        """Its steps, or what they follow from."""
        return str(self.steps or "equal time")


@dataclass(frozen=True)
class ZeroShot(SplatSuiteJob):
    """Every choice of Gaussians on one dense model, measured right after the cut."""

    seed: int
    parent: str
    keeps: tuple[float, ...] = KEEPS
    rounds: tuple[int, ...] = (2, 6, 12)
    round_keeps: tuple[float, ...] = (THIRD, 0.2)
    """Shares that several rounds are tried at."""

    @property
    def name(self) -> str:
        """Unique within the suite."""
        return f"zero-shot-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return (self.parent,)


@dataclass(frozen=True)
class SplatSpeed(SplatSuiteJob):
    """Dense and pruned Gaussians measured in turns."""

    seed: int
    dense: str
    pruned: str
    keep: float

    @property
    def name(self) -> str:
        """Unique within the suite."""
        return f"speed-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return (self.dense, self.pruned)

    def settings(self, scale: SplatScale) -> dict[str, Any]:
        """Those of all jobs, and how much is timed."""
        timed = {"speed_blocks": scale.speed_blocks, "speed_steps": scale.speed_steps}
        return {**super().settings(scale), **timed}


PEER = "splat-transform"
"""Program of PlayCanvas that makes Gaussians fewer by merging pairs, without photos (NanoGS, arXiv 2603.16103)."""


@dataclass(frozen=True)
class SplatPeer(SplatSuiteJob):
    """A dense model made smaller by another program, measured right after that."""

    seed: int
    parent: str
    keeps: tuple[float, ...] = KEEPS

    @property
    def name(self) -> str:
        """Unique within the suite."""
        return f"peer-{PEER}-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return (self.parent,)

    def settings(self, scale: SplatScale) -> dict[str, Any]:
        """Those of all jobs, and the program."""
        return {**super().settings(scale), "program": PEER}


SplatJob = SplatRun | ZeroShot | SplatSpeed | SplatPeer | SplatFileRun


def splats(scale: SplatScale) -> list[SplatJob]:
    """All runs, those of the first seed first, and of each seed the ones first that tables cannot do without."""
    return [job for seed in scale.seeds for job in _of_seed(seed, scale)]


def _of_seed(seed: int, scale: SplatScale) -> list[SplatJob]:
    best = _pruned(seed, scale, "removal", THIRD, rounds=ROUNDS)
    return [
        SplatRun("dense-start", seed, "start", scale.start_steps, options=_prune(strategy="none")),
        SplatRun("dense", seed, "dense", scale.recovery_steps, f"dense-start-s{seed}", _prune(strategy="none")),
        best,
        *_capped(seed, scale, best),
        ZeroShot(seed, f"dense-start-s{seed}"),
        SplatPeer(seed, f"dense-start-s{seed}"),
        _pruned(seed, scale, "removal", 0.2, rounds=ROUNDS),
        _pruned(seed, scale, "removal", THIRD, rounds=ROUNDS, recovery="retrain"),
        _pruned(seed, scale, "significance", THIRD),
        _pruned(seed, scale, "contribution", THIRD),
        _other(seed, scale, "random", THIRD),
        _pruned(seed, scale, "removal", THIRD),
        SplatSpeed(seed, f"dense-s{seed}", best.name, THIRD),
        *_harmonics(seed, scale, best, 2),
        _scheduled("cut-52", seed, scale, "best", sh_degree=3),
        _pruned(seed, scale, "removal", 0.5, rounds=ROUNDS),
        _pruned(seed, scale, "removal", 0.1, rounds=ROUNDS),
        _pruned(seed, scale, "removal", THIRD, "l2", removal_norm="l2"),
        _pruned(seed, scale, "significance", THIRD, "released", volume_reference="released"),
        _pruned(seed, scale, "opacity", THIRD),
        _pruned(seed, scale, "hits", THIRD),
        _other(seed, scale, "merge", THIRD),
        *_harmonics(seed, scale, best, 1),
        *_harmonics(seed, scale, best, 0),
    ]


def _prune(**options: Any) -> dict[str, Any]:
    return {f"pipeline.prune.{name.replace('__', '.')}": value for name, value in options.items()}


def _cut(arm: str, seed: int, scale: SplatScale, keep: float, options: Mapping[str, Any], **values: Any) -> SplatRun:
    """A run that goes on from the dense start and is cut at the end of its first step."""
    # Degree 3 is the model's own: presets would lower it.
    common = {"pruning_ratio": round(1 - keep, 4), "sh_degree": 3, "start_step": scale.start_steps}
    return SplatRun(
        f"{arm}-{round(100 * keep)}",
        seed,
        "pruned",
        scale.recovery_steps,
        f"dense-start-s{seed}",
        _prune(**common, **options),
        keep=keep,
        **values,
    )


def _pruned(
    seed: int,
    scale: SplatScale,
    score: str,
    keep: float,
    variant: str = "",
    rounds: int = 1,
    recovery: str = "continue",
    **options: Any,
) -> SplatRun:
    """Gaussians of the lowest scores removed."""
    parts = (score, variant, str(rounds) if score == "removal" and not variant else "", "")
    arm = "-".join(part for part in parts if part) + ("" if recovery == "continue" else f"-{recovery}")
    options = {**options, "strategy": "rank", "score": score, "rounds": rounds, "recovery": recovery}
    name = f"{score} {variant}".strip()
    return _cut(arm, seed, scale, keep, options, strategy="rank", score=name, rounds=rounds, recovery=recovery)


def _other(seed: int, scale: SplatScale, strategy: str, keep: float) -> SplatRun:
    """Gaussians chosen without a score."""
    return _cut(strategy, seed, scale, keep, {"strategy": strategy}, strategy=strategy, recovery="continue")


def _capped(seed: int, scale: SplatScale, beside: SplatRun) -> list[SplatRun]:
    """Growth stopped at the number of the pruned run, from the beginning: for equal steps, and for equal time."""
    steps = SplatRun(
        f"capped-{round(100 * THIRD)}",
        seed,
        "capped",
        scale.steps,
        options=_prune(strategy="none"),
        keep=THIRD,
        capped=True,
        beside=beside.name,
    )
    time = replace(steps, arm=f"{steps.arm}-equal-time", role="capped-equal-time", steps=None, pace=steps.name)
    return [steps, time]


def preset_runs(seed: int, scale: SplatScale, names: Sequence[PresetName]) -> list[SplatRun]:
    """Presets as a user trains with them, from the beginning; as many steps as the dense run takes in all.

    Args:
        seed: Seed.
        scale: Sizes.
        names: Names of the presets.
    """
    return [_scheduled(f"preset-{name}", seed, scale, name) for name in names]


def _scheduled(arm: str, seed: int, scale: SplatScale, name: PresetName, **others: Any) -> SplatRun:
    """A preset in mid-training, but for options that are given."""
    preset = PRESETS[name]
    return SplatRun(
        arm,
        seed,
        "scheduled",
        scale.steps,
        options=_prune(preset=name, **others),
        strategy="rank",
        score=preset["score"],
        rounds=preset["rounds"],
        keep=round(1 - preset["pruning_ratio"], 4),
        recovery=preset["recovery"],
    )


LESSONS: Mapping[str, Mapping[str, Any]] = {
    "photo": {"distil__target": "photo"},
    "teacher": {"distil__target": "teacher", "distil__share": 0.0},
    "mixed": {"distil__target": "mixed"},
}
"""What the spherical harmonics learn from after the cut -> options: the photos; the teacher's pictures of training
views; pseudo views by the teacher and training views by their photos."""
STILL = "mixed, geometry frozen"


def _harmonics(seed: int, scale: SplatScale, parent: SplatRun, degree: int) -> list[SplatRun]:
    """The degree of a pruned and recovered model lowered."""
    lessons = dict(LESSONS)
    if degree == 2:
        lessons[STILL] = {**LESSONS["mixed"], "distil__geometry": False}
    runs = []
    for lesson, options in lessons.items():
        common = {"sh_degree": degree, "sh_step": scale.steps, "distil__steps": scale.harmonics_steps}
        runs.append(
            SplatRun(
                f"sh{degree}-{lesson.replace(', ', '-').replace(' ', '-')}",
                seed,
                "harmonics",
                scale.harmonics_steps + 1,  # the degree is lowered at the end of the first one
                parent.name,
                _prune(**common, **options),
                strategy="none",
                keep=parent.keep,
                recovery="continue",
                distil=lesson,
            )
        )
    return runs


def splat_schedule_text(scale: SplatScale) -> str:
    """When the runs of the suite are cut and end: the same text for what may be compared."""
    return f"cut at {scale.start_steps:,} of {scale.steps:,} steps"


def splat_digest(job: SplatJob, scale: SplatScale, scene: str, others: Sequence[SplatRun]) -> str:
    """Fingerprint of everything that decides what a job gives, apart from code and machine.

    Fields at their defaults are left out: records stay valid when a field is added.

    Args:
        job: The job.
        scale: Sizes.
        scene: Fingerprint of the data.
        others: Runs that it goes on from, or is measured beside.
    """
    said = [dict(PRESETS[name]) for part in (job, *others) if (name := _preset_of(part)) is not None]
    parts = [*(_given(part) for part in (job, *others)), job.settings(scale), METHOD, scene, *said]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _preset_of(job: SplatJob) -> Optional[PresetName]:
    """The preset that a run is trained with; None where all is given."""
    return job.options.get("pipeline.prune.preset") if isinstance(job, SplatRun) else None


def _given(job: SplatJob) -> dict[str, Any]:
    """Fields that have another value than their default."""
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(job)}
    return {name: value for name, value in asdict(job).items() if value != defaults[name]}
