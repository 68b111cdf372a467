"""Suites as data: which runs, with which options. Carries nothing out."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, ClassVar, Literal, Optional

import torch
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_prune.bench.cost_jobs import Scaling, StockSpeed, scaling_job, stock_speed
from nerfstudio_prune.bench.file_jobs import FileRun, TinyFileRun, file_jobs
from nerfstudio_prune.bench.jobs import SuiteJob
from nerfstudio_prune.bench.kilo_jobs import KiloRun, KiloSpeed, kilo_jobs, of_pruned_teacher
from nerfstudio_prune.engine.planning import resolve_steps
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModelConfig
from nerfstudio_prune.nerf.presets import PRESETS, PresetName
from nerfstudio_prune.neurons.budget import cost_of
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.strategies import STRATEGIES
from nerfstudio_prune.records.schema import LEARNING_RATE, Role

Procedure = Literal["method", "mask", "torch-pruning", "torch-prune"]
"""Who prunes: the method's own controller; masks in place of removal, for the neurons that the method would keep;
Torch-Pruning; `torch.nn.utils.prune`."""
MASKING = ("mask", "torch-prune")
"""Procedures after which the network is as large as before."""

HALF, QUARTER = 0.5, 0.75
"""Pruning ratios that leave half and a quarter of every width."""


@dataclass(frozen=True)
class Scale:
    """Sizes of all runs of a suite."""

    name: str
    options: Mapping[str, Any]
    """Options of the method, by dotted path."""
    start_steps: int
    """Dense training steps before the cut."""
    steps: int
    """Training steps in all."""
    seeds: tuple[int, ...]
    views: int
    """Evaluation views, evenly spaced, that quality is the mean of."""
    curve_rays: int
    """Held-out rays behind a point of the curve."""
    curve_every: int
    """Steps between two points of the curve."""
    speed_blocks: int
    """Blocks of training steps per network that the speed is measured on."""
    speed_steps: int
    """Training steps of a block."""
    demo_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the built-in scene, where it is used."""


_MODEL = "pipeline.model."
_RAYS = "pipeline.datamanager.train_num_rays_per_batch"
STOCK_RATE = 5e-4
"""Learning rate of the methods, where no option replaces it."""

SCALES = {
    "smoke": Scale(
        name="smoke",
        options={
            _MODEL + "base_mlp_num_layers": 6,
            # Wide enough for a quarter of it to stay above the least width of a layer.
            _MODEL + "base_mlp_layer_width": 32,
            _MODEL + "head_mlp_layer_width": 32,
            _MODEL + "num_coarse_samples": 8,
            _MODEL + "num_importance_samples": 8,
            # After a few steps a field is fog: nothing of it is empty, and masks are not skipped.
            _MODEL + "skip_empty_space": False,
            _RAYS: 32,
        },
        start_steps=4,
        steps=8,
        seeds=(1,),
        views=2,
        curve_rays=32,
        curve_every=2,
        speed_blocks=2,
        speed_steps=2,
        demo_options={"image_size": 16, "num_train_views": 4, "num_val_views": 2, "num_test_views": 2},
    ),
    "cpu": Scale(
        name="cpu",
        options={
            _MODEL + "base_mlp_layer_width": 128,
            _MODEL + "head_mlp_layer_width": 64,
            _MODEL + "num_coarse_samples": 32,
            _MODEL + "num_importance_samples": 32,
            _RAYS: 256,
            LEARNING_RATE: 2e-3,
        },
        start_steps=1000,
        steps=2000,
        seeds=(1, 2, 3),
        views=4,
        curve_rays=1000,
        curve_every=100,
        speed_blocks=10,
        speed_steps=10,
    ),
    "gpu": Scale(
        name="gpu",
        options={},
        start_steps=5000,
        steps=20000,
        seeds=(1, 2, 3),
        views=8,
        curve_rays=8192,
        curve_every=500,
        speed_blocks=20,
        speed_steps=20,
    ),
}
"""Name -> scale."""


