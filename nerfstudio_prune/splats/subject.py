"""Gaussians as what the engine prunes: some of them, and the degree of their spherical harmonics."""

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Optional

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent, Sizes
from nerfstudio_prune.core.form import Form
from nerfstudio_prune.core.schedule import size_at
from nerfstudio_prune.core.subject import Change, FurtherOutput, Optimizers, Picture, Slicing, Subject, Words
from nerfstudio_prune.gaussians.budget import (
    count_from_megabytes,
    count_from_psnr_drop,
    count_from_ratio,
    uncompressed_bytes,
    values_of_gaussian,
)
from nerfstudio_prune.gaussians.merging import Merged, merge
from nerfstudio_prune.gaussians.pixel_sizes import footprints
from nerfstudio_prune.gaussians.pruner import check_gaussians, prepare_gaussian_pruning
from nerfstudio_prune.gaussians.scores import Score
from nerfstudio_prune.gaussians.selecting import Collect, Ranking, check_target, floor_of, random_ranking, rank
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import Contributions, Sum, View
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.form import GaussianForm
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.outputs import removed, significance, stand_in
from nerfstudio_prune.splats.recipes import GaussianRecipe

GAUSSIANS, SH_DEGREE = "gaussians", "sh_degree"
"""Names of the parts that have sizes."""


@dataclass(frozen=True)
class ViewEvidence:
    """What a cut of Gaussians is judged by: training views, which any choice of Gaussians can be shown to."""

    collect: Collect
    """What the views see of Gaussians."""
    psnr: Optional[Callable[[Gaussians], float]]
    """Quality of Gaussians on training views, in dB; None where there are no pictures to compare with."""
    views: Sequence[View]
    """The cameras."""
    seen: list[tuple[Tensor, Contributions]] = field(default_factory=list)
    """What the views see of a whole scene, by its centres, once that was collected."""

    def of(self, gaussians: Gaussians, wants: Collection[Sum]) -> Contributions:
        """What the views see of a whole scene; collected once, for whoever looks at it.

        Args:
            gaussians: All Gaussians that the evidence is for.
            wants: Names of the sums that are asked for.
        """
        for means, found in self.seen:
            same = means.data_ptr() == gaussians.means.data_ptr() and found.count == len(gaussians)
            if same and set(wants) <= found.sums.keys():
                return found
        found = self.collect(gaussians, wants)
        self.seen[:] = [(gaussians.means, found)]
        return found


Gather = Callable[[GaussianRecipe, int], ViewEvidence]
"""Gives the evidence of an event for a seed."""


@dataclass
class GaussianChange(Slicing):
    """A cut of Gaussians, ready to be applied."""

    keep: Optional[Int64[Tensor, " kept"]] = None
    """Indices of the Gaussians that stay. None: all."""


