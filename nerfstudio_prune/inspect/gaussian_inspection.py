"""What `ns-prune inspect` finds in a run of Gaussians; its JSON has these fields. Needs no picture: scores by views are
left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Optional

import torch
from torch import Tensor

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent, Sizes
from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.kernels import MIN_ALPHA
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.recipes import GaussianRecipe
from nerfstudio_prune.splats.subject import GaussianSubject


@dataclass
class Spread:
    """Quantiles of a value over all Gaussians that it is finite for: of sorted values the one that is nearest."""

    minimum: float
    q05: float
    q25: float
    median: float
    q75: float
    q95: float
    maximum: float


@dataclass
class GaussianInspection:
    """A run at one of its checkpoints."""

    method: str
    config: str
    checkpoint: str
    step: int
    """Training step at whose end the checkpoint was saved."""
    phase: str
    """dense, pruning or recovery."""
    strategy: Optional[str]
    """Strategy of the plan; None if the checkpoint carries no plan."""
    now: Sizes
    """Gaussians and degree of the spherical harmonics, and what they cost."""
    initial: Sizes
    """The same before the first event."""
    checkpoint_mb: float
    """The file, with moments and state, in 10^6 bytes."""
    not_finite: dict[str, int]
    """Parameter -> values that are infinite or no number, where there are any."""
    unseen: int
    """Gaussians whose opacity is below what a rasteriser draws, 1/255."""
    spreads: dict[str, Spread]
    """Value -> its spread; those that no Gaussian has a finite value of are left out."""
    history: list[PruneEvent]
    """Events that happened or failed, oldest first."""
    rules: list[str]
    """By what each of these went."""
    changes: list[list[str]]
    """What each of these changed, in lines."""
    pending: list[ScheduledEvent]
    """Events to come."""
    aims: list[str]
    """How far each of these goes, in words."""


@torch.no_grad()
def inspect_gaussians(run: SavedRun[SplatPruneModel]) -> GaussianInspection:
    """Measures loaded Gaussians.

    Args:
        run: The run at one of its checkpoints.
    """
    subject, state = GaussianSubject(run.model, _no_views), run.model.prune_state
    gaussians = run.model.gaussians.detach()
    bad = {name: int((~torch.isfinite(value)).sum()) for name, value in gaussians.items()}
    opacity = torch.sigmoid(gaussians.opacities)
    return GaussianInspection(
        method=str(run.config.method_name),
        config=str(run.config_file),
        checkpoint=str(run.checkpoint),
        step=run.step,
        phase=state.phase,
        strategy=state.options.get("strategy"),
        now=subject.sizes(),
        initial=subject.initial_sizes(),
        checkpoint_mb=run.checkpoint.stat().st_size / 1e6,
        not_finite={name: count for name, count in bad.items() if count},
        unseen=int((opacity < MIN_ALPHA).sum()),
        spreads=spreads(gaussians),
        history=state.history,
        rules=[event.strategy if event.error else subject.rule(event) for event in state.history],
        changes=[[] if event.error else _changes(subject, event) for event in state.history],
        pending=state.pending,
        aims=_aims(subject),
    )


def _no_views(recipe: GaussianRecipe, seed: int) -> NoReturn:
    raise AssertionError("nothing is pruned here")


def _changes(subject: GaussianSubject, event: PruneEvent) -> list[str]:
    before, after = event.before.parts, event.after.parts
    return [
        f"{subject.place(part)[0]} {before[part]:,} → {after[part]:,}" for part in after if before[part] != after[part]
    ]


def _aims(subject: GaussianSubject) -> list[str]:
    pending = subject.state.pending
    if not pending:
        return []
    options = SplatPruneConfig().with_stored(subject.state.options)
    options.validate()
    recipe = options.resolve()
    return [subject.aim(recipe, event) for event in pending]


def spreads(gaussians: Gaussians) -> dict[str, Spread]:
    """What can be said of Gaussians without a view of them.

    Args:
        gaussians: Any number, of any degree.
    """
    sizes = gaussians.scales.exp()
    values = {
        "opacity": torch.sigmoid(gaussians.opacities).flatten(),
        "longest axis": sizes.amax(dim=1),
        "shortest axis": sizes.amin(dim=1),
        "longest by shortest": sizes.amax(dim=1) / sizes.amin(dim=1),
    }
    if gaussians.sh_degree > 0:
        values["harmonics"] = gaussians.features_rest.flatten(1).square().mean(dim=1).sqrt()
    found = {name: value[torch.isfinite(value)] for name, value in values.items()}
    return {name: spread_of(value) for name, value in found.items() if len(value)}


def spread_of(values: Tensor) -> Spread:
    """Spread of finite values.

    Args:
        values: At least one.
    """
    ordered = values.double().sort().values
    shares: Sequence[float] = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    return Spread(*(float(ordered[round(share * (len(ordered) - 1))]) for share in shares))