@dataclass(frozen=True)
class Run(SuiteJob):
    """One training run."""

    folder: ClassVar[str] = "runs"
    arm: str
    """What is compared, without the seed."""
    seed: int
    role: Role
    steps: Optional[int]
    """Training steps that it takes itself; None: as many as fit into the time of a pruned run."""
    parent: Optional[str] = None
    """Run whose last checkpoint it goes on from."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method besides those of the scale, by dotted path."""
    width_ratio: float = 1.0
    """Width of all layers as a share of the scale's."""
    procedure: Procedure = "method"
    strategy: str = "none"
    """Name for tables; with procedure `method` and `mask` that of the option, a variant after a dash."""
    score: Optional[str] = None
    """Score, or criterion of another library."""
    pruning_ratio: Optional[float] = None
    recovery: Optional[str] = None
    decay: Optional[tuple[float, Optional[int]]] = None
    """Share of the initial learning rate that is left after a number of steps, None for its own, exponential decay;
    None: constant."""
    as_long_as: Optional[tuple[str, str]] = None
    """Where steps are None: the run whose whole time it takes from scratch, and the run whose steps take as long as its
    own. None: it goes on from its parent for the time that a pruned run spends on dense steps."""
    describe: bool = False
    """Whether the distributions of weights and scores are kept."""

    @property
    def name(self) -> str:
        """Unique within a suite."""
        return f"{self.arm}-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return () if self.parent is None else (self.parent,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Runs that it goes on from, and what its steps follow from."""
        if self.as_long_as is not None:
            return (*self.sources, *self.as_long_as)
        ratio = self.pruning_ratio
        return (*self.sources, *([speed_name(ratio)] if self.steps is None and ratio else []))

    @property
    def told_steps(self) -> str:
        """Its steps, or what they follow from."""
        return str(self.steps or "equal time")

    def sizes(self, scale: "Scale") -> dict[str, Any]:
        """What quality is measured on; where its steps follow from a time, the steps before the cut."""
        names = ["views", "curve_rays", "curve_every", *(["start_steps"] if self.steps is None else [])]
        return {name: getattr(scale, name) for name in names}


@dataclass(frozen=True)
class SpeedRun(SuiteJob):
    """Dense and pruned network measured in turns."""

    folder: ClassVar[str] = "speed"
    pruning_ratio: float

    @property
    def name(self) -> str:
        """Unique within a suite."""
        return speed_name(self.pruning_ratio)

    def sizes(self, scale: "Scale") -> dict[str, Any]:
        """How much is timed."""
        return {"speed_blocks": scale.speed_blocks, "speed_steps": scale.speed_steps}


Job = Run | SpeedRun | StockSpeed | Scaling | KiloRun | KiloSpeed | FileRun | TinyFileRun


def speed_name(pruning_ratio: float) -> str:
    """Name of the speed record of a pruning ratio."""
    return f"speed-{pruning_ratio:g}"


def schedule_text(run: Run, scale: Scale) -> str:
    """When the runs of a suite are cut and end, and how their rate falls: the same text for what may be compared.

    Args:
        run: Any run of the suite, controls included.
        scale: Sizes, with what replaces those of the scale of that name.

    Returns:
        Text for people; empty if all is as the scale of that name has it, at a constant rate.
    """
    own = SCALES.get(scale.name, scale)
    if run.decay is None and (scale.start_steps, scale.steps) == (own.start_steps, own.steps):
        return ""
    text = f"cut at {scale.start_steps:,} of {scale.steps:,} steps"
    if run.decay is None:
        return text
    rate = scale.options.get(LEARNING_RATE, STOCK_RATE)
    return f"{text}, rate {rate:g} decaying to {rate * run.decay[0]:g}"