class GaussianSubject(Subject[GaussianRecipe]):
    """The Gaussians of a splatfacto-derived model.

    Args:
        model: The model; its `prune_state` survives in checkpoints.
        gather_views: Gives the evidence of an event.
    """

    unit = GAUSSIANS
    labels: Mapping[str, str] = MappingProxyType(
        {GAUSSIANS: "Gaussians", "parameters": "parameters", "bytes": "bytes in fp32"}
    )
    total = "all Gaussians"
    restarts_schedules = False
    words = Words(
        whole="model",
        part="",
        member="Gaussian",
        batch="pixels",
        measured="whole evaluation views",
        value="opacity",
        span=(0.0, 1.0),
    )
    further_outputs: Mapping[str, FurtherOutput] = MappingProxyType(
        {"significance": FurtherOutput(1, "scores"), "removed": FurtherOutput(3, "cut")}
    )
    cpu_still = 512

    def __init__(self, model: SplatPruneModel, gather_views: Gather) -> None:
        self.model = model
        self.gather_views = gather_views

    @property
    def form(self) -> Form:
        """What a person may choose."""
        return GaussianForm(self.model)

    def sizes(self) -> Sizes:
        """Gaussians and degree, and what they cost."""
        gaussians = self.model.gaussians
        return sizes_of(len(gaussians), gaussians.sh_degree)

    def initial_sizes(self) -> Sizes:
        """Sizes right before the first event that is not undone; growth comes before it."""
        done = self.state.succeeded
        return done[0].before if done else self.sizes()

    def place(self, part: str) -> tuple[str, str]:
        """Row and column of a part in a table."""
        return {GAUSSIANS: "Gaussians", SH_DEGREE: "SH degree"}[part], "size"

    def summary(self, sizes: Sizes) -> list[tuple[str, str]]:
        """How many, and what they take in memory."""
        degree = sizes.parts[SH_DEGREE]
        return [
            ("Gaussians", f"{sizes.costs[GAUSSIANS]:,}"),
            ("SH degree", f"{degree}"),
            ("bytes each", f"{uncompressed_bytes(1, degree)}"),
            ("MB in fp32", f"{sizes.costs['bytes'] / 1e6:.2f}"),
        ]

    def stage(self, step: int) -> str:
        """Growing, settling, settled; then pruning, recovery, distilling, distilled."""
        growth, done = self.model.growth, self.state.succeeded
        if not done:
            if step < growth.stop:
                return "growing"
            return "settling" if step < growth.settled else "settled"
        last = next((event for event in reversed(done) if lowered(event)), None)
        if last is not None:
            learns = last.options.get("distil", {}).get("steps") or 0
            return "distilling" if step < last.step + learns else "distilled"
        cuts = [event for event in self.state.pending if SH_DEGREE not in event.targets]
        return "pruning" if cuts else "recovery"

    def rule(self, event: PruneEvent) -> str:
        """The strategy, unless the event left all Gaussians."""
        sizes = event.before.parts, event.after.parts
        return "spherical harmonics" if len({parts.get(GAUSSIANS) for parts in sizes}) == 1 else event.strategy

    def remark(self) -> str:
        """What a pixel of the last picture cost."""
        pairs = self.model.pairs_per_pixel
        return "" if pairs is None else f"{pairs:.0f} Gaussians a pixel"

    def gain(self, event: PruneEvent) -> str:
        """How many Gaussians fewer, and what a lower degree is worth in bytes."""
        before, after = event.before, event.after
        counts, degrees = ((before.parts[part], after.parts[part]) for part in (GAUSSIANS, SH_DEGREE))
        texts = [] if counts[0] == counts[1] else [f"{counts[0] / max(1, counts[1]):.2f}x fewer Gaussians"]
        if degrees[0] != degrees[1]:
            share = before.costs["bytes"] / max(1, after.costs["bytes"])
            texts.append(f"degree {degrees[0]} → {degrees[1]}, {share:.2f}x fewer bytes")
        return ", ".join(texts) or "as many Gaussians as before"

    def leaving(self, change: Change) -> dict[str, Tensor]:
        """Indices of the Gaussians that leave; of a pair that is merged, the one that gives its place to the other."""
        keep = getattr(change, "keep", None)
        if keep is None:
            return {}
        leaves = torch.ones(len(self.model.gaussians), dtype=torch.bool)
        leaves[keep.cpu()] = False
        return {GAUSSIANS: leaves.nonzero()[:, 0]}

    def pictures(self, scores: Mapping[str, Tensor], leaving: Mapping[str, Tensor]) -> dict[str, Picture]:
        """`significance` where there are scores, `removed` where Gaussians leave."""
        found: dict[str, Picture] = {}
        if GAUSSIANS in scores:
            found["significance"] = significance(self.model, scores[GAUSSIANS])
        if len(leaving.get(GAUSSIANS, ())):
            found["removed"] = removed(self.model, leaving[GAUSSIANS])
        return found

    def backdrop(self) -> Float[Tensor, "3"]:
        """What lies behind the Gaussians in evaluation."""
        return self.model.behind

    def stand_in(self, model: SplatPruneModel, background: Optional[Float[Tensor, "3"]]) -> SplatPruneModel:
        """A model of the same Gaussians for the viewer."""
        return stand_in(model, background)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The six parameters."""
        return {f"gauss_params.{name}": parameter for name, parameter in self.model.gauss_params.items()}

    def buffers(self) -> dict[str, Tensor]:
        """What the densification keeps of each Gaussian."""
        return self.model.running

    def set_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Puts the densification's notes in place."""
        self.model.strategy_state.update(buffers)

    def check(self) -> None:
        """Checks that the parameters are of one set of Gaussians, and finite.

        Raises:
            ValueError: Names the parameter, how many values, and the first Gaussian.
        """
        check_gaussians(dict(self.model.gauss_params.items()))

    def earliest(self) -> tuple[int, str]:
        """First step behind growth and the last opacity reset."""
        growth = self.model.growth
        return growth.settled, (
            f"Gaussians grow and their opacities are reset until step {growth.stop:,} (pipeline.model.stop-split-at, "
            f"scaled to the run), and settle for {growth.settle:,} steps"
        )

    def targets(self, recipe: GaussianRecipe) -> dict[str, int]:
        """The degree, where that is to be lowered; how many Gaussians there are is known at the event.

        Raises:
            ValueError: If the target does not fit what is known already.
        """
        last = self._last_degree(recipe)
        if recipe.aim is not None and recipe.aim[0] == "target_mb":
            count_from_megabytes(recipe.aim[1], last)
        return {SH_DEGREE: last} if last < self.model.gaussians.sh_degree else {}

    def scaled(
        self, event: ScheduledEvent, targets: Mapping[str, int], initial: Mapping[str, int], round_to: int
    ) -> ScheduledEvent:
        """An event as it is, or to another degree, if it lowers that."""
        lowers = SH_DEGREE in event.targets and SH_DEGREE in targets
        return replace(event, targets={SH_DEGREE: targets[SH_DEGREE]}) if lowers else event

    def at_once(self, options: SplatPruneConfig) -> SplatPruneConfig:
        """The degree is lowered by an event of its own, and a cut by hand leaves it unless it is told otherwise."""
        return replace(options, sh_degree=self.model.gaussians.sh_degree)

    def further_events(self, recipe: GaussianRecipe) -> list[ScheduledEvent]:
        """The event that lowers the degree of the spherical harmonics, if it is above what is asked for."""
        if recipe.sh_step is None or recipe.sh_degree is None or recipe.sh_degree >= self.model.gaussians.sh_degree:
            return []
        return [ScheduledEvent(recipe.sh_step, Fraction(1), {SH_DEGREE: recipe.sh_degree})]

    def recovers_from(self, event: PruneEvent) -> bool:
        """Whether Gaussians left; spherical harmonics that lose a degree go on as they were."""
        return event.before.parts.get(GAUSSIANS) != event.after.parts.get(GAUSSIANS)

    def aim(self, recipe: GaussianRecipe, event: ScheduledEvent) -> str:
        """How far an event goes, in a few words."""
        if SH_DEGREE in event.targets:
            return f"to spherical harmonics of degree {event.targets[SH_DEGREE]}"
        if recipe.aim is None:
            return "to nothing less"
        name, value = recipe.aim
        whole = {
            "pruning_ratio": f"to {1 - value * event.progress:.0%} of the Gaussians",
            "target_gaussians": f"to {value:,} Gaussians",
            "target_mb": f"to {value:g} MB in fp32",
            "max_psnr_drop": f"as far as the training views lose {value * event.progress:.3g} dB in all",
        }[name]
        counted = event.share == 1 or name in ("pruning_ratio", "max_psnr_drop")
        return whole if counted else f"{event.progress:.0%} of the way {whole}"

    def recorded(self, recipe: GaussianRecipe) -> Mapping[str, Any]:
        """The options, with the score's as they are on the model's rasteriser."""
        score = self._score(recipe)
        return recipe.options if score is None else {**recipe.options, **vars(score)}

    def gather(self, recipe: GaussianRecipe, seed: int) -> ViewEvidence:
        """The training views."""
        return self.gather_views(recipe, seed)

    def prepare(
        self,
        recipe: GaussianRecipe,
        event: ScheduledEvent,
        evidence: ViewEvidence,
        optimizers: Optimizers,
        seed: int,
    ) -> GaussianChange:
        """Chooses the Gaussians that leave, or lowers the degree, and prepares it.

        Raises:
            ValueError: If the cut is impossible.
        """
        gaussians = self.model.gaussians.detach()
        degree = min(gaussians.sh_degree, event.targets.get(SH_DEGREE, gaussians.sh_degree))
        keep, values, report = None, None, []
        if self._cuts(event):
            n_keep, ranking, report = self._n_keep(recipe, event, gaussians, evidence, seed)
            if n_keep < len(gaussians):
                if recipe.strategy == "merge":
                    merged = self._merged(gaussians, n_keep, evidence)
                    keep, values = merged.representatives, merged.gaussians
                else:
                    ranking = ranking or self._ranking(recipe, gaussians, n_keep, evidence, seed)
                    keep = ranking.keep(n_keep)
        running: MutableMapping[str, Any] = self.model.strategy_state
        prepared = prepare_gaussian_pruning(
            self.model.gauss_params,
            keep,
            optimizers.optimizers,
            optimizers.parameters,
            running,
            sh_degree=degree,
            values=values,
            forget=recipe.recovery == "retrain",
        )
        return GaussianChange(self, prepared, report=report, keep=keep)

    def _cuts(self, event: ScheduledEvent) -> bool:
        """Whether Gaussians leave at an event: not at one that is planned for the degree, unless it is late and a cut
        before it has not happened."""
        planned = self.state.pending
        if event not in planned or SH_DEGREE not in event.targets:
            return True
        return any(e.index < event.index and SH_DEGREE not in e.targets for e in planned)

    def _n_keep(
        self, recipe: GaussianRecipe, event: ScheduledEvent, gaussians: Gaussians, evidence: ViewEvidence, seed: int
    ) -> tuple[int, Optional[Ranking], list[str]]:
        """How many stay after an event, the ranking if it took one to know, and what a person should see of that."""
        count, first = len(gaussians), self.initial_sizes().parts[GAUSSIANS]
        if recipe.aim is None:
            return count, None, []
        name, value = recipe.aim
        ranking, report, floor = None, [], floor_of(first)
        if name == "max_psnr_drop":
            ranking = self._ranking(recipe, gaussians, floor, evidence, seed)
            psnr = evidence.psnr

            def measure(keep: Tensor) -> float:
                assert psnr is not None
                if recipe.strategy == "merge":  # takes any number, and stays with none of a ranking
                    return psnr(self._merged(gaussians, len(keep), evidence).gaussians)
                return psnr(gaussians.select(keep))

            allowed = value * float(event.share - self._share_before(event))
            found = count_from_psnr_drop(ranking, None if psnr is None else measure, allowed, min(floor, count))
            report = [
                f"{found.count:,} of {count:,} Gaussians keep {found.psnr:.2f} of {found.dense_psnr:.2f} dB on "
                f"training views ({len(found.measured)} measurements, {allowed:.3g} dB allowed)"
            ]
            n_keep = found.count
        else:
            if name == "target_mb":
                final = count_from_megabytes(value, self._last_degree(recipe))
            else:
                final = count_from_ratio(first, value) if name == "pruning_ratio" else int(value)
            n_keep = size_at(first, final, event.share, recipe.round_to) if final <= first else final
        if n_keep >= count:
            return count, None, report  # what is asked for is there already
        check_target(n_keep, count, f"prune.{name} {value:g}", floor)
        return n_keep, ranking, report

    def _share_before(self, event: ScheduledEvent) -> Fraction:
        """Share of the whole cut that earlier events of the plan have done; those that were skipped, failed or undone
        have done nothing, and a cut by hand stands beside the plan."""
        done = {old.scheduled.index for old in self.state.succeeded if old.scheduled is not None}
        shares = [e.share for e in self.state.plan if e.index in done and e.index < event.index]
        return max(shares, default=Fraction(0))

    def _merged(self, gaussians: Gaussians, n_keep: int, evidence: ViewEvidence) -> Merged:
        return merge(
            gaussians,
            n_keep,
            pixel_sizes=footprints(gaussians.means, evidence.views),
            antialiased=self.model.config.rasterize_mode == "antialiased",
            weights=evidence.of(gaussians, {"weights"}).weights,
        )

    def _ranking(
        self, recipe: GaussianRecipe, gaussians: Gaussians, n_keep: int, evidence: ViewEvidence, seed: int
    ) -> Ranking:
        score = self._score(recipe)
        if score is None:
            return random_ranking(len(gaussians), seed)
        return rank(
            gaussians,
            n_keep,
            score,
            evidence.collect,
            rounds=recipe.rounds,
            seed=seed,
            first=evidence.of(gaussians, score.needs) if score.needs else None,
        )

    def _score(self, recipe: GaussianRecipe) -> Optional[Score]:
        """The recipe's score as the model's rasteriser can afford it."""
        score = recipe.score_function
        return None if score is None else score.on(self.model.rasterizer.cheap)

    def _last_degree(self, recipe: GaussianRecipe) -> int:
        degree = self.model.gaussians.sh_degree
        return degree if recipe.sh_degree is None else min(degree, recipe.sh_degree)

    def scores(self, recipe: GaussianRecipe, evidence: ViewEvidence) -> tuple[Optional[str], dict[str, Tensor]]:
        """Scores of all Gaussians as they are; a rule without scores has none."""
        score = self._score(recipe)
        if score is None:
            return None, {}
        gaussians = self.model.gaussians.detach()
        seen = evidence.of(gaussians, score.needs) if score.needs else None
        return recipe.score, {GAUSSIANS: score(gaussians, seen).cpu()}

    def weights(self) -> dict[str, Tensor]:
        """Opacities of all Gaussians, on the CPU."""
        return {"opacity": torch.sigmoid(self.model.opacities.detach()).flatten().cpu()}

    def detached(self, device: Optional[torch.device] = None) -> "GaussianSubject":
        """A copy of the Gaussians that no optimizer knows; everything else is shared."""
        gaussians = self.model.gaussians.detach()
        copies = {name: value.to(device or value.device, copy=True) for name, value in gaussians.items()}
        model = self.model.with_gaussians(Gaussians.of(copies))
        model.prune_state = replace(self.state)
        model.strategy_state = dict(self.model.strategy_state)
        return GaussianSubject(model, self.gather_views)


def lowered(event: PruneEvent) -> bool:
    """Whether an event that happened lowered the degree of the spherical harmonics."""
    return event.after.parts[SH_DEGREE] < event.before.parts[SH_DEGREE]


def sizes_of(count: int, degree: int) -> Sizes:
    """Sizes and costs of Gaussians.

    Args:
        count: How many.
        degree: Of their spherical harmonics.
    """
    return Sizes(
        {GAUSSIANS: count, SH_DEGREE: degree},
        {
            GAUSSIANS: count,
            "parameters": count * values_of_gaussian(degree),
            "bytes": uncompressed_bytes(count, degree),
        },
    )
