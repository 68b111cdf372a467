"""Every choice of Gaussians on one dense model, measured right after the cut: no training at all."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerfstudio_prune.bench.setup import Scene
from nerfstudio_prune.bench.splat_quality import SplatMeter
from nerfstudio_prune.bench.splat_setup import make_splat_trainer, record_fields, warm_up
from nerfstudio_prune.bench.splat_suite import SplatScale, ZeroShot
from nerfstudio_prune.gaussians.budget import count_from_ratio
from nerfstudio_prune.gaussians.merging import merge
from nerfstudio_prune.gaussians.pixel_sizes import footprints
from nerfstudio_prune.gaussians.scores import Score, score_by_name
from nerfstudio_prune.gaussians.selecting import random_ranking, rank
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import Contributions
from nerfstudio_prune.records.splat_schema import Splits, ZeroShotRecord, ZeroShotRow
from nerfstudio_prune.splats.subject import ViewEvidence

RULES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "removal": ("removal", {}),
    "removal l2": ("removal", {"removal_norm": "l2"}),
    "contribution": ("contribution", {}),
    "significance": ("significance", {}),
    "significance released": ("significance", {"volume_reference": "released"}),
    "hits": ("hits", {}),
    "hits_opacity": ("hits_opacity", {}),
    "opacity": ("opacity", {}),
    "max_weight": ("max_weight", {}),
}
"""Name in the record -> score and its options."""
BEST = "removal"
"""Rule that is tried with several rounds."""


@dataclass
class Chosen:
    """What one rule leaves, and what the choice took."""

    rule: str
    rounds: int
    keep: float
    gaussians: Gaussians
    seconds: float


def measure_zero_shot(
    job: ZeroShot,
    scale: SplatScale,
    scene: Scene,
    folder: Path,
    checkpoint: Path,
    identity: Mapping[str, str],
    advance: Callable[[float], None] = lambda done: None,
) -> ZeroShotRecord:
    """Cuts the model of a checkpoint by all rules, each time from the whole.

    Args:
        job: What to try.
        scale: Sizes.
        scene: Data.
        folder: Folder of the benchmark.
        checkpoint: The model.
        identity: `digest` and `command` for the record.
        advance: Is told which share is done, in [0, 1].
    """
    options = {**scale.options, "pipeline.prune.strategy": "none"}
    trainer = make_splat_trainer(job.name, job.seed, options, scene, 1, folder, checkpoint)
    pipeline: Any = trainer.pipeline
    warm_up(pipeline)
    meter = SplatMeter(trainer, scale.views)
    whole = pipeline.model.gaussians.detach()
    rows = [zero_shot_row("dense", 0, 1.0, whole, meter.quality(pipeline.model), 0.0)]
    # Any recipe whose score looks at views makes the pipeline gather them.
    seeing = type(pipeline.config.prune)(score=BEST, pruning_ratio=0.5).resolve()
    choices = _choices(job, whole, pipeline.evidence(seeing, job.seed), meter.now)
    total = len(job.keeps) * (len(RULES) + 3) + len(job.rounds) * len(job.round_keeps)
    for chosen in choices:
        quality = meter.quality(pipeline.model.with_gaussians(chosen.gaussians))
        rows.append(zero_shot_row(chosen.rule, chosen.rounds, chosen.keep, chosen.gaussians, quality, chosen.seconds))
        advance((len(rows) - 1) / total)
    return ZeroShotRecord(
        **record_fields(job, scale, scene, options, pipeline.model.device, identity),
        parent=job.parent,
        train_views=len(pipeline.datamanager.train_dataset),
        views=meter.counts(),
        rows=rows,
        clock=meter.clock,
    )


def zero_shot_row(
    rule: str, rounds: int, keep: float, gaussians: Gaussians, quality: Splits, seconds: float
) -> ZeroShotRow:
    """A row of a record."""
    return ZeroShotRow(
        rule=rule,
        rounds=rounds,
        keep=keep,
        gaussians=len(gaussians),
        psnr={name: found.psnr for name, found in quality.items()},
        ssim={name: found.ssim for name, found in quality.items()},
        seconds=seconds,
    )


def _choices(job: ZeroShot, whole: Gaussians, evidence: ViewEvidence, clock: Callable[[], float]) -> Iterator[Chosen]:
    """All choices, those of one look at the views first; the look is taken once and counted for each that needs it."""
    start = clock()
    first = evidence.collect(whole)
    look = clock() - start
    known: dict[str, Any] = {"pixel_sizes": footprints(whole.means, evidence.views), "weights": first.weights}

    def ranked(rule: str, score: Score, keep: float, rounds: int) -> Chosen:
        seen: Contributions | None = first if score.needs else None
        begin, n_keep = clock(), count_from_ratio(len(whole), 1 - keep)
        ranking = rank(whole, n_keep, score, evidence.collect, rounds=rounds, seed=job.seed, first=seen)
        left = whole.select(ranking.keep(n_keep))
        seconds = clock() - begin + (0.0 if seen is None else look)
        return Chosen(rule, rounds if seen is not None else 1, keep, left, seconds)

    for rule, (name, values) in RULES.items():
        for keep in job.keeps:
            yield ranked(rule, score_by_name(name, values), keep, 1)
    for keep in job.keeps:
        n_keep = count_from_ratio(len(whole), 1 - keep)
        yield Chosen("random", 0, keep, whole.select(random_ranking(len(whole), job.seed).keep(n_keep)), 0.0)
        for rule, seen, taken in (("merge", dict[str, Any](), 0.0), ("merge seen", known, look)):
            begin = clock()
            merged = merge(whole, n_keep, **seen).gaussians
            yield Chosen(rule, 0, keep, merged, clock() - begin + taken)
    for rounds in job.rounds:
        for keep in job.round_keeps:
            yield ranked(BEST, score_by_name(BEST, {}), keep, rounds)