def digest(job: Job, scale: Scale, method: str, scene: str, parents: Sequence[Run]) -> str:
    """Fingerprint of everything that decides what a job gives, apart from code and machine.

    Fields at their defaults are left out: records stay valid when a field is added.

    Args:
        job: The run.
        scale: Sizes; those that say nothing about this job are left out.
        method: Nerfstudio method.
        scene: Fingerprint of the data.
        parents: Runs that it goes on from, the nearest first.
    """
    sizes = {"options": dict(scale.options), **job.sizes(scale)}
    parts = [
        *(_given(run) for run in (job, *parents)),
        sizes,
        method,
        scene,
    ]
    preset = job.options.get("pipeline.prune.preset") if isinstance(job, Run) else None
    if preset is not None:
        parts.append(dict(PRESETS[preset]))
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _given(run: Job) -> dict[str, Any]:
    """Fields that have another value than their default."""
    defaults = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(run)}
    return {name: value for name, value in asdict(run).items() if value != defaults[name]}


def _prune(**options: Any) -> dict[str, Any]:
    return {f"pipeline.prune.{name}": value for name, value in options.items()}


def _start(seed: int, scale: Scale) -> Run:
    return Run("dense-start", seed, "start", scale.start_steps, options=_prune(strategy="none"), describe=True)


def _dense(seed: int, scale: Scale) -> Run:
    return Run("dense", seed, "dense", scale.steps - scale.start_steps, f"dense-start-s{seed}", _prune(strategy="none"))


def _cut(arm: str, seed: int, scale: Scale, role: Role, **values: Any) -> Run:
    """A run that goes on from the dense start and is cut at the end of its first step."""
    return Run(arm, seed, role, scale.steps - scale.start_steps, f"dense-start-s{seed}", **values)


def pruned(
    seed: int,
    scale: Scale,
    strategy: str,
    score: Optional[str],
    ratio: float,
    variant: str = "",
    refit: Literal["lstsq", "merge"] | None = None,
) -> Run:
    """Neurons removed by one of this project's strategies."""
    name = "-".join(part for part in (strategy, variant, refit) if part)
    options = _prune(strategy=strategy, score=score, pruning_ratio=ratio, start_step=scale.start_steps)
    if variant:
        options |= _prune(**{f"{strategy}_variant": variant})
    if refit:
        options |= _prune(refit=refit)
    arm = "-".join([name, *([score] if score else []), f"{ratio:g}"])
    default = None if variant else STRATEGIES[strategy]().default_score
    return _cut(
        arm,
        seed,
        scale,
        "pruned",
        options=options,
        strategy=name,
        score=score or default,
        pruning_ratio=ratio,
        recovery="continue",
    )


def _retrained_from_scratch(seed: int, scale: Scale, ratio: float) -> Run:
    """The second reading of the paper's "retrain": all values are drawn anew, the choice of neurons plays no part."""
    base = pruned(seed, scale, "uniform", None, ratio)
    options = {**base.options, **_prune(recovery="scratch")}
    return replace(base, arm=f"scratch-{ratio:g}", options=options, strategy="any", recovery="scratch")


def _single_weights(seed: int, scale: Scale, option: str, value: float, recovery: str) -> Run:
    """Single weights masked, by the threshold or the fraction to keep that the paper names."""
    arm = f"edge-{option.removesuffix('_fraction')}-{value:g}" + ("-scratch" if recovery == "scratch" else "")
    options = _prune(strategy="edge", start_step=scale.start_steps, recovery=recovery, **{f"edge_{option}": value})
    return _cut(arm, seed, scale, "edges", options=options, strategy="edge", recovery=recovery)


def _small(seed: int, scale: Scale, ratio: float) -> list[Run]:
    """The same widths from scratch: for equal steps, and trained on from there for equal time."""
    values: dict[str, Any] = dict(options=_prune(strategy="none"), width_ratio=1 - ratio, pruning_ratio=ratio)
    equal_steps = Run(f"small-{ratio:g}", seed, "small", scale.steps, **values)
    equal_time = Run(f"{equal_steps.arm}-equal-time", seed, "small-equal-time", None, equal_steps.name, **values)
    return [equal_steps, equal_time]


def paper(scale: Scale) -> list[Job]:
    """Tables 1 to 4 and Figures 2 and 4 of Ding et al. 2025 (arXiv 2504.00950)."""
    first = scale.seeds[0]
    runs: list[Job] = []
    for seed in scale.seeds:
        runs += [_start(seed, scale), _dense(seed, scale)]
        runs += [pruned(seed, scale, "coreset", None, ratio) for ratio in (HALF, QUARTER)]
        runs += [pruned(seed, scale, "importance", score, HALF) for score in ("w_in", "w_out", "w_in_w_out")]
        runs += [pruned(seed, scale, "uniform", None, QUARTER)]
        runs += [_retrained_from_scratch(seed, scale, ratio) for ratio in (HALF, QUARTER)]
    for option, value in (("threshold", 0.05), ("threshold", 0.1), ("keep_fraction", 0.4), ("keep_fraction", 0.2)):
        # No draw decides here, and threshold 0 cuts nothing: that is the dense control.
        runs += [_single_weights(first, scale, option, value, recovery) for recovery in ("continue", "scratch")]
    return runs


def frontier(scale: Scale) -> list[Job]:
    """Every registered strategy and the controls: half width with all seeds, quarter width with the first. What works
    on calibration samples, with refit, at half width with the first seed."""
    runs: list[Job] = [SpeedRun(HALF), SpeedRun(QUARTER)]
    blind = [name for name in sorted(STRATEGIES) if name != "importance" and not STRATEGIES[name]().needs_samples]
    seeing = [name for name in sorted(STRATEGIES) if STRATEGIES[name]().needs_samples]
    for seed in scale.seeds:
        runs += [_start(seed, scale), _dense(seed, scale)]
        for ratio in (HALF, QUARTER) if seed == scale.seeds[0] else (HALF,):
            runs += [pruned(seed, scale, name, None, ratio) for name in blind]
            runs += [pruned(seed, scale, "importance", score, ratio) for score in ("w_out", "w_in_w_out")]
            runs += [pruned(seed, scale, "coreset", None, ratio, variant="mussay")]
            runs += _small(seed, scale, ratio)
        runs += [_masked(seed, scale)]
    first = scale.seeds[0]
    runs += [pruned(first, scale, name, None, HALF, refit="lstsq") for name in seeing]
    runs += [pruned(first, scale, "importance", score, HALF, refit="lstsq") for score in ("w_out", "activation")]
    return runs


def _masked(seed: int, scale: Scale) -> Run:
    base = pruned(seed, scale, "importance", "w_out", HALF)
    options = {**base.options, **_prune(strategy="none")}
    return replace(base, arm=f"masked-{base.arm}", role="masked", options=options, procedure="mask")


def speed(scale: Scale) -> list[Job]:
    """Training step, rendered rays and one image: dense and pruned in turns, and beside the host's own model."""
    return [*(SpeedRun(ratio) for ratio in (0.25, HALF, QUARTER)), stock_speed(scale)]


def scaling(scale: Scale) -> list[Job]:
    """Time and memory of a training step and of a picture by the size of network and batch."""
    return [scaling_job(scale)]


def peers(scale: Scale) -> list[Job]:
    """One dense checkpoint pruned to half width by other libraries and by this project."""
    seed = scale.seeds[0]
    runs: list[Job] = [_start(seed, scale), _dense(seed, scale)]
    # Its `lamp` keeps the same neurons as magnitude-l2 when every layer has its own target.
    for criterion in ("random", "magnitude-l1", "magnitude-l2", "taylor", "fpgm"):
        runs.append(_peer(seed, scale, "torch-pruning", criterion))
    for criterion in ("l1", "l2"):
        runs.append(_peer(seed, scale, "torch-prune", criterion))
    runs += [pruned(seed, scale, "importance", score, HALF) for score in ("w_in", "w_out", "w_in_w_out")]
    runs += [pruned(seed, scale, "coreset", None, HALF, variant=variant) for variant in ("", "mussay")]
    return runs


DECAY = 0.1
"""Share of the learning rate that the runs of an ablation end with, the dense ones too."""


def ablation(scale: Scale) -> list[Job]:
    """The whole recipe, and what it is worth without each of its parts; at smaller sizes; with the controls.

    With `--start-steps` near `--steps` it shows a late cut with a short recovery, with few an early one.
    """
    first = scale.seeds[0]
    runs: list[Job] = []
    for seed in scale.seeds:
        own: list[Run] = [_start(seed, scale), _dense(seed, scale)]
        own += [_recipe(seed, scale, ratio) for ratio in (HALF, 0.625, 0.7)]
        own += [pruned(seed, scale, "importance", "w_out", HALF)]
        small = _small(seed, scale, HALF)[0]
        own += [small]
        if _recovers(scale):
            own += [_preset(seed, scale, name) for name in PRESETS]
            own += [_small_as_long_as("preset-best", small)]
        if seed == first:
            own += [_recipe(seed, scale, HALF, without) for without in recipe_parts(scale)]
            own += [pruned(seed, scale, "uniform", None, HALF)]
            if _recovers(scale):
                own += [_preset(seed, scale, "best", "twice-the-rate", recovery_lr_factor=2.0)]
        runs += [_decaying(run, scale) for run in own]
    return runs


def kilo(scale: Scale) -> list[Job]:
    """Tiny networks of dense runs, beside their controls; with the first seed of other sizes, and of a pruned run."""
    jobs: list[Job] = []
    for seed in scale.seeds:
        first = seed == scale.seeds[0]
        start, teacher, best = (
            _decaying(run, scale) for run in (_start(seed, scale), _dense(seed, scale), _preset(seed, scale, "best"))
        )
        jobs += [start, teacher, *kilo_jobs(seed, scale.name, teacher.name, sizes=first)]
        if first:
            jobs += [best, of_pruned_teacher(seed, scale.name, best.name)]
    return jobs


def stored_networks(scale: Scale) -> list[Job]:
    """A dense run and those of two presets, and files of them in every form."""
    jobs: list[Job] = []
    for seed in scale.seeds:
        runs = _start(seed, scale), _dense(seed, scale), _preset(seed, scale, "best"), _preset(seed, scale, "tiny")
        start, dense, best, tiny = (_decaying(run, scale) for run in runs)
        stored = {"dense": dense.name, "best": best.name, "tiny": tiny.name}
        jobs += [start, dense, best, tiny, *file_jobs(seed, stored)]
    return jobs


def _small_as_long_as(arm: str, small: Run) -> Run:
    """A small network from scratch for as long as a pruned one of the same seed takes, its dense steps included."""
    time_of = f"{arm}-s{small.seed}"
    return replace(
        small, arm=f"{small.arm}-equal-time", role="small-equal-time", steps=None, as_long_as=(time_of, small.name)
    )


def _decaying(run: Run, scale: Scale) -> Run:
    """The same at a rate that falls to the end of the run; under another name, for it is another run than those of that
    name in other suites."""

    def renamed(name: str) -> str:
        return f"{name.removesuffix(seed)}-decay{seed}"

    seed = f"-s{run.seed}"
    return replace(
        run,
        arm=f"{run.arm}-decay",
        parent=run.parent and renamed(run.parent),
        as_long_as=run.as_long_as and (renamed(run.as_long_as[0]), renamed(run.as_long_as[1])),
        decay=(DECAY, scale.steps if run.steps is not None else None),
    )


def _is_early(scale: Scale) -> bool:
    return scale.start_steps <= scale.steps // 5


def _recovers(scale: Scale) -> bool:
    """Whether enough of the training is left behind the cut for the presets, which have several events."""
    return scale.start_steps <= scale.steps * 2 // 3


def recipe_parts(scale: Scale) -> dict[str, dict[str, Any]]:
    """Part of the recipe -> options that take it out."""
    parts: dict[str, dict[str, Any]] = {
        "obs": {"strategy": "importance", "score": "w_out"},
        "refit": {"refit": "none"},
        "budget": {"target_parameters": None},
        "gradients": {"calibration_weights": "contribution"},
    }
    if _is_early(scale):
        return parts
    return parts | {"teacher": {"teacher.steps": None}, "rate": {"recovery_lr": None, "recovery_decay": None}}


def _recipe(seed: int, scale: Scale, ratio: float, without: str = "") -> Run:
    """The best that the method has, at the size of a network of that pruning ratio."""
    recovery = scale.steps - scale.start_steps
    rate = scale.options.get(LEARNING_RATE, STOCK_RATE)
    options: dict[str, Any] = {
        "strategy": "obs",
        "score": None,
        "refit": "lstsq",
        "target_parameters": parameter_share(tuple(scale.options.items()), ratio),
        "start_step": scale.start_steps,
    }
    # A teacher that has hardly been trained itself would hold the network back.
    if not _is_early(scale):
        options |= {"teacher.steps": max(1, min(recovery // 3, scale.start_steps // 10))}
        if rate * DECAY ** (scale.start_steps / scale.steps) < rate / 2:
            options |= {"recovery_lr": rate / 2, "recovery_decay": recovery}
    options |= recipe_parts(scale).get(without, {})
    if options["target_parameters"] is None:
        options["pruning_ratio"] = ratio
    arm = f"recipe-{ratio:g}" + (f"-without-{without}" if without else "")
    return _cut(
        arm,
        seed,
        scale,
        "pruned",
        options=_prune(**options),
        strategy=arm.replace(f"-{ratio:g}", "").replace("-", " "),
        pruning_ratio=ratio,
        recovery="continue",
    )


def _preset(seed: int, scale: Scale, name: PresetName, variant: str = "", **others: Any) -> Run:
    """A preset of the method as it is, but for the step of its first event and for options that are given."""
    preset = PRESETS[name]
    options: dict[str, Any] = {"preset": name, "start_step": scale.start_steps, **others}
    events = preset.get("num_events", 1)
    if events > 1:
        # The run goes on from the dense start, and would count the share of its own steps only.
        fitting = min(events, scale.steps - scale.start_steps)
        whole = PruneConfig(preset=name, start_step=scale.start_steps, num_events=fitting).filled()
        options["stop_step"] = resolve_steps(whole, 0, scale.steps).stop_step
        if fitting < events:
            options["num_events"] = fitting
    share = preset.get("target_parameters", preset.get("target_macs"))
    sizes = {ratio: parameter_share(tuple(scale.options.items()), ratio) for ratio in (HALF, 0.625, 0.7, QUARTER)}
    return _cut(
        "-".join(part for part in ("preset", name, variant) if part),
        seed,
        scale,
        "pruned",
        options=_prune(**options),
        strategy=" ".join(part for part in ("preset", name, variant.replace("-", " ")) if part),
        pruning_ratio=HALF if share is None else min(sizes, key=lambda ratio: abs(sizes[ratio] - share)),
        recovery="continue",
    )


@cache
def parameter_share(options: tuple[tuple[str, Any], ...], ratio: float) -> float:
    """Parameters of a network whose layers all lose a share of their neurons, as a share of the dense one's."""
    own = {path.removeprefix(_MODEL): value for path, value in options if path.startswith(_MODEL)}
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    groups = PruneModelConfig(**own).setup(scene_box=box, num_train_data=1).neuron_groups()
    units = dict.fromkeys(linears(groups), 1)
    widths = {group.name: int(group.width * (1 - ratio) + 0.5) for group in groups}
    return round(cost_of(groups, widths, units, True) / cost_of(groups, {}, units, True), 5)


def _peer(seed: int, scale: Scale, procedure: Procedure, criterion: str) -> Run:
    library = {"torch-pruning": "Torch-Pruning", "torch-prune": "torch.nn.utils.prune"}[procedure]
    return _cut(
        f"{procedure}-{criterion}-{HALF:g}",
        seed,
        scale,
        "peer",
        options=_prune(strategy="none"),
        procedure=procedure,
        strategy=library,
        score=criterion,
        pruning_ratio=HALF,
        recovery="continue",
    )


SUITES: dict[str, Callable[[Scale], list[Job]]] = {
    "paper": paper,
    "frontier": frontier,
    "speed": speed,
    "scaling": scaling,
    "peers": peers,
    "ablation": ablation,
    "kilo": kilo,
}
"""Name -> suite."""
